"""A stepped machine with tokens in flight: a stream that starts and stops.

Time is the number of steps since the cores were last empty.  Everything from
then until the last token has left is one `Segment` of the counters; steps in
which the cores wait, empty, belong to the segment that follows.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.chip.engines import checking, host, states
from jaxnmc.chip.engines.arrays import State
from jaxnmc.chip.routing.segments import Segment
from jaxnmc.errors import PlanError
from jaxnmc.ops.transform import check_inputs

CHUNK = 64


def _chunks(chunks: list):
  """Chunks of steps as one."""
  return jax.tree.map(lambda *parts: np.concatenate(parts), *chunks)


def _joined(outs: list):
  """Outputs, one after the other."""
  return jax.tree.map(lambda *parts: jnp.concatenate(parts), *outs)


def _increasing(inject, tokens: int) -> np.ndarray:
  """Checked injection steps, int64[tokens]."""
  inject = np.asarray(inject, np.int64)
  if inject.shape != (tokens,) or (inject < 0).any():
    raise PlanError(
      f"inject needs {tokens} non-negative steps, one per token; found shape"
      f" {list(inject.shape)}"
    )
  if (np.diff(inject) < 1).any():
    at = int(np.argmax(np.diff(inject) < 1))
    raise PlanError(
      "inject must be strictly increasing (one token per step); steps"
      f" {inject[at]} and {inject[at + 1]} of tokens {at} and {at + 1} are"
      " not"
    )
  return inject


class Stream:
  """One run of the machine, which the caller feeds; see `Stepped.stream`.

  Attributes:
    tokens: tokens that have entered.
    steps: time steps taken.
    stopped: whether `stop` of the last `send` cut it short.
  """

  def __init__(self, engine, cores: State, count: int = 0) -> None:
    self._engine, self._cores = engine, cores
    self._before = count  # tokens of the calls before
    self.tokens, self.steps, self.stopped = 0, 0, False
    self._segments: list[Segment] = []
    self._open()

  def _open(self, now: int = 0) -> None:
    """A new segment, `now` idle steps old."""
    self._now = self._idle = now
    self._inject: list[int] = []
    self._left = 0  # tokens that have been handed out
    self._counts: list[tuple] = []  # chunks of all steps
    self._window: list[tuple] = []  # chunks of taps and extremes
    self._start = now  # step of the first row of the window

  @property
  def flying(self) -> int:
    """Tokens on the cores: entered, but not yet out."""
    gone = np.searchsorted(self._inject, self._now - self._latency, "right")
    return len(self._inject) - int(gone)

  @property
  def _count(self) -> int:
    """Tokens so far, those of the calls before included."""
    return self._before + self.tokens

  @property
  def _latency(self) -> int:
    """Steps that a token takes on the cores."""
    return self._engine.machine.last + 1

  # --- what the caller does

  def send(
    self,
    ids,
    inject=None,
    *,
    stop: Callable[[Any], bool] | None = None,
  ):
    """Feeds tokens; returns when the last of them has entered.

    Args:
      ids: int32[T], one sequence.
      inject: step of each token, counted from now, strictly increasing; None:
        by the mode, as soon as may be.
      stop: called with the output of each token that leaves, [1, ...]; once it
        is true no further token enters (`stopped` says so, `tokens` how many
        did).

    Returns:
      Outputs of the tokens that left meanwhile, [n, ...], in order; n may be
      0, and they may be of an earlier call.

    Raises:
      TokenError: ids that the model cannot read.
      PlanError: steps that are not strictly increasing.
      ChipError: checked, and something did not fit.
    """
    self._check_ids(ids)
    if stop is None:
      self.feed(ids, inject)
      return self._collect()
    times, rows = self._due(ids, inject)
    found = []
    while len(rows):
      # Until the next token is out, if some have not entered by then.
      first = self._inject[self._left] if self.flying else times[0]
      until = min(first + self._latency, times[-1] + 1)
      n = int(np.searchsorted(times, until))
      self._advance(until, times[:n], rows[:n])
      times, rows = times[n:], rows[n:]
      found.append(self._collect())
      out = found[-1]
      count = len(jax.tree.leaves(out)[0])
      one = lambda k, out=out: jax.tree.map(lambda x: x[k : k + 1], out)
      if any(stop(one(k)) for k in range(count)):
        self.stopped = True
        break
    return _joined(found)

  def wait(self, steps: int):
    """Lets steps pass in which no token enters; returns as `send`.

    Raises:
      PlanError: a negative number of steps.
    """
    if steps < 0:
      raise PlanError(f"a stream cannot wait {steps} steps; the least is 0")
    self._advance(self._now + steps)
    return self._collect()

  def drain(self):
    """Steps until the last token has left; returns as `send`."""
    if self.flying:
      self._advance(self._inject[-1] + self._latency)
    return self._collect()

  def finish(self):
    """Drains, because a state with tokens in flight would mix them.

    Returns:
      (outputs of the tokens that had not left, state, Counters); the stream
      may go on from there.

    Raises:
      PlanError: no token ever entered.
    """
    out = self.drain()
    self._close()
    if not self._segments:
      raise PlanError("no token entered this stream; send some first")
    engine = self._engine
    counters = engine.fold(tuple(self._segments))
    return out, engine.leave(self._cores, self._count), counters

  # --- how

  def feed(self, ids, inject=None) -> None:
    """As `send`, but leaves the outputs for the next call that returns any."""
    times, rows = self._due(ids, inject)
    self._advance(int(times[-1]) + 1, times, rows)

  def _check_ids(self, ids) -> None:
    shape = np.shape(ids)
    if len(shape) != 1:
      raise PlanError(
        f"a stream takes one sequence, ids of shape [T]; found {list(shape)}"
      )
    state = states.zeros(self._engine.graph, count=self._count)
    check_inputs(self._engine.fn, {"ids": ids}, state)

  def _due(self, ids, inject) -> tuple[np.ndarray, np.ndarray]:
    """(steps at which tokens enter, the rows that the host injects)."""
    self.stopped = False
    if self._inject and not self.flying:
      self._close()
    engine, tokens = self._engine, len(ids)
    if inject is None:
      times = engine.default_inject(tokens)
      if self._inject:
        stride = int(engine.default_inject(2)[1])
        times = times + max(0, self._inject[-1] + stride - self._now)
    else:
      times = _increasing(inject, tokens)
    return self._now + times, host.sent(engine.network, ids, self._count)

  def _advance(self, until: int, times=(), rows=None) -> None:
    """Steps the cores up to step `until`; tokens enter at `times`."""
    engine = self._engine
    width = engine.machine.width
    self._inject.extend(int(t) for t in times)
    self.tokens += len(times)
    times = np.asarray(times, np.int64)
    while self._now < until:
      here = np.zeros(CHUNK, bool)
      feed = np.zeros((CHUNK, width), np.int32)
      first, last = np.searchsorted(times, [self._now, self._now + CHUNK])
      at = times[first:last] - self._now
      here[at] = True
      if len(at):
        feed[at] = rows[first:last]
      n = min(CHUNK, until - self._now)
      self._cores, seen = engine.run(self._cores, here, feed, n)
      seen = jax.tree.map(lambda x, n=n: np.asarray(x)[:n], seen)
      entered = (feed[:n] != 0).astype(np.int32)
      self._counts.append((seen.out, seen.each, entered))
      self._window.append((seen.taps, seen.extremes))
      self._now += n
      self.steps += n

  def _collect(self):
    """Outputs of the tokens that have left since the last look."""
    engine, latency = self._engine, self._latency
    left = int(np.searchsorted(self._inject, self._now - latency, "right"))
    at = np.array(self._inject[self._left : left], np.int64)
    done, self._left = self._left, left
    if not self._window:
      return engine.outputs([], 0)
    taps, extremes = self._window = _chunks(self._window)
    values = [
      tap[at + place.depth - self._start]
      for tap, place in zip(taps, engine.machine.taps)
    ]
    if engine.checked:
      idle = self.steps - self._now
      clock = checking.Clock(idle, self.tokens - len(self._inject) + done)
      engine.check_extremes(extremes, at, self._start, clock)
    # What tokens in flight will need stays.
    first = self._now if left == len(self._inject) else self._inject[left]
    keep = slice(first - self._start, None)
    self._window = [jax.tree.map(lambda x: x[keep], (taps, extremes))]
    self._start = first
    return engine.outputs(values, len(at))

  def _close(self) -> None:
    """The cores are empty: the segment is complete."""
    if not self._inject:
      return
    inject = np.array(self._inject, np.int64)
    end = self._inject[-1] + self._latency
    out, each, rows = _chunks(self._counts)
    at = inject - self._idle  # rows, of which idle steps have none
    counts = self._engine.counted(out, each, rows, at)
    segment = Segment(inject, counts)
    self._segments.append(segment)
    if self._engine.checked:
      before = self.steps - self._now
      checking.check_inboxes(self._engine.placement, segment, before)
    self._open(self._now - end)
