"""`loihi`, engine "functional": whole prompts at a time, counted by core.

`ops.execute` evaluates the recorded graph: all tokens of a layer at once but
for its recurrence, equal layers by one scan.  What each core received, walked
and sent follows from the values at the named sites and from the placement; when
it did so follows from the schedule (a token's event at depth d happens at step
inject + d).  Masks and saturation counts take `interpreted` instead.
"""

import dataclasses

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.chip.counting import histograms as sizes
from jaxnmc.chip.counting.counters import Segment
from jaxnmc.chip.engines import checking, states
from jaxnmc.chip.engines.engine import Engine
from jaxnmc.chip.engines.interpreted import Interpreted
from jaxnmc.chip.routing import traffic
from jaxnmc.ops.execute import executable, execute
from jaxnmc.ops.transform import over_batch


@dataclasses.dataclass(frozen=True, eq=False)
class _Block:
  """Routes inside the layers of one run, counted while they are scanned.

  Attributes:
    routes: per layer the indices of its routes, aligned between layers.
    sources: local index of each route's source.
  """

  routes: tuple[tuple[int, ...], ...]
  sources: tuple[int, ...]


def _block(run, routes, by_source) -> _Block | None:
  """Aligns the inner routes of a run's layers; None if they are cut apart."""
  table, keys = [], []
  for layer in run.layers:
    local = {n: i for i, n in enumerate(layer.nodes)}
    inner = []
    for node in layer.nodes:
      for i in by_source.get(node, ()):
        route, synapse = routes[i], routes[i].synapse
        # A value that waits on an axon comes back to its own population.
        own = synapse.src == synapse.dst
        if own or synapse.target in local:
          to = -1 - synapse.delay if own else local[synapse.target]
          cut = (route.src.key, route.dst.key, route.sparse)
          key = (local[node], to, synapse.kind, cut)
          inner.append((key, i))
    inner.sort()
    keys.append([k for k, _ in inner])
    table.append(tuple(i for _, i in inner))
  if any(k != keys[0] for k in keys):
    return None
  return _Block(tuple(table), tuple(k[0] for k in keys[0]))


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
  ) -> None:
    super().__init__(fn, plan, placement, mode)
    self.saturation, self.checked = saturation, checked
    if checked:
      checking.check_summable(self.network)
    # Per route its counts and, checked, its extremes.
    self._columns = [r.columns for r in self.routes]
    if checked:
      self._columns = [
        r.columns + 4 * (r.src.count + r.dst.count) for r in self.routes
      ]
    self._exe = executable(self.graph)
    by_source: dict[int, list[int]] = {}
    for i, route in enumerate(self.routes):
      by_source.setdefault(route.synapse.source, []).append(i)
    blocks = [_block(run, self.routes, by_source) for run in self._exe.runs]
    self._blocks = [b or _Block((), ()) for b in blocks]
    inner = {i for b in self._blocks for rows in b.routes for i in rows}
    self._outer = [i for i in range(len(self.routes)) if i not in inner]
    self._outer_dense = {
      i: jax.tree.map(jnp.asarray, self._needs([self.routes[i]], one=True))
      for i in self._outer
    }
    self._data: tuple | None = None
    self._watch: sizes.Watch | None = None
    if histograms:
      paths = [r.synapse.path for r in self.routes]
      nodes = [r.synapse.source for r in self.routes]
      inside_runs = [(b.routes, b.sources) for b in self._blocks]
      self._watch = sizes.Watch(paths, nodes, inside_runs)
    self._interpreted = Interpreted(
      fn,
      plan,
      self.routes,
      self._measure,
      lambda route: self._needs([route], one=True),
      histograms,
    )
    self._jit = jax.jit(self._core)

  def _load(self):
    """Constants on the device, made at the first call."""
    if self._data is None:
      table = jnp.asarray(self.graph.input.data)
      self._data = (self._exe.load(), table, self._counting())
    return self._data

  def _counting(self):
    """Per run the counting matrices of its dense routes, by layer."""
    extras = []
    for block in self._blocks:
      rows = []
      for column in range(len(block.sources)):
        indices = [layer[column] for layer in block.routes]
        needs = self._needs([self.routes[i] for i in indices])
        rows.append(jax.tree.map(jnp.asarray, needs))
      extras.append(tuple(rows))
    return tuple(extras)

  def _needs(self, routes, one: bool = False):
    """Matrices that `_measure` wants: of routes that run as one, or of one."""
    dense = traffic.nonzero(routes)
    codes = None
    if self.checked and dense is not None:
      codes = np.stack([r.synapse.weights for r in routes])
    return (
      jax.tree.map(lambda x: x[0], (dense, codes)) if one else (dense, codes)
    )

  def _measure(self, route, x, needs):
    """Counts of a synapse and, checked, its extremes: int32[..., columns]."""
    dense, codes = needs
    counts = traffic.count(route, x, dense)
    if not self.checked:
      return counts
    return jnp.concatenate(
      [counts, checking.of_route(route, x, codes)], axis=-1
    )

  def _core(self, data, inputs, state):
    numbers, table, extras = data

    def count(index, found, extra):
      block = self._blocks[index]
      if not block.sources:
        return (), ()
      first = block.routes[0]
      parts = [
        self._measure(self.routes[i], found[source], needs)
        for i, source, needs in zip(first, block.sources, extra, strict=True)
      ]
      watched = self._watch.inside(index, found) if self._watch else ()
      return jnp.concatenate(parts, axis=-1), watched

    def one(inputs, state):
      ids = inputs["ids"]
      rows = jnp.take(table, ids, axis=0, mode="clip").astype(jnp.int32)
      places = states.slots(self.graph)
      if state is None:
        widths = {prev: self.graph.nodes[prev].width for _, prev in places}
        before = {p: jnp.zeros(w, jnp.int32) for p, w in widths.items()}
      else:
        before = states.enter(self.graph, state)
      values, after, tapped = execute(
        self._exe, numbers, rows, before, count, extras
      )
      outer = [
        self._measure(
          self.routes[i],
          values[self.routes[i].synapse.source],
          self._outer_dense[i],
        )
        for i in self._outer
      ]
      outer.append(jnp.zeros((len(ids), 0), jnp.int32))
      out = states.outputs(self.graph, values)
      inner, watched = zip(*tapped, strict=True) if tapped else ((), ())
      beside = self._watch.outside(values) if self._watch else ()
      raw = (inner, jnp.concatenate(outer, axis=-1), (watched, beside))
      return out, states.leave(self.graph, after), raw

    return over_batch(one, inputs, state)

  def traced(self, qparams, inputs, state=None):
    """Pure JAX form for tracing: (out, state, raw counts).

    `rows` turns raw counts into int32[T, columns].  Arguments and errors as for
    a call; it takes no mask.
    """
    self.check(qparams, inputs)
    return self._core(self._load(), inputs, state)

  def rows(self, raw) -> np.ndarray:
    """Raw counts -> int32[..., T, columns] in the order of `routes`."""
    blocks, outer, _ = jax.device_get(raw)
    starts = np.cumsum([0, *self._columns])
    out = np.empty((*outer.shape[:-1], starts[-1]), np.int32)
    for block, data in zip(self._blocks, blocks, strict=True):
      for layer, indices in enumerate(block.routes):
        at = 0
        for i in indices:
          width = self._columns[i]
          part = data[..., layer, :, at : at + width]
          out[..., starts[i] : starts[i] + width] = part
          at += width
    at = 0
    for i in self._outer:
      width = self._columns[i]
      out[..., starts[i] : starts[i] + width] = outer[..., at : at + width]
      at += width
    return out

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
    saturated = watched = None
    if self.saturation or inputs.get("mask") is not None:
      found = self._interpreted(qparams, inputs, state)
      out, state, counts, clipped, watched = found
      saturated = clipped if self.saturation else None
    else:
      only = {"ids": jnp.asarray(inputs["ids"], jnp.int32)}
      out, state, raw = self._jit(self._load(), only, state)
      counts = self.rows(raw)
      if self._watch is not None:
        tokens = int(np.prod(only["ids"].shape))
        inside, outside = jax.device_get(raw[2])
        watched = self._watch.collect(inside, outside, tokens)
    rows = counts[None] if counts.ndim == 2 else counts
    segments = tuple(self._segment(r) for r in rows)
    return out, state, self.fold(segments, saturated, watched)

  def _segment(self, rows: np.ndarray) -> Segment:
    """The segment of a sequence; refuses what `checked` refuses."""
    inject = self.default_inject(len(rows))
    if not self.checked:
      return Segment(inject, self.split(rows))
    counts, extremes = [], []
    parts = np.split(rows, np.cumsum(self._columns)[:-1], axis=-1)
    for route, part in zip(self.routes, parts, strict=True):
      counts.append(part[:, : route.columns])
      tiles = part[:, route.columns :].reshape(len(rows), -1, 4)
      sends = route.src.count
      extremes.append((tiles[:, :sends], tiles[:, sends:]))
    checking.check_extremes(self.placement, self.routes, inject, extremes)
    segment = Segment(inject, self.split(np.concatenate(counts, axis=-1)))
    checking.check_inboxes(self.placement, segment)
    return segment
