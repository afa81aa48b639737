"""How close is one form of a model to another, on a text?

Both predict the same ids; per document are summed the nats of each, how often
they would write the same token, and KL(base || other).  Documents are the
independent samples: intervals are those of ratios of sums over documents
(Cochran, Sampling Techniques, 1977, 6.4), 95 % of a normal distribution.
"""

import copy
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.evaluate.bits import pieces
from jaxnmc.evaluate.predict import chunks
from jaxnmc.evaluate.text import DataError
from jaxnmc.numerics.fx import real

_Z = 1.959963984540054


@dataclasses.dataclass(frozen=True)
class Figure:
  """A mean per id, with its interval.

  Attributes:
    value: the mean.
    spread: half the width of the 95 % interval; None with one document.
  """

  value: float
  spread: float | None


@dataclasses.dataclass(frozen=True, eq=False)
class Closeness:
  """Sums over each document, float64[documents].

  Attributes:
    ids: ids that were predicted.
    base_nats: -ln p of the base.
    nats: -ln p of the other.
    same: ids at which both find the same token most likely.
    kl: KL(base || other) in nats.
  """

  ids: np.ndarray
  base_nats: np.ndarray
  nats: np.ndarray
  same: np.ndarray
  kl: np.ndarray

  @property
  def perplexity(self) -> float:
    """Of the other form."""
    return math.exp(self.nats.sum() / self.ids.sum())

  @property
  def base_perplexity(self) -> float:
    """Of the base."""
    return math.exp(self.base_nats.sum() / self.ids.sum())

  @property
  def loss(self) -> Figure:
    """Relative growth of perplexity, from the base; paired by document."""
    found = _ratio(self.nats - self.base_nats, self.ids)
    grown = math.exp(found.value)
    spread = None if found.spread is None else grown * found.spread
    return Figure(grown - 1, spread)

  @property
  def agreement(self) -> Figure:
    """Share of ids at which both find the same token most likely."""
    return _ratio(self.same, self.ids)

  @property
  def divergence(self) -> Figure:
    """KL(base || other), nats per id."""
    return _ratio(self.kl, self.ids)


def _ratio(sums: np.ndarray, counts: np.ndarray) -> Figure:
  """sum / sum over documents, with the interval of such a ratio."""
  total, k = counts.sum(), len(counts)
  value = float(sums.sum() / total)
  if k < 2:
    return Figure(value, None)
  rest = sums - value * counts
  error = math.sqrt(k / (k - 1) * float(rest @ rest)) / float(total)
  return Figure(value, _Z * error)


def _second(run: Callable) -> Callable:
  """The other form of a model on a chunk, beside the base's logs; compiled."""

  @jax.jit
  def second(params, p, ids, state):
    out, state, *more = run(params, {"ids": ids[:, :-1]}, state)
    q, wanted = jax.nn.log_softmax(real(out.logits)), ids[:, 1:, None]
    chosen = lambda x: -jnp.take_along_axis(x, wanted, axis=-1)[..., 0]
    same = jnp.argmax(p, -1) == jnp.argmax(q, -1)
    kl = jnp.sum(jnp.exp(p) * (p - q), -1)
    return (chosen(p), chosen(q), same, kl), more[0] if more else {}, state

  return second


def compare(
  base: tuple[Callable, Any],
  other: tuple[Callable, Any],
  documents: Sequence[np.ndarray],
  *,
  bos: int,
  batch: int = 16,
  chunk: int = 128,
  progress: Callable[[int], None] | None = None,
) -> Closeness:
  """Runs both forms over documents, state carried from chunk to chunk.

  A document longer than the context of either is one of several `pieces`.

  Args:
    base: (run, params); `run(params, {"ids"}, state) -> (out, state)` can be
      compiled.
    other: the same of the other form.
    documents: ids of each, int32[n]; empty ones are left out.
    bos: token in front of every document.
    batch: documents side by side.
    chunk: positions of a call.
    progress: called with the number of ids done since the last call.

  Raises:
    DataError: there is nothing to predict.
  """
  both = Comparison(
    base, other[0], documents, bos=bos, batch=batch, chunk=chunk
  )
  return both(other[1], progress)[0]


class Comparison:
  """As `compare`, for many parameters of one other form, compiled once.

  Args:
    base: as for `compare`.
    run: of the other form; a third result, {name: float[B, T]}, is summed up
      over the ids.
    documents: as for `compare`.
    bos: token in front of every document.
    batch: documents side by side.
    chunk: positions of a call.
    keep: hold the base's logits for the next call: float32 [ids, V] of memory.

  Raises:
    DataError: there is nothing to predict.
  """

  def __init__(
    self,
    base: tuple[Callable, Any],
    run: Callable,
    documents: Sequence[np.ndarray],
    *,
    bos: int,
    batch: int = 16,
    chunk: int = 128,
    keep: bool = False,
  ):
    known = [getattr(f, "context", None) for f in (base[0], run)]
    context = min((c for c in known if c is not None), default=None)
    chunk = min(chunk, context or chunk)
    rows = sorted((d for d in pieces(documents, context) if len(d)), key=len)
    if not rows:
      raise DataError("found no ids to predict; name a text that is not empty")
    self._lengths = np.array([len(row) for row in rows], np.float64)
    self._base, self._keep = base, keep
    self._kept: dict[int, jax.Array] = {}
    # (first row, first position, ids) of every call; a state begins at 0.
    self._calls = [
      (begin, start, ids)
      for begin in range(0, len(rows), batch)
      for start, ids in chunks(rows[begin : begin + batch], bos, batch, chunk)
    ]

    @jax.jit
    def first(params, ids, state):
      out, state = base[0](params, {"ids": ids[:, :-1]}, state)[:2]
      return jax.nn.log_softmax(real(out.logits)), state

    self._first, self._second = first, _second(run)

  @property
  def ids(self) -> int:
    """Ids that a call predicts."""
    return int(self._lengths.sum())

  def beside(self, run: Callable) -> "Comparison":
    """The same base and documents with another form of the same model.

    Args:
      run: as for `Comparison`.

    Returns:
      A comparison that shares the compiled base, and what was kept of it.
    """
    other = copy.copy(self)
    other._second = _second(run)
    return other

  def _logs(self, call: int, state):
    """(log-probabilities of the base, its state)."""
    if call in self._kept:
      return self._kept[call], None
    found = self._first(self._base[1], jnp.asarray(self._calls[call][2]), state)
    if self._keep:
      self._kept[call] = found[0]
    return found

  def __call__(
    self, params: Any, progress: Callable[[int], None] | None = None
  ) -> tuple[Closeness, dict[str, float]]:
    """(how close, sums of what `run` counts over all ids)."""
    sums, totals = np.zeros((4, len(self._lengths))), dict[str, float]()
    ours = theirs = None
    for call, (begin, start, ids) in enumerate(self._calls):
      if start == 0:
        ours = theirs = None
      p, ours = self._logs(call, ours)
      found, more, theirs = self._second(params, p, jnp.asarray(ids), theirs)
      width = ids.shape[1] - 1
      counts = np.clip(
        self._lengths[begin : begin + len(ids)] - start, 0, width
      )
      inside = np.arange(width) < counts[:, None]
      cut = lambda x, inside=inside: np.where(
        inside, np.asarray(x, np.float64)[: len(inside)], 0
      )
      sums[:, begin : begin + len(counts)] += [cut(x).sum(1) for x in found]
      for name, values in more.items():
        totals[name] = totals.get(name, 0.0) + float(cut(values).sum())
      if progress is not None:
        progress(int(counts.sum()))
    return Closeness(self._lengths, *sums), totals
