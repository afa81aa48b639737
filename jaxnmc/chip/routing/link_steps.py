"""Loads of all links in every time step, for the time that links take.

How many messages and words a value brings to each link is linear in the
messages of its source, so it is worked out once per placement, as matrices
from `nodes` to links: messages by router that sends them, by chip that sends
them, and by piece of a relay (`fanout`). Sums over steps are the loads of
`links.link_loads`, which finds them another way (a test compares the two).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnmc.chip.placement.tiles import Placement
from jaxnmc.chip.routing import fanout
from jaxnmc.chip.routing.by_step import Skew
from jaxnmc.chip.routing.memo import per_placement
from jaxnmc.chip.routing.routes import ROUTE_FACTS, Grid, Mesh, layout
from jaxnmc.chip.routing.segments import Columns, of_placement
from jaxnmc.chip.routing.sparse import matrix, stacked
from jaxnmc.errors import UserError

__all__ = ["LinkSkews", "by_depth", "link_skews"]


@dataclasses.dataclass(frozen=True, eq=False)
class LinkSkews:
  """Loads of links from the counts of synapses.

  Attributes:
    mesh: 32-bit words on the links between routers of a chip.
    chip: messages on the links between chips.
    agree: scipy.sparse int64[checks, counts]: zero where the ends of relays
      agree.
    pieces: scipy.sparse int64[pieces, counts] of relays, which are not
      negative.
    relays: values of the checks, and of the pieces.
  """

  mesh: Skew
  chip: Skew
  agree: Any
  pieces: Any
  relays: tuple[list[fanout.Value], list[fanout.Value]]

  def after(self, spread) -> "LinkSkews":
    """The same of what the counts follow from: counts = spread @ it."""
    if spread is None:
      return self
    agree, pieces = self.agree @ spread, self.pieces @ spread
    agree.eliminate_zeros()
    return LinkSkews(
      *(self.mesh.after(spread), self.chip.after(spread)),
      *(agree, pieces, self.relays),
    )

  def check(self, counts: np.ndarray) -> None:
    """Refuses messages that leave a relay and do not arrive.

    Args:
      counts: int[columns, T].

    Raises:
      UserError: the synapse.
    """
    # Nothing can go wrong where all ends follow from the same numbers.
    checks = (
      (self.agree, lambda found: found != 0, self.agree.nnz),
      (self.pieces, lambda found: found < 0, (self.pieces.data < 0).any()),
    )
    for (rule, bad, can), values in zip(checks, self.relays):
      if can:
        wrong = bad(rule @ counts.astype(np.int64)).any(axis=1)
        if wrong.any():
          raise disagreement(values[int(wrong.argmax())])


@per_placement
def link_skews(
  placement: Placement, synapses: tuple[int, ...]
) -> LinkSkews | None:
  """What messages of these synapses put on the links.

  Args:
    placement: the placement that was run.
    synapses: indices; their counts stand as in `segments.of_placement`.

  Returns:
    The maps; None for a chip of more cores than the mesh has places, on which
    routes are unknown.

  Raises:
    PlacementError: a tile on a core or chip that does not exist.
  """
  net, tiles = placement.network, placement.tiles_of
  inside = [
    k
    for k in synapses
    if len(tiles[net.synapses[k].src]) and len(tiles[net.synapses[k].dst])
  ]
  paths = _paths(placement, inside)
  if paths is None:
    return None
  columns = of_placement(placement, synapses)
  found: list[tuple[np.ndarray, ...]] = []
  checks, parts = [], []
  relays: tuple[list[fanout.Value], list[fanout.Value]] = [], []
  for flow in paths.flows:
    nodes, agree, pieces = flow.nodes(columns)
    checks.append(agree)
    parts.append(pieces)
    relays[0].extend([flow.value] * agree.shape[0])
    relays[1].extend([flow.value] * pieces.shape[0])
    for block in flow.blocks:
      rows = (matrix(*_entries(block.weights.T)) @ nodes[block.nodes]).tocoo()
      depth = np.full(rows.nnz, flow.value.synapses[0].depth)
      found.append((depth, block.columns[rows.row], rows.col, rows.data))
  empty = np.zeros((4, 0), np.int64)
  depth, link, at, weight = np.concatenate([empty, *map(np.stack, found)], 1)
  mesh, width = link < paths.meshes, columns.width
  skew = lambda mine, first, count: Skew.of(
    depth[mine], link[mine] - first, at[mine], weight[mine], count, width
  )
  return LinkSkews(
    skew(mesh, 0, paths.meshes),
    skew(~mesh, paths.meshes, paths.columns - paths.meshes),
    stacked(checks, width),
    stacked(parts, width),
    relays,
  )


def _entries(dense: np.ndarray):
  """Arguments of `matrix` for the entries of a small dense one."""
  row, column = np.nonzero(dense)
  return row, column, dense[row, column].astype(np.int64), dense.shape


def by_depth(placement: Placement) -> tuple[np.ndarray, np.ndarray]:
  """The busiest links of a token alone, every message taken as non-zero.

  Args:
    placement: where the tiles are.

  Returns:
    (messages on the busiest link between chips, words on the busiest link of a
    mesh), int64[steps per token] each; zeros where routes are unknown.
  """
  sizes, tiles = placement.sizes, placement.tiles_of
  steps, net = placement.steps_per_token, placement.network
  synapses = tuple(s.index for s in net.synapses)
  found = link_skews(placement, synapses)
  if found is None:
    return np.zeros(steps, np.int64), np.zeros(steps, np.int64)
  columns = of_placement(placement, synapses)
  row = np.zeros((columns.width, 1), np.int64)
  for s in net.synapses:
    row[columns.at(s.index, "out"), 0] = sizes[list(tiles[s.src])]
    row[columns.at(s.index, "inc"), 0] = sizes[list(tiles[s.dst])]
  found.check(row)
  now = np.zeros(1, np.int64)
  link, _ = found.chip.peaks(row, now, steps)
  mesh, _ = found.mesh.peaks(row, now, steps)
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

  def nodes(self, columns: Columns):
    """Messages of the nodes from counts.

    Returns:
      (scipy.sparse int64[routers + chips + pieces, columns], the same of the
      checks that all ends of a relay agree, and of the pieces alone).
    """
    width = columns.width
    out = columns.at(self.value.synapses[0].index, "out")
    agree = pieces = stacked([], width)
    parts = []
    if len(self.value.full):
      router = _ranks(self.routers, len(self.order))
      chip = _ranks(self.chips, len(self.routers))[router]
      sent = out[self.order]
      parts.append(matrix(router, sent, 1, (len(self.routers), width)))
      parts.append(matrix(chip, sent, 1, (len(self.chips), width)))
    if self.value.relay is not None:
      inc = [columns.at(s.index, "inc") for s in self.value.relays]
      pieces, agree = self.value.relay.matrices([out, *inc], width)
    return stacked([*parts, pieces], width), agree, pieces


def _ranks(starts: np.ndarray, size: int) -> np.ndarray:
  """Which stretch each of `size` places is in, by where stretches begin."""
  return np.searchsorted(starts, np.arange(size), side="right") - 1


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


def _paths(placement: Placement, synapses: Sequence[int]) -> _Paths | None:
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
