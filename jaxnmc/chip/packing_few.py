"""Packs neuron populations on as few cores as first-fit needs.

Tiles are as large as a core holds, what is left over of the populations shares
cores; then the tiles of one kind of population after the other are made smaller
where that saves cores. Equal tiles are packed at once (so many to a core as it
has room for), so the work grows with the kinds of populations, not with the
number of tiles. Same input, same answer; how far from the best it can be says
`least`.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from jaxnmc.chip.hardware import Hardware
from jaxnmc.chip.packing import (
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
  """Neurons per tile that are tried, the most first."""
  found = []
  for parts in _PARTS:
    size = max(1, min(item.width, largest(item, hardware) // parts))
    found += [size, -(-item.width // -(-item.width // size))]
  return list(dict.fromkeys(found))


def _descend(classes, hardware: Hardware):
  """(cores, tile sizes, core of every tile): the fewest cores found."""
  options = {item: _options(item, hardware) for item in classes}
  sizes = {item: each[0] for item, each in options.items()}
  # Every tile fits on a core of its own.
  best = sum(-(-i.width // sizes[i]) * len(w) for i, w in classes.items()) + 1
  found: dict[int, np.ndarray] = {}

  def try_(other):
    nonlocal best, sizes, found
    placed = _fill(classes, other, best - 1, hardware) if best > 1 else None
    if placed is not None:
      best = 1 + max(int(core.max()) for core in placed.values())
      sizes, found = other, placed

  for k in range(2 * len(_PARTS)):
    try_({i: each[min(k, len(each) - 1)] for i, each in options.items()})
  for item in classes:
    for size in options[item]:
      try_(sizes | {item: size})
  return best, sizes, found


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
  count, sizes, placed = _descend(classes, hardware)
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
