"""What a backend says of the next id: nats, greedy hits, logits codes.

Everything that evaluates goes through here, so that every backend is scored by
the same arithmetic.  Rows run side by side in calls of one shape; what follows
the end of a shorter row is computed and left out, which changes nothing before
it, because a language model does not look ahead.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.numerics.fx import Fx, codes


class Step(NamedTuple):
  """One call of a backend on ids [B, T + 1].

  Attributes:
    nats: -ln p of each target, float[B, T].
    hits: whether the target has the largest logit (of equal ones the smallest
      id), bool[B, T].
    codes: logits as integers, int32[B, T, V]; None for float backends.
    state: state after the last input; nothing if the model has none.
  """

  nats: jax.Array
  hits: jax.Array
  codes: jax.Array | None
  state: Any


class Row(NamedTuple):
  """A piece of text to score.

  Attributes:
    ids: int32[n + 1]; each of the last n is predicted from those before it.
    first: targets before this one are context: not scored, 0 <= first < n.
  """

  ids: np.ndarray
  first: int = 0


class Scored(NamedTuple):
  """The scored targets of a row, in order.

  Attributes:
    nats: float[n - first].
    hits: bool[n - first].
    codes: int32[n - first, V], or None.
  """

  nats: np.ndarray
  hits: np.ndarray
  codes: np.ndarray | None


def nats_of(logits, targets) -> jax.Array:
  """-ln softmax(logits)[target].

  Args:
    logits: [..., V], floats or fixed point.
    targets: int[...].

  Returns:
    float[...].
  """
  if isinstance(logits, Fx):
    logits = logits.to_float()
  chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  return jax.nn.logsumexp(logits, axis=-1) - chosen


def stepper(run: Callable, *, jit: bool = True) -> Callable[..., Step]:
  """One call of a backend, compiled.

  Args:
    run: `run(params, {"ids"}, state) -> (out, state[, counters])`.
    jit: whether to compile `run` here.

  Returns:
    `step(params, ids, state) -> Step` for ids int32[B, T + 1].
  """

  def judge(logits, targets):
    best = jnp.argmax(codes(logits), axis=-1)
    return nats_of(logits, targets), best == targets

  judge = judge if jit else jax.jit(judge)

  def predict(params, ids, state):
    out, state = run(params, {"ids": ids[:, :-1]}, state)[:2]
    nats, hits = judge(out.logits, ids[:, 1:])
    integers = isinstance(out.logits, Fx) and jnp.issubdtype(
      out.logits.q.dtype, jnp.integer
    )
    return Step(nats, hits, out.logits.q if integers else None, state)

  return jax.jit(predict) if jit else predict


def window(
  rows: Sequence[np.ndarray], start: int, width: int, batch: int
) -> np.ndarray:
  """Rows side by side, from one place on.

  Args:
    rows: ids of each, int32[n]; at most `batch`.
    start: first input.
    width: inputs.
    batch: rows of the result.

  Returns:
    int32[batch, width + 1], 0 where a row has ended; column t + 1 is to be
    predicted from what stands before it.
  """
  ids = np.zeros((batch, width + 1), np.int32)
  for k, row in enumerate(rows):
    part = row[start : start + width + 1]
    ids[k, : len(part)] = part
  return ids


def chunks(
  texts: Sequence[np.ndarray], bos: int, batch: int, chunk: int
) -> Iterator[tuple[int, np.ndarray]]:
  """Texts side by side, piece by piece.

  Args:
    texts: ids of each, int32[n]; at most `batch`.
    bos: token in front of every text.
    batch: texts side by side.
    chunk: positions of a piece.

  Yields:
    (first position, `window` from there on).
  """
  rows = [np.concatenate([[bos], ids]) for ids in texts]
  for first in range(0, max(map(len, texts)), chunk):
    yield first, window(rows, first, chunk, batch)


class Rows:
  """Scores rows side by side with one backend; keeps the compiled programs.

  A model that has a state gets its rows in chunks of one length, so that any
  row needs two programs and the same memory.  One without gets them whole,
  padded to a multiple of that length.  A backend whose context is bounded says
  so by an attribute `context`; rows have no more inputs than that.
  """

  def __init__(
    self,
    run: Callable,
    params: Any,
    *,
    jit: bool = True,
    batch: int = 16,
    chunk: int = 32,
  ):
    """Takes a backend and its parameters.

    Args:
      run: the backend, see `stepper`.
      params: float params or qparams.
      jit: whether to compile `run` here.
      batch: rows side by side; every call has so many, dummies among them.
      chunk: positions of a call.
    """
    self._context: int | None = getattr(run, "context", None)
    self.batch, self.chunk = batch, min(chunk, self._context or chunk)
    self._params = params
    self._step = stepper(run, jit=jit)
    self._carries: bool | None = None

  def step(self, ids: np.ndarray, state: Any) -> Step:
    """One call on int32[batch, n + 1]."""
    return self._step(self._params, jnp.asarray(ids), state)

  @property
  def carries(self) -> bool:
    """Whether the model hands a state on, found by one call on dummies."""
    if self._carries is None:
      dummies = np.zeros((self.batch, self.chunk + 1), np.int32)
      state = self.step(dummies, None).state
      self._carries = bool(jax.tree.leaves(state))
    return self._carries

  def group(
    self, rows: Sequence[Row], state: Any = None, codes: bool = False
  ) -> list[Scored]:
    """Scores at most `batch` rows, best of similar lengths.

    Args:
      rows: the rows.
      state: what came before their first inputs, [batch, ...]; None: nothing.
      codes: also keep the codes of the logits.

    Returns:
      One `Scored` per row.
    """
    longest = max(len(row.ids) - 1 for row in rows)
    width = self.chunk
    if not self.carries:
      width *= -(-longest // width)
      width = min(width, self._context or width)
    parts: list[list[Scored]] = [[] for _ in rows]
    whole = [row.ids for row in rows]
    for start in range(0, longest, width):
      step = self.step(window(whole, start, width, self.batch), state)
      state = step.state
      nats, hits = np.asarray(step.nats), np.asarray(step.hits)
      q = None
      if codes and step.codes is not None:
        q = np.asarray(step.codes)
      for k, row in enumerate(rows):
        low = max(row.first - start, 0)
        high = min(len(row.ids) - 1 - start, width)
        if low < high:
          own = None if q is None else q[k, low:high]
          parts[k].append(Scored(nats[k, low:high], hits[k, low:high], own))
    return [_joined(part) for part in parts]

  def __call__(
    self, rows: Sequence[Row], codes: bool = False
  ) -> Iterator[tuple[int, Scored]]:
    """Scores rows that begin with no state.

    Args:
      rows: any number of rows.
      codes: also keep the codes of the logits.

    Yields:
      (index of the row, its scores), short rows first.
    """
    order = sorted(range(len(rows)), key=lambda k: len(rows[k].ids))
    for first in range(0, len(order), self.batch):
      some = order[first : first + self.batch]
      yield from zip(some, self.group([rows[k] for k in some], codes=codes))


def _joined(parts: list[Scored]) -> Scored:
  nats = np.concatenate([part.nats for part in parts])
  hits = np.concatenate([part.hits for part in parts])
  every = [part.codes for part in parts if part.codes is not None]
  return Scored(nats, hits, np.concatenate(every) if every else None)
