"""What a placed network costs on paper, without a run.

Every value is taken as sent and no value as zero, as in a run at full activity;
links and the host take no time here (`cost` counts both). It takes a second
where folding the counters of a run would take gigabytes: a thousand chips have
a hundred thousand cores in thousands of steps per token.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxnmc.chip.costs import energy as energies
from jaxnmc.chip.placement.tiles import Placement

__all__ = ["crossings", "fall_through_steps", "on_paper", "pipelined_step"]

_MODELLED = "weights walked, neuron passes, barrier; every message is sent"


def _floor(placement: Placement, owner: np.ndarray) -> float:
  """Shortest step in s: barrier, and the neuron passes of the busiest core."""
  hardware = placement.hardware
  many = len(placement.chips) > 1
  barrier = hardware.barrier_system_s if many else hardware.barrier_s
  passes = int(placement.sum_by(owner, placement.passes).max(initial=0))
  return max(barrier or 0.0, passes * (hardware.neuron_s or 0.0))


def pipelined_step(
  placement: Placement, chips: Iterable[int] | None = None
) -> float | None:
  """Seconds of a step of the full pipeline.

  Args:
    placement: a placement.
    chips: count only these, as if the others were never slower.

  Returns:
    The longest of walk, neuron passes and barrier; None where the time of a
    synaptic operation is unknown.
  """
  synop, owner = placement.hardware.synop_s, placement.tile_core
  if synop is None:
    return None
  if chips is not None:
    owner = np.where(np.isin(placement.tile_chip, list(chips)), owner, -1)
  walk = int(placement.sum_by(owner, placement.stored).max(initial=0))
  return max(walk * synop, _floor(placement, owner))


def fall_through_steps(placement: Placement) -> np.ndarray | None:
  """Seconds of every step of a token alone, float64[steps]; None: unknown."""
  synop, owner = placement.hardware.synop_s, placement.tile_core
  if synop is None:
    return None
  return np.maximum(placement.busiest_walk * synop, _floor(placement, owner))


def crossings(placement: Placement) -> int:
  """Messages to other chips per token; one for each chip that reads a value."""
  net, tiles = placement.network, placement.tiles_of
  by_source: dict[int, list] = {}
  for synapse in net.synapses:
    if tiles[synapse.src] and tiles[synapse.dst]:
      by_source.setdefault(synapse.source, []).append(synapse)
  total = 0
  known: dict[int, np.ndarray] = {}

  def chips(population: int) -> np.ndarray:
    if population not in known:
      mine = slice(tiles[population].start, tiles[population].stop)
      known[population] = np.repeat(
        placement.tile_chip[mine], placement.sizes[mine]
      )
    return known[population]

  for synapses in by_source.values():
    here = chips(synapses[0].src)
    others = [chips(s.dst) for s in synapses if s.kind != "relay"]
    read = np.unique(np.concatenate(others)) if others else np.zeros(0, int)
    total += len(here) * len(read) - int(np.isin(here, read).sum())
    relayed = [chips(s.dst) for s in synapses if s.kind == "relay"]
    for k, there in enumerate(relayed):
      new = (there != here) & ~np.isin(there, read)
      for before in relayed[:k]:
        new &= there != before
      total += int(new.sum())
  return total


def on_paper(placement: Placement) -> list[dict[str, Any]]:
  """Time and energy of a token.

  Args:
    placement: a placement.

  Returns:
    Rows (figure, value, unit, label, source); value None where it is unknown.
    Energies are those of `energy.constants`, of the first form that keeps a
    chip below its published ceiling.
  """
  rows: list[dict[str, Any]] = []

  def add(figure, value, unit, source=_MODELLED, label="modelled"):
    row = {"figure": figure, "value": value, "unit": unit, "label": label}
    rows.append(row | {"source": source})

  steps = placement.steps_per_token
  walked, crossed = int(placement.stored.sum()), crossings(placement)
  add("steps_per_token", steps, "steps", "depth of the network")
  add("weights_walked", walked, "weights per token", "every weight once")
  add("crossings", crossed, "messages per token", "one per chip that reads")
  full, depths = pipelined_step(placement), fall_through_steps(placement)
  if full is None or depths is None:
    add("prefill_step", None, "us", "synop_s is unknown", "unknown")
    return rows
  alone = float(depths.sum())
  add("prefill_step", 1e6 * full, "us")
  add("prefill_rate", 1 / full if full else None, "tokens/s")
  add("generate_time", 1e3 * alone, "ms per token")
  add("generate_rate", 1 / alone if alone else None, "tokens/s")
  passes = int(placement.passes.sum())
  chips, ceiling = len(placement.chips), placement.hardware.ceiling_w
  per_layer = placement.network.steps_per_layer
  forms = energies.candidates(
    placement.hardware,
    sum(per_layer) / len(per_layer) if per_layer else steps,
  )
  for mode, time, count in (("prefill", full, 1), ("generate", alone, steps)):
    found = None
    for form in forms:
      events = (walked, crossed, passes * count, 0)
      joule = form.joules(chips, time, count, events)
      found = (joule, form)
      if not ceiling or joule / time <= ceiling * chips:
        break
    if found is None:
      add(f"{mode}_energy", None, "mJ per token", "unknown", "unknown")
      continue
    joule, form = found
    add(f"{mode}_energy", 1e3 * joule, "mJ per token", form.source)
    add(f"{mode}_power", joule / time, "W", form.source)
  return rows
