"""Loads of all links in every time step, for the time that links take.

How many messages and words a value brings to each link is linear in the
messages of its source, so it is worked out once per placement, as matrices
from `nodes` to links: messages by router that sends them, by chip that sends
them, and by piece of a relay (`fanout`). Sums over steps are the loads of
`links.link_loads`, which finds them another way (a test compares the two).
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from jaxnmc.chip.placement.tiles import Placement
from jaxnmc.chip.routing import fanout
from jaxnmc.chip.routing.by_step import Event, by_step
from jaxnmc.chip.routing.memo import per_placement
from jaxnmc.chip.routing.routes import ROUTE_FACTS, Grid, Mesh, layout
from jaxnmc.chip.routing.segments import SynapseCount
from jaxnmc.errors import UserError

__all__ = ["LinkEvents", "busiest", "by_depth", "link_events"]


@dataclasses.dataclass(frozen=True, eq=False)
class LinkEvents:
  """Loads of links, event by event.

  Attributes:
    events: loads as `by_step.Event`; no column is twice in one.
    columns: links that are passed at all.
    meshes: the first `meshes` columns are links between routers of a chip,
      their loads 32-bit words; the others are links between chips, messages.
  """

  events: tuple[Event, ...]
  columns: int
  meshes: int


def link_events(
  counts: Sequence[SynapseCount], placement: Placement
) -> LinkEvents | None:
  """What a segment puts on the links.

  Args:
    counts: of its synapses.
    placement: the placement that was run.

  Returns:
    The events; None for a chip of more cores than the mesh has places, on
    which routes are unknown.

  Raises:
    PlacementError: a tile on a core or chip that does not exist.
    UserError: messages out of and into a relay that do not agree.
  """
  net, tiles = placement.network, placement.tiles_of
  ends = ((net.synapses[c.synapse], c.synapse) for c in counts)
  inside = (k for s, k in ends if len(tiles[s.src]) and len(tiles[s.dst]))
  found = _paths(placement, tuple(inside))
  if found is None:
    return None
  by_synapse = {c.synapse: c for c in counts}
  events = []
  for flow in found.flows:
    rows = [by_synapse[s.index] for s in flow.value.synapses]
    relays = [by_synapse[s.index] for s in flow.value.relays]
    loads = functools.partial(flow.loads, rows[0], relays)
    events.append((rows[0].depth, flow.columns, loads))
  return LinkEvents(tuple(events), found.columns, found.meshes)


def by_depth(placement: Placement) -> tuple[np.ndarray, np.ndarray]:
  """The busiest links of a token alone, every message taken as non-zero.

  Args:
    placement: where the tiles are.

  Returns:
    (messages on the busiest link between chips, words on the busiest link of a
    mesh), int64[steps per token] each; zeros where routes are unknown.
  """
  sizes, tiles = placement.sizes, placement.tiles_of
  counts = []
  for s in placement.network.synapses:
    out = sizes[list(tiles[s.src])][None]
    inc = sizes[list(tiles[s.dst])][None]
    counts.append(SynapseCount(s.index, s.depth, out, inc, inc, inc))
  steps, found = placement.steps_per_token, link_events(counts, placement)
  if found is None:
    return np.zeros(steps, np.int64), np.zeros(steps, np.int64)
  return busiest(found, np.zeros(1, np.int64), steps)


def busiest(
  found: LinkEvents, inject: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray]:
  """The busiest links of every step.

  Args:
    found: what was put on the links.
    inject: step at which each token enters, rising, int64[T].
    steps: number of steps.

  Returns:
    As `by_depth`, int64[steps] each.
  """
  link, mesh = np.zeros(steps, np.int64), np.zeros(steps, np.int64)
  for at, rows in by_step(found.events, inject, steps, found.columns):
    stop = at + len(rows)
    mesh[at:stop] = rows[:, : found.meshes].max(axis=1, initial=0)
    link[at:stop] = rows[:, found.meshes :].max(axis=1, initial=0)
  return link, mesh


@dataclasses.dataclass(frozen=True, eq=False)
class _Block:
  """Loads on the links of one chip: [T, nodes] @ weights on columns."""

  nodes: np.ndarray
  columns: np.ndarray
  weights: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class _Flow:
  """A value's way to the links.

  Attributes:
    value: the value.
    order: tiles of the source, sorted by router.
    routers: where the next router begins in them, int[routers].
    chips: where the next chip begins in the routers, int[chips].
    blocks: by chip that the links belong to.
    columns: those of the blocks, one behind the other.
  """

  value: fanout.Value
  order: np.ndarray
  routers: np.ndarray
  chips: np.ndarray
  blocks: tuple[_Block, ...]
  columns: np.ndarray

  def loads(self, row, relays, start: int, stop: int) -> np.ndarray:
    """int64[stop - start, columns] of these tokens' messages."""
    # Whole numbers below 2^53 are exact in float64, and its product is fast.
    nodes = self.nodes(row, relays, start, stop)
    parts = [nodes[:, b.nodes] @ b.weights for b in self.blocks]
    both = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    return both.astype(np.int64)

  def nodes(self, row, relays, start: int, stop: int) -> np.ndarray:
    """float64[stop - start, routers + chips + pieces]."""
    out = row.out[start:stop]
    parts = []
    if len(self.value.full):
      sent = out[:, self.order].astype(np.float64)
      parts.append(np.add.reduceat(sent, self.routers, axis=1))
      parts.append(np.add.reduceat(parts[0], self.chips, axis=1))
    if self.value.relay is not None:
      inc = [r.inc[start:stop] for r in relays]
      count, agree = self.value.relay.pieces([out, *inc])
      if not agree.all():
        raise disagreement(self.value)
      parts.append(count.astype(np.float64))
    return np.concatenate(parts, axis=1)


def disagreement(value: fanout.Value) -> UserError:
  """Messages of a relay's two ends differ."""
  one = value.relays[0]
  return UserError(
    f"synapse {one.index} ({one.path}) passes values one to one, but the"
    " messages out of its source and into its targets do not agree; take"
    " counters of `loihi`"
  )


@dataclasses.dataclass(frozen=True, eq=False)
class _Paths:
  """Flows of all values that a set of synapses carries."""

  flows: tuple[_Flow, ...]
  columns: int
  meshes: int


@per_placement
def _paths(placement: Placement, synapses: tuple[int, ...]) -> _Paths | None:
  """What each value brings to the links; None where routes are unknown."""
  try:
    mesh, grid = layout(placement.hardware)
  except UserError:
    return None
  fanout.check_cores(placement)
  tracer, flows = _Tracer(mesh, grid), []
  for value in fanout.values(placement, synapses):
    cores = placement.tile_core[value.source]
    key = tracer.router(cores)
    order = np.argsort(key, kind="stable")
    router, routers = np.unique(key[order], return_index=True)
    chip, chips = np.unique(router // mesh.routers, return_index=True)
    pieces = 0
    if len(value.full):
      tracer.to_all(router, chip, value.full)
      pieces = len(router) + len(chip)
    if value.relay is not None:
      tracer.one_by_one(value.relay, pieces)
    found = tracer.take()
    if len(found[0]):
      flows.append((value, order, routers, chips, found))
  links = [link for *_, (_, link, _) in flows]
  used = np.unique(np.concatenate([np.zeros(0, int), *links]))
  made = []
  for value, order, routers, chips, found in flows:
    blocks = tracer.blocks(found, used)
    columns = np.concatenate([b.columns for b in blocks])
    made.append(_Flow(value, order, routers, chips, blocks, columns))
  meshes = int(np.searchsorted(used, tracer.first_chip_link))
  return _Paths(tuple(made), len(used), meshes)


class _Tracer:
  """Collects (node, link, weight) of one value after the other."""

  def __init__(self, mesh: Mesh, grid: Grid):
    self.mesh, self.grid = mesh, grid
    n = mesh.routers
    self.taken = mesh.taken.reshape(n, n, n * 4)
    self.first_chip_link = grid.chips * n * 4
    self.plain = int(ROUTE_FACTS["words_per_hop"].value or 0)
    self.headed = int(ROUTE_FACTS["words_per_crossing"].value or 0)
    self.ways: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}
    self.found: list[tuple[np.ndarray, ...]] = []

  def router(self, core: np.ndarray) -> np.ndarray:
    """Router of cores, counted over all chips."""
    chip, core = np.divmod(core, self.mesh.cores)
    return chip * self.mesh.routers + core // self.mesh.cores_per_router

  def take(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What was collected: (node, link, weight)."""
    parts = zip(*self.found) if self.found else ([], [], [])
    empty = np.zeros(0, np.int64)
    self.found = []
    node, link, weight = (np.concatenate([empty, *p]) for p in parts)
    return node, link, weight

  def _mesh(self, nodes: np.ndarray, chip: int, words: np.ndarray) -> None:
    """words[k] on the mesh links of a chip for each message of nodes[k]."""
    k, link = np.nonzero(words)
    at = chip * self.mesh.routers * 4 + link
    self.found.append((nodes[k], at, words[k, link]))

  def _between(self, nodes: np.ndarray, a: int, b: int) -> None:
    """Links between chips, and the meshes on the way: once per message."""
    link, weight = self._way(a, b)
    shape = (len(nodes), len(link))
    node = np.broadcast_to(nodes[:, None], shape).ravel()
    both = (np.broadcast_to(x, shape).ravel() for x in (link, weight))
    self.found.append((node, *both))

  def _way(self, a: int, b: int) -> tuple[np.ndarray, np.ndarray]:
    """(link, weight) of a message from chip to chip, ends left out."""
    if (a, b) in self.ways:
      return self.ways[a, b]
    grid, ports, n = self.grid, self.mesh.ports, self.mesh.routers
    links, weights, chip, entry = [], [], a, -1
    while chip != b:
      way = int(grid.heading(np.array(chip), np.array(b)))
      if entry >= 0:
        leg = np.flatnonzero(self.taken[ports[entry], ports[way]])
        links += (chip * n * 4 + leg).tolist()
        weights += [self.headed] * len(leg)
      links.append(self.first_chip_link + chip * 6 + way)
      weights.append(1)
      chip, entry = int(grid.neighbour[chip, way]), way ^ 1
    self.ways[a, b] = np.array(links, np.int64), np.array(weights, np.int64)
    return self.ways[a, b]

  def to_all(
    self, router: np.ndarray, chip: np.ndarray, full: np.ndarray
  ) -> None:
    """From nodes (routers, then chips) to every core of `full`."""
    mesh, grid, n = self.mesh, self.grid, self.mesh.routers
    where, count = np.unique(self.router(full), return_counts=True)
    for k, a in enumerate(chip.tolist()):
      mine = np.flatnonzero(router // n == a)
      at, alone = router[mine] % n, np.array([len(router) + k])
      for b in np.unique(where // n).tolist():
        there = where // n == b
        readers = np.zeros(n, np.int64)
        readers[where[there] % n] = count[there]
        if a == b:
          copies = np.einsum("j,ijl->il", readers, self.taken[at])
          self._mesh(mine, a, self.plain * copies)
          continue
        out = int(grid.heading(np.array(a), np.array(b)))
        self._mesh(mine, a, self.headed * self.taken[at, mesh.ports[out]])
        self._between(alone, a, b)
        entry = mesh.ports[int(grid.entry(np.array(a), np.array(b)))]
        self._mesh(alone, b, self.plain * (readers @ self.taken[entry])[None])

  def one_by_one(self, relay: fanout.Relay, first: int) -> None:
    """From the pieces of a relay, whose nodes begin at `first`."""
    grid, ports, n = self.grid, self.mesh.ports, self.mesh.routers
    a, start = np.divmod(self.router(relay.sender[relay.piece]), n)
    b, stop = np.divmod(self.router(relay.reader), n)
    for ca, cb in np.unique(np.stack([a, b], axis=-1), axis=0).tolist():
      mine = np.flatnonzero((a == ca) & (b == cb))
      nodes = first + relay.piece[mine]
      if ca == cb:
        words = self.plain * self.taken[start[mine], stop[mine]]
        self._mesh(nodes, ca, words)
        continue
      entry = ports[int(grid.entry(np.array(ca), np.array(cb)))]
      self._mesh(nodes, cb, self.plain * self.taken[entry, stop[mine]])
      once = relay.crosses[mine]
      out = ports[int(grid.heading(np.array(ca), np.array(cb)))]
      words = self.headed * self.taken[start[mine][once], out]
      self._mesh(nodes[once], ca, words)
      self._between(nodes[once], ca, cb)

  def blocks(self, found, used: np.ndarray) -> tuple[_Block, ...]:
    """Matrices of a value, one per chip that links belong to."""
    node, link, weight = found
    far = link >= self.first_chip_link
    chip = link // (self.mesh.routers * 4)
    chip[far] = (link[far] - self.first_chip_link) // 6
    made = []
    for c in np.unique(chip):
      mine = chip == c
      nodes, k = np.unique(node[mine], return_inverse=True)
      links, j = np.unique(link[mine], return_inverse=True)
      weights = np.zeros((len(nodes), len(links)))
      np.add.at(weights, (k, j), weight[mine])
      columns = np.searchsorted(used, links)
      made.append(_Block(nodes, columns, weights))
    return tuple(made)
