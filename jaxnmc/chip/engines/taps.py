"""What the functional engine measures of the values it computes.

Layers that are alike are scanned, and a value is measured where it is computed;
so the same value of all layers of a run is measured alike, by whatever one of
them needs.  What is nobody's layer (the embedding) is measured afterwards.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.chip.engines import checking
from jaxnmc.chip.placement.tiles import Placement
from jaxnmc.chip.routing import probes
from jaxnmc.chip.routing.traffic import Route
from jaxnmc.kernels.tally import Table, tally
from jaxnmc.ops.execute import Executable


@dataclasses.dataclass(frozen=True, eq=False)
class Places:
  """Where the values that are sent are computed.

  Attributes:
    inside: of each run of layers: local index -> its node in every layer, None
      where that layer does not send it.
    outside: nodes of no layer.
  """

  inside: tuple[Mapping[int, tuple[int | None, ...]], ...]
  outside: tuple[int, ...]


def places(exe: Executable, nodes: Sequence[int]) -> Places:
  """Finds nodes among the layers of a graph."""
  sent, inside = dict.fromkeys(nodes), []
  left = dict(sent)
  for run in exe.runs:
    found = {}
    for local, same in enumerate(zip(*(n.nodes for n in run.layers))):
      mine = tuple(node if node in sent else None for node in same)
      if any(node is not None for node in mine):
        found[local] = mine
    for mine in found.values():
      for node in mine:
        if node is not None:
          left.pop(node, None)
    inside.append(found)
  return Places(tuple(inside), tuple(left))


class Counts:
  """Measures the messages of every value (`routing.probes`).

  Args:
    exe: what is run.
    placement: where the tiles are.
    routes: counted synapses.
  """

  def __init__(
    self, exe: Executable, placement: Placement, routes: Sequence[Route]
  ) -> None:
    cuts: dict[int, set[int]] = {}
    for route in routes:
      node = route.synapse.source
      width = placement.network.graph.nodes[node].width
      cuts.setdefault(node, set()).update(probes.edges(route, width))
    self.places = places(exe, tuple(cuts))
    for run in self.places.inside:
      for mine in run.values():
        nodes = [node for node in mine if node is not None]
        union = set().union(*(cuts[node] for node in nodes))
        cuts.update(dict.fromkeys(nodes, union))
    pieces = ((node, tuple(sorted(cut))) for node, cut in cuts.items())
    self.basis = probes.basis(placement, tuple(pieces))
    # Of each run: where the counted stretches of its values begin.
    self.cuts = tuple(
      {local: self._edges(mine) for local, mine in run.items()}
      for run in self.places.inside
    )
    self._tables = [
      [probes.tables([self._probe(n) for n in mine]) for mine in run.values()]
      for run in self.places.inside
    ]
    self._from = self._order()

  def _probe(self, node: int | None):
    return None if node is None else self.basis.probes[node]

  def _edges(self, mine: Sequence[int | None]) -> np.ndarray:
    """Those of the probes of a value, which are the same in all layers."""
    some = next(node for node in mine if node is not None)
    return self.basis.probes[some].edges

  def _order(self) -> np.ndarray:
    """Where each column of the basis stands among those that are measured.

    Measured are the layers of each run side by side, then what is outside.
    """
    order, first = np.zeros(self.basis.measured, int), 0

    def stands(node: int, start: int) -> None:
      probe = self.basis.probes[node]
      columns = np.arange(probe.columns)
      order[probe.start + columns] = start + columns

    for run, tables in zip(self.places.inside, self._tables):
      widths = []
      for mine, table in zip(run.values(), tables):
        more = 0 if table is None else table.shape[1]
        widths.append(len(self._edges(mine)) - 1 + more)
      starts, each = np.cumsum([0, *widths]), sum(widths)
      layers = 0
      for start, mine in zip(starts, run.values()):
        layers = len(mine)
        for layer, node in enumerate(mine):
          if node is not None:
            stands(node, first + layer * each + start)
      first += layers * each
    for node in self.places.outside:
      stands(node, first)
      first += self.basis.probes[node].columns
    return order

  def load(self):
    """Tables on the device: per run, by value, a leading axis of layers."""
    inside = [tuple(map(Table.of, run)) for run in self._tables]
    outside = [
      probes.tables([self.basis.probes[n]]) for n in self.places.outside
    ]
    return tuple(inside), tuple(map(Table.of, outside))

  def inside(self, k: int, found, tables, layer) -> jax.Array:
    """Columns of one layer of run k: int32[T, columns of the run]."""
    cuts = self.cuts[k]
    values = [found[local] for local in cuts]
    return tally(values, list(cuts.values()), tables[k], layer)

  def outside(self, values, tables) -> jax.Array:
    """Columns of what is in no layer: int32[T, columns]."""
    nodes = self.places.outside
    cuts = [self.basis.probes[node].edges for node in nodes]
    return tally([values[node] for node in nodes], cuts, tables)

  def gather(self, inside, outside) -> jax.Array:
    """All that is measured in one array, which the host fetches at once.

    Args:
      inside: of each run int32[layers, T, columns].
      outside: int32[T, columns].

    Returns:
      int32[T, measured], in the order of `collect`.
    """
    parts = [
      jnp.moveaxis(part, 0, 1).reshape(part.shape[1], -1)
      for run, part in zip(self.places.inside, inside, strict=True)
      if run
    ]
    if self.places.outside:
      parts.append(outside)
    if not parts:
      return jnp.zeros((0,), jnp.int32)
    return jnp.concatenate(parts, axis=-1)

  def collect(self, measured, tokens: tuple[int, ...]) -> np.ndarray:
    """Rows of the basis.

    Args:
      measured: what `gather` returned, perhaps of a batch.
      tokens: leading axes of the result, (..., T).

    Returns:
      int32[..., T, basis width].
    """
    rows = np.asarray(measured)
    if not rows.size:
      return np.zeros((*tokens, 0), np.int32)
    return self.basis.complete(rows[..., self._from])


@dataclasses.dataclass(frozen=True, eq=False)
class _Block:
  """Routes inside the layers of one run.

  Attributes:
    routes: per layer the indices of its routes, aligned between layers.
    sources: local index of each route's source.
  """

  routes: tuple[tuple[int, ...], ...] = ()
  sources: tuple[int, ...] = ()


def _block(run, routes, by_source) -> _Block:
  """Aligns the inner routes of a run's layers; empty if they are cut apart."""
  table, keys = [], []
  for layer in run.layers:
    local = {n: i for i, n in enumerate(layer.nodes)}
    inner = []
    for node in layer.nodes:
      for i in by_source.get(node, ()):
        route, synapse = routes[i], routes[i].synapse
        # A value that waits on an axon comes back to its own population.
        own = synapse.kind == "relay" and synapse.src == synapse.dst
        if own or synapse.target in local:
          to = -1 - synapse.delay if own else local[synapse.target]
          cut = (route.src.key, route.dst.key, route.sparse)
          key = (local[node], to, synapse.kind, cut)
          inner.append((key, i))
    inner.sort()
    keys.append([k for k, _ in inner])
    table.append(tuple(i for _, i in inner))
  if any(k != keys[0] for k in keys):
    return _Block()
  return _Block(tuple(table), tuple(k[0] for k in keys[0]))


class Extremes:
  """Measures the largest messages and sums of every synapse (`checking`).

  Args:
    exe: what is run.
    routes: counted synapses.
  """

  def __init__(self, exe: Executable, routes: Sequence[Route]) -> None:
    self.routes = routes
    by_source: dict[int, list[int]] = {}
    for i, route in enumerate(routes):
      by_source.setdefault(route.synapse.source, []).append(i)
    self._blocks = [_block(run, routes, by_source) for run in exe.runs]
    inner = {i for b in self._blocks for rows in b.routes for i in rows}
    self._outer = [i for i in range(len(routes)) if i not in inner]

  def codes(self, route: Route) -> np.ndarray | None:
    """Weights that sums are formed with, int8[dst width, src width]."""
    synapse = route.synapse
    dense = synapse.kind == "dense" and route.dst.count
    return np.asarray(synapse.weights) if dense else None

  def load(self):
    """Weights on the device: per run, by route, a leading axis of layers."""

    def stacked(column):
      each = [self.codes(self.routes[i]) for i in column]
      real = [codes for codes in each if codes is not None]
      return jnp.asarray(np.stack(real)) if real else None

    inside = tuple(
      tuple(stacked(column) for column in zip(*b.routes)) for b in self._blocks
    )
    outside = [self.codes(self.routes[i]) for i in self._outer]
    put = lambda c: None if c is None else jnp.asarray(c)
    return inside, tuple(map(put, outside))

  def inside(self, k: int, found, codes):
    """Of one layer of run k: per route int32[T, 4 * tiles]."""
    block = self._blocks[k]
    first = block.routes[0] if block.routes else ()
    return tuple(
      checking.of_route(self.routes[i], found[source], weights)
      for i, source, weights in zip(first, block.sources, codes, strict=True)
    )

  def outside(self, values, codes):
    """Of routes between layers: per route int32[T, 4 * tiles]."""
    return tuple(
      checking.of_route(
        self.routes[i], values[self.routes[i].synapse.source], weights
      )
      for i, weights in zip(self._outer, codes, strict=True)
    )

  def collect(self, inside, outside) -> list[np.ndarray]:
    """Of every route in order: int32[..., T, 4 * tiles]."""
    found: dict[int, np.ndarray] = {}
    for block, parts in zip(self._blocks, inside, strict=True):
      for column, part in enumerate(parts):
        for layer, indices in enumerate(block.routes):
          found[indices[column]] = np.asarray(part)[..., layer, :, :]
    found.update(zip(self._outer, map(np.asarray, outside)))
    return [found[i] for i in range(len(self.routes))]
