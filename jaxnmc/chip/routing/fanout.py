"""Who reads a value: the synapses that carry it, and the ends of its messages.

A value that is not zero goes once to every core that reads all of the source
(`dense`, `gather`, `reduce`); a relay, neuron n to neuron n, goes only where
neuron n is read. Between two edges of tiles, of the source or of a reader,
all messages of a relay have equal ends: such a part is a piece.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from jaxnmc.chip.network import Synapse
from jaxnmc.chip.placement.tiles import Placement
from jaxnmc.chip.routing.sparse import matrix, stacked
from jaxnmc.errors import PlacementError

__all__ = ["Relay", "Value", "check_cores", "values"]


@dataclasses.dataclass(frozen=True, eq=False)
class Relay:
  """Messages of a value that go one to one.

  Attributes:
    tiles: of the source, then of each relay's target: int arrays.
    first: where each edge's sum is, int[edges]: position in the running sums
      (with 0 in front) of all `tiles`, one behind the other.
    where: the edge of each of these sums, int[sums].
    sender: core of each piece, int[pieces].
    piece: piece of each pair of a piece and a core that reads it, int[n].
    reader: core of each pair, counted over all chips, int[n].
    crosses: bool[n], whether the pair's message is the one that carries the
      value to another chip.
  """

  tiles: tuple[np.ndarray, ...]
  first: np.ndarray
  where: np.ndarray
  sender: np.ndarray
  piece: np.ndarray
  reader: np.ndarray
  crosses: np.ndarray

  def pieces(
    self, messages: Iterable[np.ndarray]
  ) -> tuple[np.ndarray, np.ndarray]:
    """Messages of each piece.

    Args:
      messages: out by tile of the source, in by tile of each target:
        int[..., tiles] each.

    Returns:
      (int64[..., pieces], bool[...]: whether all sides agree).
    """
    sums = []
    for side in messages:
      below = np.zeros((*side.shape[:-1], side.shape[-1] + 1), np.int64)
      np.cumsum(side, axis=-1, out=below[..., 1:])
      sums.append(below)
    every = np.concatenate(sums, axis=-1)
    edges = every[..., self.first]
    count = np.diff(edges)
    agree = (edges[..., self.where] == every).all(-1)
    return count, agree & (count >= 0).all(-1)

  def matrices(self, sides: Sequence[np.ndarray], width: int):
    """`pieces` as matrices on rows of counts.

    Args:
      sides: columns of the messages of each side, as in `pieces`.
      width: number of columns.

    Returns:
      (scipy.sparse int64[pieces, width], the same of checks: zero where all
      sides agree).
    """
    # Running sums of all sides, one below the other, as `pieces` forms them.
    below = []
    for columns in sides:
      n = len(columns)
      row, column = np.tril_indices(n + 1, -1, n)
      below.append(matrix(row, columns[column], 1, (n + 1, width)))
    every = stacked(below, width)
    edges = every[self.first]
    return edges[1:] - edges[:-1], edges[self.where] - every


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
  """A value that chips send to chips.

  Attributes:
    synapses: those that carry it; relays after `relays` as in `Relay.tiles`.
    relays: those of them that are relays.
    source: tiles of its population, int[tiles].
    full: cores that get all of it, rising, int[n].
    relay: the other messages, None if there are none.
  """

  synapses: tuple[Synapse, ...]
  relays: tuple[Synapse, ...]
  source: np.ndarray
  full: np.ndarray
  relay: Relay | None


def values(placement: Placement, synapses: Iterable[int]) -> list[Value]:
  """The values that these synapses carry between tiles.

  Args:
    placement: where the tiles are.
    synapses: indices; those with an end on the host are left out.

  Returns:
    One entry per value, in order of its first synapse.
  """
  net, tiles = placement.network, placement.tiles_of
  groups: dict[int, list[Synapse]] = {}
  for index in synapses:
    synapse = net.synapses[index]
    if len(tiles[synapse.src]) and len(tiles[synapse.dst]):
      groups.setdefault(synapse.source, []).append(synapse)
  return [_value(placement, group) for group in groups.values()]


def _value(placement: Placement, group: list[Synapse]) -> Value:
  cores, tiles = placement.tile_core, placement.tiles_of
  mine = lambda population: np.array(tiles[population], np.int64)
  source = mine(group[0].src)
  wide = [cores[mine(s.dst)] for s in group if s.kind != "relay"]
  full = np.unique(np.concatenate([np.zeros(0, int), *wide]))
  relays = tuple(s for s in group if s.kind == "relay")
  relay = None
  if relays:
    ends = (source, *(mine(s.dst) for s in relays))
    relay = _relay(placement, ends, full)
  return Value(tuple(group), relays, source, full, relay)


def _relay(placement: Placement, ends, full: np.ndarray) -> Relay:
  cores = placement.tile_core
  edges = [np.cumsum([0, *placement.sizes[tiles]]) for tiles in ends]
  at, first, where = np.unique(
    np.concatenate(edges), return_index=True, return_inverse=True
  )
  pieces = np.arange(len(at) - 1)
  owner = lambda tiles, edge: cores[tiles][
    np.searchsorted(edge, at[:-1], side="right") - 1
  ]
  sender, *readers = (owner(t, e) for t, e in zip(ends, edges))
  # A core that reads a value by several synapses gets it once.
  pairs = [np.stack([pieces, reader], axis=-1) for reader in readers]
  piece, reader = np.unique(np.concatenate(pairs), axis=0).T
  new = ~np.isin(reader, full)
  piece, reader = piece[new], reader[new]
  # So does a chip: the first of its cores stands for it.
  per = placement.hardware.cores_per_chip
  chip = reader // per
  crosses = np.zeros(len(piece), bool)
  keys = np.stack([piece, chip], axis=-1)
  crosses[np.unique(keys, axis=0, return_index=True)[1]] = True
  crosses &= ~np.isin(chip, full // per) & (chip != sender[piece] // per)
  return Relay(ends, first, where, sender, piece, reader, crosses)


def check_cores(placement: Placement) -> None:
  """Refuses tiles on cores or chips that do not exist.

  Raises:
    PlacementError: with the name of the population and the number.
  """
  hardware = placement.hardware
  limits = {"chip": hardware.chips, "core": hardware.cores_per_chip}
  for what, limit in limits.items():
    at = np.array([getattr(t, what) for t in placement.tiles], np.int64)
    wrong = np.flatnonzero((at < 0) | (at >= limit))
    if len(wrong):
      tile, each = placement.tiles[wrong[0]], " per chip" * (what == "core")
      raise PlacementError(
        f"no route to {tile.population!r}: {what} {at[wrong[0]]} does not"
        f" exist; {hardware.name} has {limit} {what}s{each}, 0 to {limit - 1};"
        " place the network again"
      )
