"""Tables of a report: chips, layers and the busiest cores."""

from typing import Any

import numpy as np

from jaxnmc.chip.costs.energy import Energy
from jaxnmc.chip.costs.timing import Clock
from jaxnmc.chip.counting.counters import Counters
from jaxnmc.chip.placement import packing
from jaxnmc.chip.placement.tiles import Placement

__all__ = ["chip_rows", "core_rows", "layer_rows"]

_UNITS = packing.COLUMN["synapse_units"]


def _walk_mj(walked: float, chosen: Energy | None) -> float | None:
  if chosen is None or chosen.synop_j is None:
    return None
  return 1e3 * walked * chosen.synop_j


def chip_rows(
  placement: Placement,
  clock: Clock | None,
  per_core: np.ndarray,
  chosen: Energy | None,
) -> tuple[dict, ...]:
  """The placement's rows with traffic per token, slowest core and energy."""
  per = placement.hardware.cores_per_chip
  rows = []
  for row in placement.table():
    if row["chip"] == "host":
      continue
    mine = per_core[row["chip"] * per : (row["chip"] + 1) * per]
    step = None
    if clock is not None:
      step = 1e6 * float(clock.steps(mine.max())[0])
    walked = float(mine.sum())
    more = {"synops_per_token": walked, "step_us": step}
    rows.append(row | more | {"walk_mj_per_token": _walk_mj(walked, chosen)})
  return tuple(rows)


def layer_rows(
  counters: Counters,
  placement: Placement,
  clock: Clock | None,
  chosen: Energy | None,
) -> tuple[dict, ...]:
  """Traffic of each layer, energy of its walk, time of a token alone in it."""
  if counters.per != "tile":
    return ()
  names = [n for n in counters.names if not n.startswith("passes")]
  sums = {n: counters.by("layer", n, placement) for n in names}
  net, rows = placement.network, []
  for layer in sorted({int(n) for n in placement.tile_layer if n >= 0}):
    row: dict[str, Any] = {"layer": layer}
    for name, values in sums.items():
      row[f"{name}_per_token"] = float(values[layer]) / counters.tokens
    depths = {
      s.depth for s in net.synapses if net.populations[s.dst].layer == layer
    }
    row["ms"] = None
    if clock is not None:
      row["ms"] = 1e3 * float(clock.depth_s[sorted(depths)].sum())
    walked = row["synops_stored_per_token"]
    rows.append(row | {"walk_mj_per_token": _walk_mj(walked, chosen)})
  return tuple(rows)


def core_rows(
  placement: Placement, per_core: np.ndarray, top: int
) -> tuple[dict, ...]:
  """The busiest cores."""
  hardware = placement.hardware
  per, room = hardware.cores_per_chip, hardware.synapse_units
  rows = []
  for core in np.argsort(-per_core, kind="stable")[:top].tolist():
    mine = np.flatnonzero(placement.tile_core == core)
    units = float(placement.demand[mine, _UNITS].sum())
    walk, synop_s = float(per_core[core]), hardware.synop_s
    rows.append(
      {
        "chip": core // per,
        "core": core % per,
        "populations": [placement.tiles[i].population for i in mine],
        "neurons": int(placement.sizes[mine].sum()),
        "weights": int(placement.stored[mine].sum()),
        "synops_per_token": walk,
        "walk_us": None if synop_s is None else 1e6 * synop_s * walk,
        "neuron_passes": int(placement.passes[mine].sum()),
        "memory_percent": None if room is None else 100 * units / room,
      }
    )
  return tuple(rows)
