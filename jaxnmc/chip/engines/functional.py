"""`loihi`, engine "functional": whole prompts at a time, counted by core.

`ops.execute` evaluates the recorded graph: all tokens of a layer at once but
for its recurrence, equal layers by one scan; `ops.one_token` takes a single
token where there are native kernels.  What each core received, walked and sent
follows from the values at the named sites and from the placement; when it did
so follows from the schedule (a token's event at depth d happens at step
inject + d).  Masks and saturation counts take `interpreted` instead.
"""

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.chip.counting import histograms as sizes
from jaxnmc.chip.engines import checking, host, states
from jaxnmc.chip.engines.engine import Engine
from jaxnmc.chip.engines.interpreted import Interpreted
from jaxnmc.chip.engines.taps import Counts, Extremes
from jaxnmc.chip.routing.segments import Measured, Segment
from jaxnmc.ops import one_token
from jaxnmc.ops.execute import executable, execute
from jaxnmc.ops.transform import over_batch

# Lengths that programs are compiled for. Longer sequences are cut: on a CPU,
# what a piece computes stays in the caches; a GPU needs many tokens at once. In
# both cases memory does not grow with the sequence.
LENGTHS = {"cpu": (1, 8, 32, 128), "other": (1, 16, 128, 2048)}


def _lengths() -> tuple[int, ...]:
  """Those of the default device, rising."""
  return LENGTHS["cpu" if jax.default_backend() == "cpu" else "other"]


class Functional(Engine):
  """The functional engine of one placed model.

  Args:
    fn: model function.
    plan: number formats.
    placement: where the recorded network lies.
    mode: as for `Engine`.
    saturation: also count the values that each site clipped.
    histograms: also count how large messages are and who sends them.
    checked: refuse what does not fit the chip (`chip.engines.checking`).
    donate: a state that is handed in may be overwritten.
  """

  def __init__(
    self,
    fn,
    plan,
    placement,
    mode: str,
    saturation: bool = False,
    histograms: bool = False,
    checked: bool = False,
    donate: bool = False,
  ) -> None:
    super().__init__(fn, plan, placement, mode)
    self.saturation, self.checked = saturation, checked
    self._exe = executable(self.graph)
    self._counts = Counts(self._exe, placement, self.routes)
    self._extremes: Extremes | None = None
    if checked:
      checking.check_summable(self.network)
      self._extremes = Extremes(self._exe, self.routes)
    self._watch: sizes.Watch | None = None
    if histograms:
      names = {r.synapse.source: r.synapse.path for r in self.routes}
      there = self._counts.places
      self._watch = sizes.Watch(names, there.inside, there.outside)
    self._interpreted = Interpreted(
      fn, plan, self._counts.basis, self._extremes, histograms
    )
    self._data: tuple | None = None
    # What a token leaves behind is overwritten only where the caller says so.
    given = ("state",) if donate else ()
    self._jit = jax.jit(self._core, donate_argnames=given)

  def weight_bytes(self, tokens: int) -> int:
    """Bytes of matrices that a call for so many tokens reads."""
    return self._exe.weight_bytes(self._load()[0], tokens)

  def _load(self):
    """Constants on the device, made at the first call."""
    if self._data is None:
      # The first call may be one that is being traced.
      with jax.ensure_compile_time_eval():
        tables = jax.tree.map(jnp.asarray, host.tables(self.graph))
        limits = self._extremes.load() if self._extremes else None
        counts = self._counts.load()
        self._data = (self._exe.load(), tables, counts, limits)
    return self._data

  def _core(self, data, inputs, length, state):
    numbers, tables, (inner, outer), limits = data

    def measure(index, found, extra):
      layer, codes = extra
      counts = self._counts.inside(index, found, inner, layer)
      limit = self._extremes
      most = limit.inside(index, found, codes) if limit else ()
      watched = self._watch.inside(index, found) if self._watch else ()
      return counts, most, watched

    limit = self._extremes
    # A single token that is only counted has an interpreter of its own.
    alone = jnp.shape(inputs["ids"]) == (1,) and not (limit or self._watch)
    alone = alone and one_token.possible(self._exe, numbers)

    def one(inputs, state):
      ids = inputs["ids"]
      before, start = states.enter(self.graph, state)
      rows = host.rows(self.graph, tables, ids, start)
      codes = limits[0] if limits else ((),) * len(inner)
      if alone:
        values, after, counts = one_token.execute(
          self._exe, numbers, rows, before, self._counts.cuts, inner
        )
        most = watched = ((),) * len(counts)
      else:
        layers = [jnp.arange(len(run.layers)) for run in self._exe.runs]
        extras = tuple(zip(layers, codes, strict=True))
        values, after, tapped = execute(
          self._exe, numbers, rows, before, measure, extras, length
        )
        counts, most, watched = zip(*tapped, strict=True)
      every = self._counts.gather(counts, self._counts.outside(values, outer))
      beside = (
        limit.outside(values, limits[1]) if limit else (),
        self._watch.outside(values) if self._watch else (),
      )
      out = states.outputs(self.graph, values)
      raw = every, (most, watched), beside
      end = start + jnp.int32(ids.shape[0] if length is None else length)
      return out, states.leave(self.graph, after, end), raw

    return over_batch(one, inputs, state)

  def traced(self, qparams, inputs, state=None):
    """Pure JAX form for tracing: (out, state, raw counts).

    `rows` turns raw counts into int32[T, columns].  Arguments and errors as for
    a call; it takes no mask.
    """
    self.check(qparams, inputs)
    if state is None:
      state = states.zeros(self.graph, jnp.shape(inputs["ids"])[:-1])
    return self._core(self._load(), inputs, None, state)

  def rows(self, raw, shape: tuple[int, ...]) -> np.ndarray:
    """Raw counts -> int32[..., T, columns] of `routing.probes.Basis`.

    Args:
      raw: what `traced` returned.
      shape: of the ids.
    """
    return self._counts.collect(jax.device_get(raw[0]), shape)

  def __call__(self, qparams, inputs, state=None):
    """Runs a prompt (or one token) and counts.

    Args:
      qparams: integer parameters.
      inputs: {"ids": int32[T] or [B, T]}; with a "mask" the interpreter of
        `fixed` runs instead of the graph, with the same integers.
      state: state of an earlier call, or None.

    Returns:
      (out, state, Counters); the tokens of a batch count one sequence after
      the other.

    Raises:
      TokenError: inputs that the model cannot read.
      PlanError: parameters or a state of another plan, or other weights.
      ChipError: checked, and something did not fit.
    """
    state = self.begin(qparams, inputs, state)
    if self.checked and state is not None:
      checking.check_state(self.graph, state)
    shape = np.shape(inputs["ids"])
    saturated = watched = None
    if self.saturation or inputs.get("mask") is not None:
      found = self._interpreted(qparams, inputs, state)
      out, state, counts, most, clipped, watched = found
      saturated = clipped if self.saturation else None
    else:
      out, state, counts, most, watched = self._run(inputs["ids"], state)
    each = (slice(None),) if len(shape) == 1 else np.ndindex(shape[0])
    segments = tuple(
      self._segment(counts[k], most and [part[k] for part in most])
      for k in each
    )
    return out, state, self.fold(segments, saturated, watched)

  def _run(self, ids, state):
    """A sequence of any length, in pieces of few lengths.

    Every length is a program of its own, so a piece is padded to one of
    `LENGTHS`; its state is that after its last token.
    """
    ids = np.asarray(ids, np.int32)
    if state is None:
      state = states.zeros(self.graph, ids.shape[:-1])
    outs, rows, limits, watched = [], [], [], None
    lengths = _lengths()
    for start in range(0, ids.shape[-1], lengths[-1]):
      part = ids[..., start : start + lengths[-1]]
      tokens = part.shape[-1]
      # Padding would be counted by what is summed over tokens.
      size = tokens if self._watch else next(n for n in lengths if n >= tokens)
      spare = [(0, 0)] * (ids.ndim - 1) + [(0, size - tokens)]
      inputs = {"ids": np.pad(part, spare)}
      found = self._jit(
        self._load(), inputs, length=np.int32(tokens), state=state
      )
      out, state, raw = found
      cut = lambda x, n=tokens: x if x.shape[-2] == n else x[..., :n, :]
      outs.append(jax.tree.map(cut, out))
      rows.append(cut(self.rows(raw, inputs["ids"].shape)))
      _, (inside, seen), (outside, beside) = raw
      if self._extremes is not None:
        limits.append([cut(x) for x in self._extremes.collect(inside, outside)])
      if self._watch is not None:
        seen, beside = jax.device_get((seen, beside))
        more = self._watch.collect(seen, beside, part.size)
        watched = sizes.merge(watched, more) if watched else more
    joined = lambda *parts: jnp.concatenate(parts, axis=-2)
    out = jax.tree.map(joined, *outs) if len(outs) > 1 else outs[0]
    most = [np.concatenate(parts, axis=-2) for parts in zip(*limits)] or None
    return out, state, np.concatenate(rows, axis=-2), most, watched

  def _segment(self, rows: np.ndarray, most) -> Segment:
    """The segment of a sequence; refuses what `checked` refuses."""
    inject = self.default_inject(len(rows))
    basis = self._counts.basis
    segment = Segment(inject, Measured(basis.columns, rows, basis.spread))
    if most is None:
      return segment
    extremes = []
    for route, part in zip(self.routes, most, strict=True):
      tiles, sends = part.reshape(len(rows), -1, 4), route.src.count
      extremes.append((tiles[:, :sends], tiles[:, sends:]))
    checking.check_extremes(self.placement, self.routes, inject, extremes)
    checking.check_inboxes(self.placement, segment)
    return segment
