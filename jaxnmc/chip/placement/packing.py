"""Cuts neuron populations into tiles and packs the tiles on equal cores.

The busiest core sets the time of a step, so the tile size is the smallest for
which the tiles still fit (a search over the time per core), and the tiles are
packed first-fit in order of falling load. Same input, same answer. For as few
cores as possible: `fewest`.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

from jaxnmc.chip.hardware import Hardware

__all__ = ["COLUMN", "FanIn", "Item", "LIMITS", "Misfit"]
__all__ += [
  "alike",
  "capacity",
  "check",
  "demand",
  "largest",
  "pack",
  "seconds",
]

# Demands of a tile, in this order: field of `Hardware`, what it counts.
LIMITS = (
  ("neurons_per_core", "neurons"),
  ("groups_per_core", "tiles"),
  ("synapse_units", "units of synapse memory"),
  ("axons_in_per_core", "in-axons"),
  ("core_memory_bytes", "bytes of synapses and neuron state"),
  ("pool_units", "pool units of synapses, neurons and axons"),
)
# Name of a limit -> its column in what `demand` returns.
COLUMN = {name: k for k, (name, _) in enumerate(LIMITS)}
# Coarse search over the time per core: steps near the even split, then far.
_NEAR, _FAR, _NEAR_STEPS = 1.03, 1.3, 10
_PARTS = (1, 2, 3)  # tiles per core that are tried
_WORTH = 1.05


@dataclasses.dataclass(frozen=True)
class FanIn:
  """Synapses from one value, sent by a population, into another population.

  Attributes:
    sources: neurons of the source.
    entries: stored weights per target neuron, of all ports together.
    bits: bits per stored weight, index included.
  """

  sources: int
  entries: int
  bits: int


@dataclasses.dataclass(frozen=True)
class Item:
  """What packing has to know of a population.

  Attributes:
    width: neurons.
    words: words of state per neuron.
    phases: passes of its program per step.
    fan_in: its synapses.
  """

  width: int
  words: int
  phases: int
  fan_in: tuple[FanIn, ...]

  @property
  def weights(self) -> int:
    """Stored weights per neuron."""
    return sum(f.entries for f in self.fan_in)


class Misfit(Exception):
  """No packing was found.

  Attributes:
    limit: name of the limit (a field of `Hardware`).
    found: what is needed.
    allowed: what there is.
    item: position of the population of which not one neuron fits, or None.
    cores: number of cores that would do by this limit alone, or None.
  """

  def __init__(self, limit, found, allowed, item=None, cores=None):
    super().__init__(limit)
    self.limit, self.found, self.allowed = limit, found, allowed
    self.item, self.cores = item, cores


@functools.lru_cache(maxsize=4096)
def demand(item: Item, n: int, hardware: Hardware) -> tuple[float, ...]:
  """What `n` neurons of a population take of a core, in order of `LIMITS`.

  A synapse row belongs to one in-axon: the weights from one source to all
  neurons of the tile, behind a header, in whole units.
  """
  unit, header = hardware.synapse_unit_bits, hardware.synapse_row_bits
  units = axons = 0
  for f in item.fan_in:
    entries = n * f.entries
    if not entries:
      continue
    rows = min(f.sources, entries)
    per_row = -(-entries // rows)
    axons += rows
    units += rows * -(-(per_row * f.bits + header) // unit)
  state = n * item.words * hardware.state_word_bits // 8
  pool = (
    units
    + n * (hardware.pool_per_neuron or 0)
    + axons * (hardware.pool_per_axon or 0)
  )
  return (n, 1, units, axons, units * unit // 8 + state, pool)


def seconds(item: Item, hardware: Hardware) -> float:
  """Load of one neuron: time per step, or weights where times are unknown."""
  if hardware.synop_s is None:
    return item.weights + item.phases
  passes = item.phases * (hardware.neuron_s or 0.0)
  return item.weights * hardware.synop_s + passes


def capacity(hardware: Hardware) -> tuple[float, ...]:
  """Limits of a core in order of `LIMITS`; unknown ones are infinite."""
  values = (getattr(hardware, name) for name, _ in LIMITS)
  return tuple(math.inf if v is None else v for v in values)


@functools.lru_cache(maxsize=4096)
def largest(item: Item, hardware: Hardware) -> int:
  """Most neurons of a population that fit on an empty core; may be 0."""
  caps = capacity(hardware)
  fits = lambda n: all(
    a <= b for a, b in zip(demand(item, n, hardware), caps, strict=True)
  )
  low, high = 0, item.width
  while low < high:
    middle = (low + high + 1) // 2
    low, high = (middle, high) if fits(middle) else (low, middle - 1)
  return low


def _tile_size(item: Item, hardware: Hardware, time: float) -> int:
  """Neurons per tile, so that no tile takes longer than `time`."""
  most, load = largest(item, hardware), seconds(item, hardware)
  if load > 0:
    most = max(1, min(most, int(time / load * (1 + 1e-12))))
  tiles = -(-item.width // most)
  return -(-item.width // tiles)


class _Core:
  __slots__ = ("time", "used")

  def __init__(self):
    self.time, self.used = 0.0, (0.0,) * len(LIMITS)

  def put(self, time, need, most, caps) -> bool:
    if self.time + time > most * (1 + 1e-9):
      return False
    used = tuple(a + b for a, b in zip(self.used, need))
    if any(a > b for a, b in zip(used, caps)):
      return False
    self.time, self.used = self.time + time, used
    return True


def _try(classes, cores: int, hardware: Hardware, time: float, parts: int):
  """First fit in order of falling load; None where it does not fit.

  No core takes longer than `time`, and no tile longer than its `parts`th part.
  """
  sizes = {item: _tile_size(item, hardware, time / parts) for item in classes}
  count = sum(-(-i.width // sizes[i]) * len(w) for i, w in classes.items())
  groups = hardware.groups_per_core
  if groups is not None and count > groups * cores:
    return None
  caps, rack = capacity(hardware), [_Core() for _ in range(cores)]
  load = lambda item: -sizes[item] * seconds(item, hardware)
  placed: dict[int, list[int]] = {}
  for item in sorted(classes, key=load):  # stable: ties stay in model order
    size, at = sizes[item], 0
    for where in classes[item]:
      placed[where] = []
      for start in range(0, item.width, size):
        n = min(size, item.width - start)
        need, t = demand(item, n, hardware), n * seconds(item, hardware)
        j = at
        while j < cores and not rack[j].put(t, need, time, caps):
          j += 1
        if j == cores:
          return None
        if n == size:
          at = j  # what was too full for this tile is so for its equals
        placed[where].append(j)
  busiest = max((core.time for core in rack), default=0.0)
  return busiest, sizes, placed


def _tightest(items: Sequence[Item], cores: int, hardware: Hardware) -> Misfit:
  """The limit that the largest tiles, which take least, come closest to."""
  caps = capacity(hardware)
  total = [0.0] * len(LIMITS)
  for item in items:
    n = largest(item, hardware)
    full, rest = divmod(item.width, n)
    for size, times in ((n, full), (rest, 1)):
      if size:
        need = demand(item, size, hardware)
        total = [a + times * b for a, b in zip(total, need)]
  share = [a / (b * cores) for a, b in zip(total, caps)]
  k = max(range(len(LIMITS)), key=share.__getitem__)
  more = max(cores + 1, math.ceil(cores * share[k]))
  return Misfit(LIMITS[k][0], total[k], caps[k] * cores, cores=more)


def check(items: Sequence[Item], cores: int, hardware: Hardware) -> Misfit:
  """The tightest limit, or a refusal of what fits in no way.

  Raises:
    Misfit: a neuron is too large for any core, or all of them for all cores.
  """
  caps = capacity(hardware)
  for i, item in enumerate(items):
    if item.width and not largest(item, hardware):
      need = demand(item, 1, hardware)
      k = max(range(len(LIMITS)), key=lambda k: need[k] / caps[k])
      raise Misfit(LIMITS[k][0], need[k], caps[k], item=i)
  tightest = _tightest(items, cores, hardware)
  if tightest.found > tightest.allowed:
    raise tightest
  return tightest


def alike(items: Sequence[Item]) -> dict[Item, list[int]]:
  """Positions of equal populations, in order of the first of them."""
  classes: dict[Item, list[int]] = {}
  for i, item in enumerate(items):
    classes.setdefault(item, []).append(i)
  return classes


def _search(classes, cores: int, hardware: Hardware, parts: int):
  """The best of `_try` over the time per core, or None."""
  loads = [(seconds(item, hardware), item.width) for item in classes]
  counts = [len(where) for where in classes.values()]
  total = sum(a * b * n for (a, b), n in zip(loads, counts))
  if not total:
    return _try(classes, cores, hardware, 1.0, 1)
  low = max(total / cores, *(a for a, _ in loads))
  time, best, tries = low, None, 0
  while best is None and time < 2 * total * parts:
    best, tries = _try(classes, cores, hardware, time, parts), tries + 1
    if best is None:
      low, time = time, time * (_NEAR if tries < _NEAR_STEPS else _FAR)
  high = time
  while best is not None and high - low > 1e-3 * high:
    middle = (low + high) / 2
    found = _try(classes, cores, hardware, middle, parts)
    if found is None:
      low = middle
    else:
      high = middle
      best = min(best, found, key=lambda f: f[0])
  return best


def pack(
  items: Sequence[Item], cores: int, hardware: Hardware
) -> tuple[float, list[int], list[list[int]]]:
  """Cuts and packs.

  Args:
    items: populations.
    cores: equal cores to use.
    hardware: limits and times.

  Returns:
    (load of the busiest core in seconds, or in weights where the time of a
    synaptic operation is unknown; tile size per population, of which only the
    last tile may be smaller; core of every tile, per population).

  Raises:
    Misfit: they do not fit.
  """
  tightest = check(items, cores, hardware)
  classes = alike(items)
  found = [_search(classes, cores, hardware, parts) for parts in _PARTS]
  times = [f[0] for f in found if f is not None]
  if not times:
    raise tightest
  # Small tiles fill the cores better; they have to be worth their number.
  enough = _WORTH * min(times)
  best = next(f for f in found if f is not None and f[0] <= enough)
  busiest, sizes, placed = best
  order = range(len(items))
  return busiest, [sizes[items[i]] for i in order], [placed[i] for i in order]
