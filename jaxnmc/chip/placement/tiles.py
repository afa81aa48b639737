"""A placed network: which neurons are on which core, and what that takes."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxnmc.chip.hardware import Hardware
from jaxnmc.chip.network import Network, Population
from jaxnmc.chip.placement import packing
from jaxnmc.chip.placement.packing import FanIn, Item

__all__ = ["Encoding", "Placement", "Tile", "layer_text", "packing_items"]


@dataclasses.dataclass(frozen=True)
class Encoding:
  """How a synapse is stored.

  Attributes:
    kind: `dense` (every position) or `sparse` (non-zero weights and indices).
    entries: stored weights per target neuron: what one neuron's share of a
      walk over the whole input costs.
    bits: bits per stored weight, index included.
  """

  kind: str
  entries: int
  bits: int


@dataclasses.dataclass(frozen=True)
class Tile:
  """Neurons `start` to `stop` of a population on one core.

  Attributes:
    population: its name.
    start: first neuron.
    stop: one past the last neuron.
    chip: chip.
    core: core of that chip.
  """

  population: str
  start: int
  stop: int
  chip: int
  core: int

  @property
  def width(self) -> int:
    """Number of neurons."""
    return self.stop - self.start


@dataclasses.dataclass(frozen=True, eq=False)
class Placement:
  """Where everything is.

  Attributes:
    tiles: of the populations on the chips, in order of population and neuron.
    host: names of the populations that the host computes.
    hardware: what was asked for.
    network: what was placed.
    encodings: how each synapse is stored, in order of `network.synapses`.
    policy: `objective`: `time` or `memory`; `head`: `host`, `chip` or `none`;
      `layers`: `own` (chips of their own), `shared` (several per chip) or
      `pooled` (one pool of cores).
  """

  tiles: tuple[Tile, ...]
  host: tuple[str, ...]
  hardware: Hardware
  network: Network
  encodings: tuple[Encoding, ...]
  policy: Mapping[str, str]

  @functools.cached_property
  def tile_core(self) -> np.ndarray:
    """Core of each tile, counted over all chips: int[tiles]."""
    per = self.hardware.cores_per_chip
    return np.array([t.chip * per + t.core for t in self.tiles], int)

  @functools.cached_property
  def tile_chip(self) -> np.ndarray:
    """Chip of each tile: int[tiles]."""
    return np.array([t.chip for t in self.tiles], int)

  @functools.cached_property
  def tile_population(self) -> np.ndarray:
    """Index in `network.populations` of each tile's population: int[tiles]."""
    index = {p.name: p.index for p in self.network.populations}
    return np.array([index[t.population] for t in self.tiles], int)

  @functools.cached_property
  def tile_layer(self) -> np.ndarray:
    """Layer of each tile, -1 where it has none: int[tiles]."""
    pops = self.network.populations
    layers = (pops[i].layer for i in self.tile_population)
    return np.array([-1 if n is None else n for n in layers], int)

  @functools.cached_property
  def tiles_of(self) -> tuple[range, ...]:
    """Positions in `tiles` of each population's tiles; empty on the host."""
    pops = len(self.network.populations)
    count = np.bincount(self.tile_population, minlength=pops)
    ends = np.cumsum(count).tolist()
    return tuple(range(e - n, e) for e, n in zip(ends, count.tolist()))

  @functools.cached_property
  def chips(self) -> tuple[int, ...]:
    """Chips that hold neurons."""
    return tuple(sorted(set(self.tile_chip.tolist())))

  @functools.cached_property
  def demand(self) -> np.ndarray:
    """What each tile takes, float[tiles, limits], as `packing.LIMITS`."""
    items = packing_items(self.network, self.encodings)
    rows = [
      packing.demand(items[i], t.width, self.hardware)
      for i, t in zip(self.tile_population, self.tiles)
    ]
    return np.array(rows, float).reshape(len(rows), len(packing.LIMITS))

  @functools.cached_property
  def sizes(self) -> np.ndarray:
    """Neurons of each tile: int64[tiles]."""
    return np.array([t.width for t in self.tiles], np.int64)

  @functools.cached_property
  def stored(self) -> np.ndarray:
    """Stored weights of each tile: int64[tiles]."""
    per = np.zeros(len(self.network.populations), np.int64)
    for synapse, code in zip(self.network.synapses, self.encodings):
      per[synapse.dst] += code.entries
    return per[self.tile_population] * self.sizes

  @functools.cached_property
  def passes(self) -> np.ndarray:
    """Neuron passes of each tile in one step: int64[tiles]."""
    phases = np.array([p.phases for p in self.network.populations], np.int64)
    return phases[self.tile_population] * self.sizes

  @functools.cached_property
  def steps_per_token(self) -> int:
    """Steps from a token's injection until its last event on the chips."""
    if self.network.ticks:
      return 1
    tiles = self.tiles_of
    ends = [s.depth for s in self.network.synapses if tiles[s.src]]
    ends += [s.depth + 1 for s in self.network.synapses if tiles[s.dst]]
    return max(ends, default=0) + 1

  @functools.cached_property
  def walk(self) -> np.ndarray:
    """Stored weights each core walks for one token, by depth.

    int64[steps per token, cores in use], columns in order of `used_cores`; all
    messages taken as non-zero. Row d is walked d steps after injection.
    """
    column = np.searchsorted(self.used_cores, self.tile_core)
    shape = (self.steps_per_token, len(self.used_cores))
    walk = np.zeros(shape, np.int64)
    for synapse, code in zip(self.network.synapses, self.encodings):
      mine = list(self.tiles_of[synapse.dst])
      if mine:
        size = self.sizes[mine] * code.entries
        np.add.at(walk[synapse.depth], column[mine], size)
    return walk

  @functools.cached_property
  def busiest_walk(self) -> np.ndarray:
    """`walk.max(axis=1)`, without the table: int64[steps per token]."""
    at: list[list[np.ndarray]] = [[] for _ in range(self.steps_per_token)]
    sizes: list[list[np.ndarray]] = [[] for _ in at]
    column = np.searchsorted(self.used_cores, self.tile_core)
    for synapse, code in zip(self.network.synapses, self.encodings):
      tiles = self.tiles_of[synapse.dst]
      if tiles:
        mine = slice(tiles.start, tiles.stop)
        at[synapse.depth].append(column[mine])
        sizes[synapse.depth].append(self.sizes[mine] * code.entries)
    most = np.zeros(len(at), np.int64)
    for depth, (cores, walks) in enumerate(zip(at, sizes)):
      if cores:
        core, where = np.unique(np.concatenate(cores), return_inverse=True)
        total = np.zeros(len(core), np.int64)
        np.add.at(total, where, np.concatenate(walks))
        most[depth] = total.max()
    return most

  @functools.cached_property
  def used_cores(self) -> np.ndarray:
    """Cores that hold neurons, counted over all chips, rising: int[cores]."""
    return np.unique(self.tile_core)

  def sum_by(self, owner: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sums tile values over what owns the tiles.

    Args:
      owner: int[tiles], for example `tile_core`; those of negative ones are
        left out.
      values: [..., tiles].

    Returns:
      [..., largest owner + 1], dtype of values.
    """
    values = np.asarray(values)
    keep = owner >= 0
    size = int(owner.max(initial=-1)) + 1
    out = np.zeros((size, *values.shape[:-1]), values.dtype)
    np.add.at(out, owner[keep], np.moveaxis(values, -1, 0)[keep])
    return np.moveaxis(out, 0, -1)

  @functools.cached_property
  def memory_bytes(self) -> int:
    """Bytes of synapses and neuron state on all chips."""
    return int(self.demand[:, packing.COLUMN["core_memory_bytes"]].sum())

  def limits(self) -> list[dict]:
    """Every limit of a core: what is allowed, the most that any core takes.

    Returns:
      Rows (limit, what, allowed, found, core); `allowed` None is unknown and
      was not checked; `others` says how other published values would stand.
    """
    rows: list[dict[str, Any]] = []
    used = self.sum_by(self.tile_core, self.demand.T)
    for k, (name, what) in enumerate(packing.LIMITS):
      row = used[k] if used.size else np.zeros(1)
      found = float(row.max())
      fact = self.hardware.fact(name)
      rows.append(
        {
          "limit": name,
          "what": what,
          "allowed": fact.value,
          "found": int(round(found)),
          "core": int(row.argmax()),
          "others": [
            {"allowed": value, "source": source, "kept": found <= value}
            for value, source in fact.others
          ],
        }
      )
    return rows

  def table(self) -> list[dict]:
    """One row per chip in use, and one for the host.

    Keys: chip, layers, cores, tiles, neurons, weights (stored), memory_percent
    (synapse memory of the chip's cores, None where unknown), busiest_weights,
    busiest_percent (synapse memory), busiest_core.
    """
    rows = [self._row(chip) for chip in self.chips]
    if self.host:
      pops = [p for p in self.network.populations if p.name in set(self.host)]
      codes = zip(self.network.synapses, self.encodings)
      width = {p.index: p.width for p in pops}
      weights = sum(c.entries * width.get(s.dst, 0) for s, c in codes)
      row = dict.fromkeys(rows[0] if rows else ())
      row |= {"chip": "host", "layers": layer_text(pops)}
      row |= {"neurons": sum(width.values()), "weights": weights}
      rows.append(row)
    return rows

  @functools.cached_property
  def _by_chip(self) -> tuple[np.ndarray, np.ndarray]:
    """Positions of tiles in order of chips; where each chip's begin."""
    order = np.argsort(self.tile_chip, kind="stable")
    chips = np.arange(self.hardware.chips + 1)
    return order, np.searchsorted(self.tile_chip[order], chips)

  def _row(self, chip: int) -> dict:
    per, room = self.hardware.cores_per_chip, self.hardware.synapse_units
    order, starts = self._by_chip
    mine = order[starts[chip] : starts[chip + 1]]
    found = np.unique(self.tile_population[mine]).tolist()
    core = self.tile_core[mine] - chip * per
    stored = np.bincount(core, self.stored[mine], minlength=per)
    units = self.demand[mine, packing.COLUMN["synapse_units"]]
    units = np.bincount(core, units, minlength=per)
    busiest = int(stored.argmax())
    percent = lambda used, of: None if room is None else 100 * used / of / room
    return {
      "chip": chip,
      "layers": layer_text(self.network.populations[i] for i in found),
      "cores": len(np.unique(core)),
      "tiles": len(mine),
      "neurons": int(self.sizes[mine].sum()),
      "weights": int(self.stored[mine].sum()),
      "memory_percent": percent(float(units.sum()), per),
      "busiest_core": busiest,
      "busiest_weights": int(stored[busiest]),
      "busiest_percent": percent(float(units[busiest]), 1),
    }


def layer_text(populations: Iterable[Population]) -> str:
  """Layers as ranges, then the first parts of the names of what has none."""
  pops = list(populations)
  layers = sorted({p.layer for p in pops if p.layer is not None})
  heads = sorted({p.name.split(".")[0] for p in pops if p.layer is None})
  return ", ".join([*_ranges(layers), *heads])


def _ranges(numbers: Sequence[int]) -> list[str]:
  """Whole numbers in rising order as text: 0-3, 5."""
  out: list[list[int]] = []
  for n in numbers:
    if out and n == out[-1][1] + 1:
      out[-1][1] = n
    else:
      out.append([n, n])
  return [str(a) if a == b else f"{a}-{b}" for a, b in out]


def packing_items(net: Network, encodings: Sequence[Encoding]) -> list[Item]:
  """What packing has to know of each population."""
  # What one value brings to several ports lies in one row of its in-axon.
  rows: list[dict[tuple, int]] = [{} for _ in net.populations]
  for synapse, code in zip(net.synapses, encodings):
    width = net.populations[synapse.src].width
    key = (synapse.source, width, code.bits)
    row = rows[synapse.dst]
    row[key] = row.get(key, 0) + code.entries
  return [
    Item(
      *(p.width, p.words, p.phases),
      tuple(FanIn(w, n, bits) for (_, w, bits), n in rows[p.index].items()),
    )
    for p in net.populations
  ]
