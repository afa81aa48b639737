"""Folds what an engine counted to totals per tile and numbers per step.

Engines hand in, for each synapse and token, the messages and walks of every
tile. An event of depth d of token n happens in step inject[n] + d. The busiest
core and the busiest links set the time of a step, so of every step only these
and the sum over cores are kept.
"""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from jaxnmc.chip.placement.tiles import Placement
from jaxnmc.chip.routing.by_step import add_rows, by_step
from jaxnmc.chip.routing.link_steps import busiest, link_events
from jaxnmc.chip.routing.memo import per_placement
from jaxnmc.chip.routing.segments import Segment, SynapseCount

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
      add_rows(rows, inject + depth, tiles, values)
  return rows


def _core_steps(walks, inject, steps: int, cores: int):
  """Largest and sum over cores of the weights walked: two int64[steps]."""
  most, total = np.zeros(steps, np.int64), np.zeros(steps, np.int64)
  events = [
    (depth, columns, lambda a, b, values=values: values[a:b])
    for depth, columns, values in walks
  ]
  for at, rows in by_step(events, inject, steps, cores):
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
  link, mesh = busiest(found, inject, steps)
  return {"busiest_link": link, "busiest_mesh": mesh}


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
  most, stored = _core_steps(walks, inject, steps, cores)
  host = np.zeros(steps, np.int64)
  for depth, values in _host_events(segment, placement):
    host[inject + depth] += values
  totals["passes_executed"] = placement.passes * steps
  totals["passes_active"] = placement.passes * len(inject)
  rows = {
    "busiest_stored": most,
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
