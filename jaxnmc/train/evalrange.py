"""Bits per byte of float parameters while training, as `evaluate` has it.

Models with different vocabularies are comparable only on equal bytes. A range
is a list of prefix lengths in bytes, one per document; it can be cut anywhere,
so each model encodes the cut text with its own tokenizer.
"""

from collections.abc import Callable, Sequence
from typing import Any

from jaxnmc.evaluate.bits import Scorer, encode
from jaxnmc.evaluate.text import cut, read_lengths
from jaxnmc.io.tokenizer import Tokenizer
from jaxnmc.ops.transform import fake_quant, reference
from jaxnmc.quantize.plan import Plan

__all__ = ["bits_per_byte", "cut", "read_lengths", "score"]


def score(fn: Callable, plan: Plan | None = None) -> Scorer:
  """Returns the scorer of a model function; it keeps compiled programs.

  Args:
    fn: model function.
    plan: number formats to score it under; None: float.
  """
  return Scorer(reference(fn) if plan is None else fake_quant(fn, plan))


def bits_per_byte(
  score_fn: Scorer,
  params: Any,
  tokenizer: Tokenizer,
  texts: Sequence[bytes],
  batch: int = 16,
  grain: int = 128,
) -> dict[str, float]:
  """Scores texts, each from its own BOS and a state of zero.

  Args:
    score_fn: from `score`; keep it, it holds the compiled programs.
    params: float parameters.
    tokenizer: encodes the texts.
    texts: UTF-8 bytes of the documents.
    batch: documents at a time.
    grain: positions at a time.

  Returns:
    {"bpb", "nats_per_id", "perplexity", "ids", "bytes"}.

  Raises:
    DataError: there is nothing to score.
  """
  rows, size = encode(tokenizer, texts, tokenizer.vocab_size)
  bos = tokenizer.bos_id if tokenizer.bos_id is not None else 0
  found = score_fn(params, rows, size, bos=bos, batch=batch, chunk=grain)
  return {
    "bpb": found.bits_per_byte,
    "nats_per_id": found.nats / found.ids,
    "perplexity": found.perplexity,
    "ids": found.ids,
    "bytes": found.bytes,
  }
