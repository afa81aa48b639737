"""Classification by the next token: a text is asked, a label is the answer.

One pass over padded rows gives both what a language model is scored by (loss
of the text) and how often the first token it would generate is the label.
Padding stands behind the text, where a causal model does not see it.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.evaluate.choices import wilson
from jaxnmc.evaluate.text import DataError
from jaxnmc.numerics.fx import real

__all__ = ["Questions", "Score", "questions", "score"]


class _Encoder(Protocol):
  bos_id: int

  def encode(self, text: str) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Questions:
  """Texts with the token that should follow.

  Attributes:
    ids: int32[N, T], BOS, the text and what asks, then padding.
    lengths: int32[N], how many of them are real.
    answers: int32[N].
    text_bytes: int64[N], UTF-8 bytes of the texts, what asks included.
  """

  ids: np.ndarray
  lengths: np.ndarray
  answers: np.ndarray
  text_bytes: np.ndarray

  def __len__(self) -> int:
    return len(self.ids)

  def __getitem__(self, rows) -> "Questions":
    """Some of them: a slice, or numbers of rows."""
    return Questions(
      *(self.ids[rows], self.lengths[rows]),
      *(self.answers[rows], self.text_bytes[rows]),
    )

  @property
  def mask(self) -> np.ndarray:
    """int32[N, T], 0 for padding."""
    places = np.arange(self.ids.shape[1])
    return (places < self.lengths[:, None]).astype(np.int32)


def questions(
  tokenizer: _Encoder,
  texts: Sequence[str],
  answers: Sequence[int],
  most: int,
  multiple: int = 8,
) -> Questions:
  """Encodes texts.

  Args:
    tokenizer: with a BOS.
    texts: with what asks at their end.
    answers: ids, one for each.
    most: ids that the model takes.
    multiple: T is the next multiple of it, at most `most`.

  Raises:
    DataError: there is none, or a text is longer than the model takes.
  """
  if not texts or len(texts) != len(answers):
    raise DataError(
      f"questions: found {len(texts)} texts and {len(answers)} answers; give"
      " some, and an answer for each"
    )
  rows = [[tokenizer.bos_id, *tokenizer.encode(t).tolist()] for t in texts]
  lengths = np.array([len(row) for row in rows], np.int32)
  longest = int(lengths.argmax())
  if lengths[longest] > most:
    raise DataError(
      f"question {longest}: has {lengths[longest]} ids, the model takes {most};"
      f" shorten {texts[longest][:40]!r}..."
    )
  size = min(most, -(-int(lengths.max()) // multiple) * multiple)
  ids = np.zeros((len(rows), size), np.int32)
  for k, row in enumerate(rows):
    ids[k, : len(row)] = row
  size_bytes = np.array([len(text.encode()) for text in texts], np.int64)
  return Questions(ids, lengths, np.asarray(answers, np.int32), size_bytes)


@dataclasses.dataclass(frozen=True)
class Score:
  """How a model did.

  Attributes:
    questions: how many.
    accuracy: share whose most likely next token, of the whole vocabulary, is
      the answer (the lowest id of equal ones).
    low: Wilson's 95 % interval of it.
    high: Wilson's 95 % interval of it.
    perplexity: per id of the text and of what asks.
    bits_per_byte: of the same.
  """

  questions: int
  accuracy: float
  low: float
  high: float
  perplexity: float
  bits_per_byte: float

  def to_dict(self) -> dict[str, Any]:
    """Ready for JSON."""
    return dataclasses.asdict(self)


def score(
  run: Callable,
  params: Any,
  asked: Questions,
  *,
  batch: int = 64,
  progress: Callable[[int], None] = lambda done: None,
) -> Score:
  """Asks a model.

  Args:
    run: `run(params, {"ids": int32[B, T]})` -> (out, ...) of any interpreter
      under `jax.jit`; integers are compared as their real values.
    params: what it takes.
    asked: texts and answers.
    batch: rows of a call; the last call is filled up.
    progress: is told how many rows were done.
  """

  @jax.jit
  def figures(logits, ids, lengths, answers):
    logp = jax.nn.log_softmax(real(logits))
    at = jnp.arange(ids.shape[1] - 1)
    told = jnp.take_along_axis(logp[:, :-1], ids[:, 1:, None], -1)[..., 0]
    loss = -jnp.sum(jnp.where(at < lengths[:, None] - 1, told, 0), 1)
    last = _rows(logp, lengths)
    return jnp.argmax(last, -1) == answers, loss

  right, nats = 0, 0.0
  for rows, now in _batches(asked, batch):
    out = run(params, {"ids": jnp.asarray(now.ids)})[0]
    hit, loss = figures(out.logits, now.ids, now.lengths, now.answers)
    right += int(np.sum(np.asarray(hit)[:rows]))
    nats += float(np.sum(np.asarray(loss, np.float64)[:rows]))
    progress(rows)
  count, told = len(asked), int((asked.lengths - 1).sum())
  return Score(
    *(count, right / count, *wilson(right, count), math.exp(nats / told)),
    nats / math.log(2) / int(asked.text_bytes.sum()),
  )


def _rows(x: jax.Array, lengths) -> jax.Array:
  """[B, T, n] at the last real place of each row: [B, n]."""
  last = jnp.asarray(lengths)[:, None, None] - 1
  return jnp.take_along_axis(x, last, 1)[:, 0]


def _batches(asked: Questions, batch: int):
  """(real rows, questions of one size), the last ones repeated to fill up."""
  batch = min(batch, len(asked))
  for start in range(0, len(asked), batch):
    rows = np.arange(start, start + batch)
    real_rows = int((rows < len(asked)).sum())
    yield real_rows, asked[np.minimum(rows, len(asked) - 1)]
