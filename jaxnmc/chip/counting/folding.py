"""Folds what an engine counted to totals per tile and numbers per step.

Engines hand in, for each synapse and token, the messages and walks of every
tile. An event of depth d of token n happens in step inject[n] + d. The busiest
core and the busiest links set the time of a step, so of every step only these
and the sum over cores are kept.
"""

import dataclasses
import functools
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxnmc.chip.placement.tiles import Placement
from jaxnmc.chip.routing.by_step import Skew, Skews, add_rows
from jaxnmc.chip.routing.link_steps import LinkSkews, link_skews
from jaxnmc.chip.routing.memo import per_placement
from jaxnmc.chip.routing.segments import (
  Columns,
  Measured,
  Segment,
  SynapseCount,
  of_placement,
)
from jaxnmc.chip.routing.sparse import matrix

__all__ = ["MODES", "STEPS", "TOTALS"]
__all__ += ["Segment", "Stretch", "SynapseCount", "fold", "series"]

TOTALS = {
  "messages_out": "messages that neurons sent",
  "messages_in": "messages that arrived",
  "synops": "weights walked that are not zero",
  "synops_stored": "stored weights walked",
  "crossings": "messages sent, once per other chip that they reach",
  "passes_executed": "neuron passes: every neuron and phase, every step",
  "passes_active": "neuron passes with a token there",
  "hops": "links between routers that messages passed (only of profiles)",
}
STEPS = {
  "busiest_stored": "stored weights walked by the busiest core",
  "stored": "stored weights walked by all cores",
  "crossings": "as in the totals",
  "host_messages": "messages from and to the host",
  "busiest_link": "messages on the busiest link between chips",
  "busiest_mesh": "32-bit words on the busiest link of a chip's mesh",
  "busiest_passes": "neuron passes by the busiest core (only of profiles)",
}
# Totals that are counted; neuron passes follow from time.
_COUNTED = tuple(TOTALS)[:5]
# Tokens that wait for somebody to ask for their numbers by step.
_TOGETHER = 64
MODES = ("pipelined", "fall-through", "mixed")


@dataclasses.dataclass(frozen=True, eq=False)
class Stretch:
  """A segment, folded.

  Attributes:
    mode: `pipelined` (a token every step), `fall-through` (the next one when
      the last one has left; also a single token) or `mixed`.
    tokens: tokens that entered.
    steps: time steps.
    first_logits: step after which the first token's result was there.
    totals: name (of `TOTALS`) -> int64[owners].
    steps_of: name (of `STEPS`) -> int64[steps].
    sent: synapse -> messages (out by tile of its source, in by tile of its
      target), int64[tiles] each, which `links.link_loads` routes; None: not
      measured.
  """

  mode: str
  tokens: int
  steps: int
  first_logits: int | None
  totals: Mapping[str, np.ndarray]
  steps_of: Mapping[str, np.ndarray]
  sent: Mapping[int, tuple[np.ndarray, np.ndarray]] | None = None


def _mode(inject: np.ndarray, latency: int) -> str:
  gaps = np.diff(inject)
  if len(gaps) and (gaps == 1).all():
    return "pipelined"
  return "fall-through" if (gaps >= latency).all() else "mixed"


def _ends(placement: Placement, synapse: int):
  """Tiles of the source and of the target, int arrays."""
  ends, tiles = placement.network.synapses[synapse], placement.tiles_of
  return np.array(tiles[ends.src], int), np.array(tiles[ends.dst], int)


@per_placement
def _reach(
  placement: Placement, synapses: tuple[int, ...]
) -> dict[int, np.ndarray]:
  """Source value -> other chips each tile of its population reaches, int[k]."""
  chips: dict[int, list[set[int]]] = {}
  for index in synapses:
    synapse = placement.network.synapses[index]
    src, dst = placement.tiles_of[synapse.src], placement.tiles_of[synapse.dst]
    sets = chips.setdefault(synapse.source, [set() for _ in src])
    for reached, i in zip(sets, src):
      tile = placement.tiles[i]
      for j in dst:
        other = placement.tiles[j]
        apart = other.stop <= tile.start or tile.stop <= other.start
        if other.chip != tile.chip and not (synapse.kind == "relay" and apart):
          reached.add(other.chip)
  return {
    source: np.array([len(s) for s in sets], np.int64)
    for source, sets in chips.items()
  }


def _events(placement: Placement, columns: Columns) -> Iterator[tuple]:
  """(name of a total, depth, tiles, columns, weight) of all that is counted.

  A value that goes to several targets is sent once; one that a population
  reads by several ports arrives once.
  """
  reach = _reach(placement, columns.synapses)
  sent, arrived = set(), set()
  for index in columns.synapses:
    synapse = placement.network.synapses[index]
    depth = synapse.depth
    src, dst = _ends(placement, index)
    yield "synops", depth, dst, columns.at(index, "synops"), 1
    yield "synops_stored", depth, dst, columns.at(index, "stored"), 1
    if synapse.source not in sent:
      sent.add(synapse.source)
      out, chips = columns.at(index, "out"), reach[synapse.source]
      yield "messages_out", depth, src, out, 1
      if chips.any():
        yield "crossings", depth, src, out, chips
    if (synapse.source, synapse.dst) not in arrived:
      arrived.add((synapse.source, synapse.dst))
      yield "messages_in", depth, dst, columns.at(index, "inc"), 1


def _host_events(placement: Placement, columns: Columns) -> Iterator[tuple]:
  """(depth, columns) of messages between host and chips."""
  met = set()
  for index in columns.synapses:
    synapse = placement.network.synapses[index]
    src, dst = _ends(placement, index)
    if len(src) and len(dst) or synapse.source in met:
      continue
    met.add(synapse.source)
    at = columns.at(index, "out")
    if not len(src):
      # One to one, or every tile gets the same.
      inc = columns.at(index, "inc")
      at = inc if synapse.kind == "relay" else inc[:1]
    yield synapse.depth, at


def series(
  segment: Segment, placement: Placement, name: str = "synops_stored"
) -> np.ndarray:
  """One count in every step and tile: int64[steps, tiles]. For small runs.

  Args:
    segment: what the engine counted.
    placement: where the tiles are.
    name: of `TOTALS`, but for the neuron passes.

  Returns:
    int64[steps, tiles], zero where nothing happened.
  """
  inject = np.asarray(segment.inject, np.int64)
  steps = int(inject[-1]) + placement.steps_per_token
  rows = np.zeros((steps, len(placement.tiles)), np.int64)
  found = segment.measured().whole()
  counts = found.rows.astype(np.int64)
  for kind, depth, tiles, at, weight in _events(placement, found.columns):
    if kind == name:
      add_rows(rows, inject + depth, tiles, counts[:, at] * weight)
  return rows


@dataclasses.dataclass(frozen=True, eq=False)
class _Plan:
  """What is linear in the counts of a set of synapses.

  Attributes:
    totals: name -> scipy.sparse int64[tiles, counts].
    walks: weights walked, by core.
    crossings: messages to other chips, all together.
    host: messages between host and chips, all together.
    links: loads of links; None where routes are unknown.
    waiting: tokens whose numbers per step nobody has asked for.
    lock: of these.
  """

  totals: Mapping[str, Any]
  walks: Skew
  crossings: Skew
  host: Skew
  links: LinkSkews | None
  waiting: "weakref.WeakSet[_Steps]" = dataclasses.field(
    default_factory=weakref.WeakSet
  )
  lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

  @functools.cached_property
  def skews(self) -> Skews:
    """All maps to steps: walks, crossings, host, then chip and mesh links."""
    links = () if self.links is None else (self.links.chip, self.links.mesh)
    return Skews((self.walks, self.crossings, self.host, *links))

  @property
  def steps(self) -> tuple[str, ...]:
    """What is counted by step, of `STEPS`."""
    return tuple(STEPS)[: 4 if self.links is None else 6]

  def peaks(
    self, rows: np.ndarray, inject: np.ndarray, steps: int
  ) -> dict[str, np.ndarray]:
    """Numbers by step of some tokens.

    Args:
      rows: int[counts, tokens].
      inject: int64[tokens], the steps in which they enter.
      steps: how many there are.

    Returns:
      name -> int64[steps].
    """
    found = self.skews.peaks(rows, inject, steps)
    walks, crossings, host, *links = found
    most = [part[0] for part in links]
    each = (walks[0], walks[1], crossings[1], host[1], *most)
    return dict(zip(self.steps, each, strict=True))

  def after(self, spread) -> "_Plan":
    """The same of what the counts follow from: counts = spread @ it."""
    return _Plan(
      {name: weights @ spread for name, weights in self.totals.items()},
      self.walks.after(spread),
      self.crossings.after(spread),
      self.host.after(spread),
      None if self.links is None else self.links.after(spread),
    )


@per_placement
def _plan(placement: Placement, synapses: tuple[int, ...]) -> _Plan:
  """For counts that stand as in `segments.of_placement`."""
  columns = of_placement(placement, synapses)
  core = np.searchsorted(placement.used_cores, placement.tile_core)
  entries: dict[str, list[np.ndarray]] = {}
  for name, depth, tiles, at, weight in _events(placement, columns):
    each = np.broadcast_arrays(depth, tiles, at, weight)
    entries.setdefault(name, []).append(np.stack(each))
  none = np.zeros((4, 0), np.int64)
  found = {
    name: np.concatenate([none, *entries.get(name, [])], axis=1)
    for name in _COUNTED
  }
  width = columns.width
  shape = (len(placement.tiles), width)
  totals = {
    name: matrix(tiles, at, weight, shape)
    for name, (_, tiles, at, weight) in found.items()
  }
  depth, tiles, at, weight = found["synops_stored"]
  cores = len(placement.used_cores)
  walks = Skew.of(depth, core[tiles], at, weight, cores, width)
  depth, tiles, at, weight = found["crossings"]
  crossings = Skew.of(depth, 0 * tiles, at, weight, 1, width)
  pairs = [
    np.stack(np.broadcast_arrays(depth, at))
    for depth, at in _host_events(placement, columns)
  ]
  depth, at = np.concatenate([none[:2], *pairs], axis=1)
  host = Skew.of(depth, 0 * at, at, 1, 1, width)
  return _Plan(totals, walks, crossings, host, link_skews(placement, synapses))


@per_placement
def _measured_plan(placement: Placement, synapses, spread) -> _Plan:
  """For rows that the counts follow from by `spread`, or are (None)."""
  plan = _plan(placement, synapses)
  return plan if spread is None else plan.after(spread.matrix)


class _Lazy(Mapping):
  """A mapping whose values are worked out when somebody asks."""

  def __init__(self, keys, get: Callable):
    self._keys, self._get = dict.fromkeys(keys), get

  def __getitem__(self, key):
    if key not in self._keys:
      raise KeyError(key)
    return self._get(key)

  def __contains__(self, key) -> bool:
    return key in self._keys

  def __iter__(self):
    return iter(self._keys)

  def __len__(self) -> int:
    return len(self._keys)


class _Steps:
  """`Stretch.steps_of`, worked out when somebody asks.

  Single tokens that nobody has asked for are worked out together, which takes
  a tenth of the time: a run of many has a stretch of each.
  """

  def __init__(
    self, plan: _Plan, rows: np.ndarray, inject: np.ndarray, steps: int
  ) -> None:
    self.plan, self.rows, self.inject, self.steps = plan, rows, inject, steps
    self._found: Mapping[str, np.ndarray] | None = None
    if len(inject) != 1:
      self._work_out([self])  # its rows are long, and nothing is saved
      return
    with plan.lock:
      plan.waiting.add(self)
      many = len(plan.waiting) >= _TOGETHER
    if many:
      self("stored")

  def __call__(self, name: str) -> np.ndarray:
    if self._found is None:
      with self.plan.lock:
        every = {self, *self.plan.waiting}
        self.plan.waiting.difference_update(every)
        if self._found is None:  # else another thread has just done it
          self._work_out(list(every))
    assert self._found is not None
    return self._found[name]

  def _work_out(self, every: Sequence["_Steps"]) -> None:
    """As if one had come after the other, none while another is there."""
    starts = np.cumsum([0, *(one.steps for one in every)])
    rows = np.concatenate([one.rows for one in every], axis=1)
    inject = [one.inject + at for one, at in zip(every, starts)]
    found = self.plan.peaks(rows, np.concatenate(inject), int(starts[-1]))
    for one, at in zip(every, starts):
      cut = slice(at, at + one.steps)
      # A view would keep the numbers of all of them.
      one._found = {name: part[cut].copy() for name, part in found.items()}
      one.rows = one.rows[:, :0]


class _Sent(Mapping):
  """`Stretch.sent`, worked out when somebody asks: for all at once."""

  def __init__(self, counts: Measured) -> None:
    self._counts = counts

  def __getitem__(self, key: int) -> tuple[np.ndarray, np.ndarray]:
    count = self._counts[self._counts.columns.place(key)]
    return count.out[0], count.inc[0]

  def items(self):
    """(synapse, its messages) of all, by one product."""
    whole = self._counts.whole()
    return ((c.synapse, (c.out[0], c.inc[0])) for c in whole)

  def __iter__(self):
    return iter(self._counts.columns.synapses)

  def __len__(self) -> int:
    return len(self._counts)


def fold(segment: Segment, placement: Placement) -> Stretch:
  """Totals per tile and numbers per step of one segment.

  Totals are kept as what they follow from, which is much shorter: a run of
  many tokens may hold a stretch of each.

  Raises:
    UserError: messages out of and into a relay that do not agree.
    PlacementError: a tile on a core or chip that does not exist.
  """
  inject = np.asarray(segment.inject, np.int64)
  latency = placement.steps_per_token
  steps = int(inject[-1]) + latency
  found = segment.measured()
  plan = _measured_plan(placement, found.columns.synapses, found.spread)
  columns = found.columns
  rows = np.ascontiguousarray(found.rows.T)
  if plan.links is not None:
    plan.links.check(rows)
  sums = rows.sum(1, dtype=np.int64)
  tokens = len(inject)

  def total(name: str) -> np.ndarray:
    if name in plan.totals:
      return plan.totals[name] @ sums
    return placement.passes * (steps if name == "passes_executed" else tokens)

  return Stretch(
    _mode(inject, latency),
    tokens,
    steps,
    int(inject[0]) + latency - 1,
    _Lazy((n for n in TOTALS if n != "hops"), total),
    _Lazy(plan.steps, _Steps(plan, rows, inject, steps)),
    _Sent(Measured(columns, sums[None], found.spread)),
  )
