"""A placement as tables and as JSON."""

from typing import Any

from jaxnmc.report import tables

_COLUMNS = {
  "chip": "chip",
  "layers": "layers",
  "cores": ">cores",
  "neurons": ">neurons",
  "weights": ">weights",
  "memory_percent": ">memory %",
  "busiest_core": ">busiest",
  "busiest_percent": ">its %",
}


def summary(placement) -> dict[str, Any]:
  """What a placement takes, ready for JSON."""
  network = placement.network
  return {
    "system": placement.hardware.name,
    "chips_asked": placement.hardware.chips,
    "chips_used": len(placement.chips),
    "cores_used": len(placement.used_cores),
    "cores": placement.hardware.cores,
    "tiles": len(placement.tiles),
    "populations": len(network.populations),
    "neurons": int(placement.sizes.sum()),
    "weights_stored": int(placement.stored.sum()),
    "memory_bytes": placement.memory_bytes,
    "steps_per_token": network.steps_per_token,
    "steps_per_layer": list(network.steps_per_layer),
    "policy": dict(placement.policy),
    "host": list(placement.host),
    "unknown_limits": list(placement.hardware.unknown),
    "chips": placement.table(),
    "limits": placement.limits(),
  }


def chip_table(data: dict[str, Any]):
  """One row per chip, and one for the host."""
  rows = [[_short(row[key]) for key in _COLUMNS] for row in data["chips"]]
  title = (
    f"{data['system']}: {data['cores_used']:,} cores on"
    f" {data['chips_used']} of {data['chips_asked']} chips"
  )
  return tables.table(title, list(_COLUMNS.values()), rows)


def _short(value: Any) -> Any:
  if value is None:
    return ""
  return f"{value:.1f}" if isinstance(value, float) else value


def limit_table(data: dict[str, Any]):
  """Each limit of a core, and the most that a core takes of it."""
  rows = []
  for row in data["limits"]:
    allowed, found = row["allowed"], row["found"]
    share = "" if not allowed else f"{100 * found / allowed:.1f}"
    state = "not checked" if allowed is None else allowed
    rows.append((row["limit"], found, state, share))
  return tables.table(
    "Limits of a core", ("limit", ">most used", ">allowed", ">%"), rows
  )
