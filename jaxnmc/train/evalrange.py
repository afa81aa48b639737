"""Bits per byte on a fixed range of text, the same for every tokenizer.

Models with different vocabularies are comparable only on equal bytes. A range
is a list of prefix lengths in bytes, one per document; it can be cut anywhere,
so each model encodes the cut text with its own tokenizer.
"""

import json
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.io.tokenizer import Tokenizer
from jaxnmc.ops.reference import Reference
from jaxnmc.train import step as step_lib
from jaxnmc.train.data import DataError


def read_lengths(path: str) -> list[int]:
  """Reads a JSON list of prefix lengths in bytes, one per document."""
  try:
    lengths = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    raise DataError(
      f"{path}: not readable as a JSON list of integers ({error})"
    ) from error
  if not isinstance(lengths, list) or not all(
    type(length) is int and length >= 0 for length in lengths
  ):
    raise DataError(
      f"{path}: allowed is a JSON list of integers >= 0, one per document"
    )
  return lengths


def cut(documents: Sequence[str], lengths: Sequence[int] | None) -> list[bytes]:
  """Returns the first `lengths[k]` UTF-8 bytes of each document k."""
  data = [document.encode("utf-8") for document in documents]
  if lengths is None:
    return data
  if len(lengths) != len(data):
    raise DataError(
      f"evaluation range: found {len(lengths)} lengths for {len(data)} "
      "documents, allowed is one each; the range is for another text"
    )
  for index, (document, length) in enumerate(zip(data, lengths, strict=True)):
    if length > len(document):
      raise DataError(
        f"evaluation range: document {index} has {len(document)} bytes, the "
        f"range asks for {length}; the range is for another text"
      )
  return [d[:length] for d, length in zip(data, lengths, strict=True)]


def score(fn: Callable) -> Callable[[Any, np.ndarray, np.ndarray], jax.Array]:
  """Returns the jitted `(params, ids [T + 1, B], mask [T, B]) -> nats []`."""

  def nats(params: Any, ids: jax.Array, mask: jax.Array) -> jax.Array:
    logits = fn(Reference(), params, {"ids": ids[:-1]}, None)[0].logits
    mean = step_lib.cross_entropy(logits, ids[1:], mask)
    return mean * mask.sum()

  return jax.jit(nats)


def bits_per_byte(
  score_fn: Callable,
  params: Any,
  tokenizer: Tokenizer,
  texts: Sequence[bytes],
  batch: int = 16,
  grain: int = 128,
) -> dict[str, float]:
  """Scores texts, each from its own BOS and a state of zero.

  bpb = nats of all ids / ln 2 / UTF-8 bytes. The BOS is not predicted, and no
  EOS is scored.

  Args:
    score_fn: from `score`; keep it, it holds the compiled programs.
    params: float parameters.
    tokenizer: encodes the texts.
    texts: UTF-8 bytes of the documents.
    batch: documents at a time.
    grain: lengths are padded to a multiple of it, so that few programs are
      compiled. Padding is at the end and masked: it changes nothing before.

  Returns:
    {"bpb", "nats_per_id", "perplexity", "ids", "bytes"}.
  """
  bos = tokenizer.bos_id if tokenizer.bos_id is not None else 0
  rows = [tokenizer.encode(text) for text in texts]
  rows = sorted((row for row in rows if len(row)), key=len)
  size = sum(len(text) for text in texts)
  if not rows:
    raise DataError("evaluation text: found no bytes; name a text to score")
  total = 0.0
  for first in range(0, len(rows), batch):
    chunk = rows[first : first + batch]
    length = math.ceil(len(chunk[-1]) / grain) * grain
    ids = np.full((length + 1, batch), bos, np.int32)
    mask = np.zeros((length, batch), np.float32)
    for column, row in enumerate(chunk):
      ids[1 : len(row) + 1, column] = row
      mask[: len(row), column] = 1.0
    total += float(score_fn(params, jnp.asarray(ids), jnp.asarray(mask)))
  count = sum(len(row) for row in rows)
  return {
    "bpb": total / math.log(2) / size,
    "nats_per_id": total / count,
    "perplexity": math.exp(total / count),
    "ids": count,
    "bytes": size,
  }
