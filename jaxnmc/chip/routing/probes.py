"""What is measured of the values that are sent: all counts follow from it.

Of each value the messages of every piece: a stretch of neurons between two
edges of tiles, of its source or of a population it is relayed to; and, for
every matrix it goes through, the walked weights that are not zero, by tile of
the target.  All other counts of its synapses are sums of these
(`traffic` says what they are), and `spread` is the matrix of that.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from jaxnmc.chip.placement.tiles import Placement
from jaxnmc.chip.routing.memo import per_placement
from jaxnmc.chip.routing.segments import Columns, Spread, of_placement
from jaxnmc.chip.routing.sparse import matrix
from jaxnmc.chip.routing.traffic import Route, nonzero_per_tile, routes

__all__ = ["Basis", "Probe", "basis", "edges", "tables"]

# Counts above this travel as two digits of an int8 table.
_DIGIT = 7


@dataclasses.dataclass(frozen=True, eq=False)
class Probe:
  """What is measured of one value.

  Attributes:
    node: the value, a node of the graph.
    path: its name.
    edges: first neuron of every piece, and the end, int[pieces + 1].
    table: what a message of each neuron adds to the other columns,
      int8[columns, width]; None without a matrix.
    start: its first column.
  """

  node: int
  path: str
  edges: np.ndarray
  table: np.ndarray | None
  start: int

  @property
  def columns(self) -> int:
    """Number of its measured columns."""
    more = 0 if self.table is None else self.table.shape[0]
    return len(self.edges) - 1 + more


@dataclasses.dataclass(frozen=True, eq=False)
class Basis:
  """All probes of a placement.

  Attributes:
    probes: by node, in order of their columns.
    measured: number of columns that are measured.
    width: number of columns with those of totals, which are behind them.
    columns: of the counts that follow.
    spread: how they follow.
  """

  probes: Mapping[int, Probe]
  measured: int
  width: int
  columns: Columns
  spread: Spread

  @functools.cached_property
  def _bounds(self) -> np.ndarray:
    """Where the pieces of each value begin and end."""
    ends = [(p.start, len(p.edges) - 1) for p in self.probes.values()]
    bounds = np.array([(a, a + n) for a, n in ends], np.int64).reshape(-1)
    # The last stretch may end where the row does.
    return bounds[bounds < self.measured]

  def complete(self, rows: np.ndarray) -> np.ndarray:
    """Measured int32[..., T, measured] with totals, [..., T, width].

    Most counts are a multiple of all messages of a value, so that their
    matrix is a tenth as long with totals than with pieces.
    """
    if not self.probes:
      return rows
    sums = np.add.reduceat(rows, self._bounds, axis=-1, dtype=rows.dtype)
    return np.concatenate([rows, sums[..., ::2]], axis=-1)


def edges(route: Route, width: int) -> set[int]:
  """Edges that the pieces of a route's value must have."""
  cuts = [route.src]
  if route.synapse.kind == "relay":
    cuts.append(route.dst)
  found = {0, width}
  for cut in cuts:
    found |= {int(n) for n in np.cumsum(cut.sizes)}
  return found


@per_placement
def basis(
  placement: Placement, pieces: tuple[tuple[int, tuple[int, ...]], ...]
) -> Basis:
  """The probes of a placed network.

  Args:
    placement: where the tiles are.
    pieces: (node, edges) of every value that is sent; at least `edges`.
  """
  every = routes(placement)
  of_value: dict[int, list[Route]] = {}
  for route in every:
    of_value.setdefault(route.synapse.source, []).append(route)
  columns = of_placement(placement, [r.synapse.index for r in every])
  cuts, start = dict(pieces), 0
  probes: dict[int, Probe] = {}
  # Columns of totals are numbered from 0 until the others are known.
  later: list[np.ndarray] = [np.zeros((3, 0), np.int64)]
  entries: list[np.ndarray] = [np.zeros((3, 0), np.int64)]
  for node, mine in of_value.items():
    cut = np.array(cuts[node])
    parts, at = [], start + len(cut) - 1
    for route in mine:
      table = None
      if route.synapse.kind == "dense":
        table = nonzero_per_tile(route)
      digits = 0
      if table is not None:
        digits = 1 + int(table.max(initial=0) >> _DIGIT > 0)
        mask = (1 << _DIGIT) - 1
        both = [(table >> (_DIGIT * k)) & mask for k in range(digits)]
        parts += [np.ascontiguousarray(part.T, np.int8) for part in both]
      direct, by_total = _follow(route, cut, start, at, digits, columns)
      entries += direct
      total = len(probes)
      later += [_entries(to, total, weight) for to, weight in by_total]
      at += digits * route.dst.count
    whole = np.concatenate(parts) if parts else None
    path = mine[0].synapse.path
    probes[node] = Probe(node, path, cut, whole, start)
    start = at
  behind = np.concatenate(later, axis=1) + np.array([[0], [start], [0]])
  row, column, weight = np.concatenate([*entries, behind], axis=1)
  width = start + len(probes)
  found = matrix(row, column, weight, (columns.width, width))
  return Basis(probes, start, width, columns, Spread(found))


def _follow(route: Route, cut, start: int, at: int, digits: int, columns):
  """What follows for a synapse.

  Returns:
    (entries (count, measured, weight), int64[3, n] each; (counts, weights) of
    those that are a multiple of the value's total).
  """
  synapse = route.synapse
  pieces = np.arange(start, start + len(cut) - 1)
  to = lambda field: columns.at(synapse.index, field)

  def sums(counts, tiling, weight=1):
    """Each tile's count is the sum of its pieces."""
    ends = np.cumsum(tiling.sizes)
    tile = np.searchsorted(ends, cut[:-1], side="right")
    return _entries(counts[tile], pieces, weight)

  found: list[np.ndarray] = []
  totals: list[tuple] = []
  if route.src.count:
    found.append(sums(to("out"), route.src))
  if not route.dst.count:
    return found, totals
  sizes = route.dst.sizes.astype(np.int64)
  if synapse.kind == "relay":
    rest = ("inc", "synops", "stored")
    return found + [sums(to(name), route.dst) for name in rest], totals
  totals.append((to("inc"), 1))
  if synapse.kind != "dense":
    # One source to all (gather), or all to one (reduce): no weight is zero.
    totals += [(to(name), sizes) for name in ("synops", "stored")]
    return found, totals
  walked = ["synops", "stored"] if route.sparse else ["synops"]
  for name in walked:
    for k in range(digits):
      first = at + k * route.dst.count
      mine = np.arange(first, first + route.dst.count)
      found.append(_entries(to(name), mine, 1 << (_DIGIT * k)))
  if not route.sparse:
    totals.append((to("stored"), sizes))
  return found, totals


def _entries(*parts) -> np.ndarray:
  return np.stack(np.broadcast_arrays(*parts)).astype(np.int64)


def tables(probes: Sequence[Probe | None]) -> np.ndarray | None:
  """Tables of the same value in several layers, int8[layers, columns, width].

  Short ones are filled up with zeros; None if no layer has one.
  """
  found = [None if p is None else p.table for p in probes]
  real = [t for t in found if t is not None]
  if not real:
    return None
  most = max(len(table) for table in real)
  out = np.zeros((len(probes), most, real[0].shape[1]), np.int8)
  for layer, table in zip(out, found):
    if table is not None:
      layer[: len(table)] = table
  return out
