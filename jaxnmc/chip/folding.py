"""Folds what an engine counted to totals per tile and numbers per step.

Engines hand in, for each synapse and token, the messages and walks of every
tile. An event of depth d of token n happens in step inject[n] + d. The busiest
core and the busiest links set the time of a step, so of every step only these
and the sum over cores are kept.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from jaxnmc.chip.link_steps import link_events
from jaxnmc.chip.memo import per_placement
from jaxnmc.chip.segments import Segment, SynapseCount
from jaxnmc.chip.tiles import Placement

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
MODES = ("pipelined", "fall-through", "mixed")
_WINDOW = 1 << 22  # numbers in the buffer that folds steps


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


def _ends(placement: Placement, count: SynapseCount):
  """Tiles of the source and of the target, int arrays."""
  synapse = placement.network.synapses[count.synapse]
  tiles = placement.tiles_of
  return np.array(tiles[synapse.src], int), np.array(tiles[synapse.dst], int)


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


def _events(segment: Segment, placement: Placement) -> Iterator[tuple]:
  """(name of a total, depth, tiles, int[T, tiles]) of everything that happened.

  A value that goes to several targets is sent once; one that a population
  reads by several ports arrives once.
  """
  reach = _reach(placement, tuple(c.synapse for c in segment.counts))
  sent, arrived = set(), set()
  for count in segment.counts:
    synapse = placement.network.synapses[count.synapse]
    src, dst = _ends(placement, count)
    yield "synops", count.depth, dst, count.synops
    yield "synops_stored", count.depth, dst, count.stored
    if synapse.source not in sent:
      sent.add(synapse.source)
      yield "messages_out", count.depth, src, count.out
      chips = reach[synapse.source]
      if chips.any():
        yield "crossings", count.depth, src, count.out * chips
    if (synapse.source, synapse.dst) not in arrived:
      arrived.add((synapse.source, synapse.dst))
      yield "messages_in", count.depth, dst, count.inc


def _host_events(segment: Segment, placement: Placement) -> Iterator[tuple]:
  """(depth, int[T]) of messages between host and chips."""
  met = set()
  for count in segment.counts:
    synapse = placement.network.synapses[count.synapse]
    src, dst = _ends(placement, count)
    if len(src) and len(dst) or synapse.source in met:
      continue
    met.add(synapse.source)
    values = count.out.sum(-1, dtype=np.int64)
    if not len(src):
      relay = synapse.kind == "relay"
      values = count.inc.sum(-1, dtype=np.int64) if relay else count.inc[:, 0]
    yield count.depth, values


def _add_rows(rows: np.ndarray, at: np.ndarray, columns, values) -> None:
  """rows[at[n], columns] += values[n]; at is rising, columns may repeat."""
  if len(np.unique(columns)) < len(columns):
    np.add.at(rows, (at[:, None], columns[None, :]), values)
  elif at[-1] - at[0] == len(at) - 1:
    rows[at[0] : at[-1] + 1, columns] += values
  else:
    rows[at[:, None], columns[None, :]] += values


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
  for kind, depth, tiles, values in _events(segment, placement):
    if kind == name:
      _add_rows(rows, inject + depth, tiles, values)
  return rows


_Event = tuple[int, np.ndarray, Callable[[int, int], np.ndarray]]


def _by_step(
  events: Sequence[_Event], inject: np.ndarray, columns: int
) -> Iterator[tuple[int, np.ndarray]]:
  """Sums of events, some steps at a time.

  Args:
    events: (depth, column of each value, function of the first token and one
      past the last one that gives their values, int[tokens, values]).
    inject: int64[T].
    columns: number of columns.

  Yields:
    (first step, int64[steps, columns]), in order; steps without events may be
    left out. The buffer is used again.
  """
  latency = max((depth for depth, _, _ in events), default=0) + 1
  rows = np.zeros((0, columns), np.int64)  # those from step `at` on
  at = start = 0
  while start < len(inject):
    # As many tokens as the buffer holds, one at least.
    room = int(inject[start]) + max(1, _WINDOW // max(1, columns) - latency)
    stop = max(start + 1, int(np.searchsorted(inject, room)))
    end = int(inject[stop - 1]) + latency
    more = np.zeros((end - at - len(rows), columns), np.int64)
    rows = np.concatenate([rows, more])
    part = inject[start:stop] - at
    for depth, where, values in events:
      _add_rows(rows, part + depth, where, values(start, stop))
    # Steps before the next token's first one are complete.
    done = end - at if stop == len(inject) else int(inject[stop]) - at
    done = min(done, len(rows))
    yield at, rows[:done]
    rows, at, start = rows[done:], at + done, stop
    if stop < len(inject) and not len(rows):
      at = int(inject[stop])


def _core_steps(walks, inject, steps: int, cores: int):
  """Largest and sum over cores of the weights walked: two int64[steps]."""
  most, total = np.zeros(steps, np.int64), np.zeros(steps, np.int64)
  events = [
    (depth, columns, lambda a, b, values=values: values[a:b])
    for depth, columns, values in walks
  ]
  for at, rows in _by_step(events, inject, cores):
    most[at : at + len(rows)] = rows.max(axis=1, initial=0)
    total[at : at + len(rows)] = rows.sum(axis=1)
  return most, total


def _link_steps(
  segment: Segment, placement: Placement, inject: np.ndarray, steps: int
) -> dict[str, np.ndarray]:
  """Loads of the busiest links; empty where routes are unknown."""
  found = link_events(segment.counts, placement)
  if found is None:
    return {}
  names = ("busiest_mesh", "busiest_link")
  most = {name: np.zeros(steps, np.int64) for name in names}
  for at, rows in _by_step(found.events, inject, found.columns):
    parts = (rows[:, : found.meshes], rows[:, found.meshes :])
    for name, part in zip(names, parts):
      most[name][at : at + len(rows)] = part.max(axis=1, initial=0)
  return most


def fold(segment: Segment, placement: Placement) -> Stretch:
  """Totals per tile and numbers per step of one segment."""
  inject = np.asarray(segment.inject, np.int64)
  latency = placement.steps_per_token
  steps = int(inject[-1]) + latency
  passive = ("passes_executed", "passes_active", "hops")
  totals = {
    name: np.zeros(len(placement.tiles), np.int64)
    for name in TOTALS
    if name not in passive
  }
  column = np.searchsorted(placement.used_cores, placement.tile_core)
  walks, crossings = [], np.zeros(steps, np.int64)
  for name, depth, tiles, values in _events(segment, placement):
    np.add.at(totals[name], tiles, values.sum(0, dtype=np.int64))
    if name == "synops_stored":
      walks.append((depth, column[tiles], values))
    elif name == "crossings":
      crossings[inject + depth] += values.sum(-1, dtype=np.int64)
  cores = len(placement.used_cores)
  busiest, stored = _core_steps(walks, inject, steps, cores)
  host = np.zeros(steps, np.int64)
  for depth, values in _host_events(segment, placement):
    host[inject + depth] += values
  totals["passes_executed"] = placement.passes * steps
  totals["passes_active"] = placement.passes * len(inject)
  rows = {
    "busiest_stored": busiest,
    "stored": stored,
    "crossings": crossings,
    "host_messages": host,
  }
  rows |= _link_steps(segment, placement, inject, steps)
  total = lambda values: values.sum(0, dtype=np.int64)
  return Stretch(
    _mode(inject, latency),
    len(inject),
    steps,
    int(inject[0]) + latency - 1,
    totals,
    rows,
    {c.synapse: (total(c.out), total(c.inc)) for c in segment.counts},
  )
