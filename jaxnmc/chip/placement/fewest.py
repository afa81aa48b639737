"""Packs neuron populations on as few cores as first-fit needs.

Tiles are as large as a core holds, what is left over of the populations shares
cores; then the tiles of one kind of population after the other are made smaller
where that saves cores. Equal tiles are packed at once (so many to a core as it
has room for), and sizes are chosen on a sample of equal populations, so a
thousand layers take hardly longer than ten. Same input, same answer; how far
from the best it can be says `least`.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from jaxnmc.chip.hardware import Hardware
from jaxnmc.chip.placement.packing import (
  COLUMN,
  Item,
  alike,
  capacity,
  check,
  demand,
  largest,
  seconds,
)

__all__ = ["least", "pack"]

_PARTS = (1, 2, 3, 4, 6, 8)  # tiles per core that are tried
_TIGHT = 12  # further sizes of a tile
_ALIKE = 64  # equal populations among which sizes are looked for


def least(items: Sequence[Item], hardware: Hardware) -> int:
  """Cores that no packing can do without, by each limit alone.

  A neuron takes least in the company of as many of its kind as fit a core.
  """
  caps, total = capacity(hardware), np.zeros(len(COLUMN))
  for item, where in alike(items).items():
    sizes = range(1, min(item.width, largest(item, hardware)) + 1)
    each = [np.array(demand(item, n, hardware)) / n for n in sizes]
    if each:
      total += len(where) * item.width * np.min(each, axis=0)
  return max(1, math.ceil(float(np.max(total / np.array(caps))) - 1e-6))


def _pieces(classes: Mapping[Item, Sequence[int]], sizes: Mapping[Item, int]):
  """Kinds of tiles: (neurons, item, populations, first tile, tiles of each)."""
  for item, where in classes.items():
    full, rest = divmod(item.width, sizes[item])
    if full:
      yield sizes[item], item, where, 0, full
    if rest:
      yield rest, item, where, full, 1


def _fill(classes, sizes, cores: int, hardware: Hardware):
  """First-fit; those kinds of tiles first that take most of a core.

  Returns:
    Core of every tile, by population; None where the cores are too few.
  """
  caps = np.array(capacity(hardware), float)
  caps[COLUMN["pool_units"]] *= 1 - 1e-9  # sums of fractions
  kinds = []
  for piece in _pieces(classes, sizes):
    need = np.array(demand(piece[1], piece[0], hardware), float)
    kinds.append((float(np.max(need / caps)), need, piece))
  used = np.zeros((cores, len(caps)))
  placed = {
    i: np.zeros(-(-item.width // sizes[item]), int)
    for item, where in classes.items()
    for i in where
  }
  for _, need, piece in sorted(kinds, key=lambda kind: -kind[0]):
    _, _, where, first, each = piece
    count = each * len(where)
    room = np.full(cores, count)
    for column in np.flatnonzero(need):
      if np.isfinite(caps[column]):
        free = (caps[column] - used[:, column]) // need[column]
        room = np.minimum(room, free.astype(np.int64))
    ends = np.cumsum(room)
    if ends[-1] < count:
      return None
    core = np.searchsorted(ends, np.arange(count), side="right")
    used += np.bincount(core, minlength=cores)[:, None] * need
    for k, i in enumerate(where):
      placed[i][first : first + each] = core[k * each : (k + 1) * each]
  return placed


def _neighbours(placed: Mapping[int, np.ndarray]) -> dict[int, list[int]]:
  """Numbers the cores anew, in order of the first population they hold."""
  order = sorted(placed)
  core = np.concatenate([placed[i] for i in order])
  _, first, old = np.unique(core, return_index=True, return_inverse=True)
  new = np.argsort(np.argsort(first))[old]
  ends = np.cumsum([len(placed[i]) for i in order])[:-1]
  return {i: c.tolist() for i, c in zip(order, np.split(new, ends))}


def _options(item: Item, hardware: Hardware) -> list[int]:
  """Neurons per tile that are tried, the most first.

  Parts of the largest tile; and sizes at which one neuron more would take
  another unit of synapse memory in every row.
  """
  most, column = largest(item, hardware), COLUMN["synapse_units"]
  found = []
  for parts in _PARTS:
    size = max(1, min(item.width, most // parts))
    found += [size, -(-item.width // -(-item.width // size))]
  units = lambda n: demand(item, n, hardware)[column]
  sizes = range(1, min(item.width, most))
  tight = [n for n in sizes if units(n + 1) > units(n)]
  found += tight[:: -max(1, len(tight) // _TIGHT)]
  return list(dict.fromkeys(found))


def _descend(classes, hardware: Hardware) -> dict[Item, int]:
  """Tile sizes with the fewest cores found, from several beginnings."""
  options = {item: _options(item, hardware) for item in classes}
  tiles = lambda i, n: -(-i.width // n) * len(classes[i])
  best = sum(tiles(i, each[0]) for i, each in options.items()) + 1
  result = {item: each[0] for item, each in options.items()}
  for order in (list(classes), list(classes)[::-1]):
    for k in (0, 2):
      sizes = {i: each[min(k, len(each) - 1)] for i, each in options.items()}
      most = sum(tiles(i, n) for i, n in sizes.items())
      count, before = _cores(_fill(classes, sizes, most, hardware), most), 0
      while count != before:
        before = count
        for item in order:
          for size in options[item]:
            other = sizes | {item: size}
            if other != sizes and count > 1:
              placed = _fill(classes, other, count - 1, hardware)
              if placed is not None:
                sizes, count = other, _cores(placed, count)
      if count < best:
        result, best = sizes, count
  return result


def _cores(placed, otherwise: int) -> int:
  """Cores in use."""
  if placed is None:
    return otherwise
  return 1 + max(int(core.max()) for core in placed.values())


def _sample(classes) -> dict[Item, list[int]]:
  """So many populations of each kind that the most frequent have few."""
  most = max((len(where) for where in classes.values()), default=1)
  rate = max(1, most // _ALIKE)
  return {
    item: where[: -(-len(where) // rate)] for item, where in classes.items()
  }


def pack(
  items: Sequence[Item], cores: int, hardware: Hardware
) -> tuple[float, list[int], list[list[int]]]:
  """Cuts and packs; the cores in use are the first ones.

  Args:
    items: populations.
    cores: equal cores that there are.
    hardware: limits and times.

  Returns:
    As `packing.pack`.

  Raises:
    Misfit: they do not fit.
  """
  tightest = check(items, cores, hardware)
  classes = alike(items)
  sizes = _descend(_sample(classes), hardware)
  # Every tile fits on a core of its own.
  room = sum(-(-i.width // sizes[i]) * len(w) for i, w in classes.items())
  placed = _fill(classes, sizes, room, hardware) or {}
  count = _cores(placed, 0) if placed else 0
  if count > cores:
    tightest.cores = count
    raise tightest
  numbered = _neighbours(placed)
  load = np.zeros(cores)
  for i, core in numbered.items():
    n = np.full(len(core), sizes[items[i]])
    n[-1:] = items[i].width - n[:-1].sum()
    np.add.at(load, core, n * seconds(items[i], hardware))
  order = range(len(items))
  return (
    float(load.max(initial=0.0)),
    [sizes[items[i]] for i in order],
    [numbered[i] for i in order],
  )
