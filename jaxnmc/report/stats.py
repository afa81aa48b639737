"""Spikes, energy and time of a run on the cores, and budgets for them.

`stats` has the keys that tutorials on edge chips ask a board for.  No board was
asked: every value comes from counters of simulated cores and constants with
sources (docs/hardware.md), so `estimated` is True, and `labels` say how.

`tick_hz` is the rate of time steps.  None lets the chip run freely: a step ends
when its slowest core has.  A rate makes no step shorter than 1 / tick_hz, and
power that is drawn all the time is drawn for longer.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jaxnmc.chip.costs.cost import Figure, cost
from jaxnmc.chip.costs.energy import Energy
from jaxnmc.chip.counting.counters import Counters
from jaxnmc.chip.placement.tiles import Placement
from jaxnmc.errors import ConfigError
from jaxnmc.report import tables

__all__ = ["BUDGETS", "check_budgets", "passed", "profile", "show", "stats"]

CONVENTION = (
  "spike_count: messages that neurons sent and that were not 0, graded or"
  " binary, one for all their targets; energy_consumed: uJ of the whole run;"
  " runtime_ms: the whole run; host and board are not in them"
)
# Budget -> the figure it bounds, and its unit.
BUDGETS = {
  "w": ("peak_w", "W"),
  "ram_bytes": ("memory_with_runtime_bytes", "B"),
  "ms": ("runtime_ms", "ms"),
  "uj": ("energy_consumed", "uJ"),
  "spikes": ("spike_count", "spikes"),
}


def stats(
  counters: Counters,
  placement: Placement,
  *,
  tick_hz: float | None = None,
  energy: str | Energy = "auto",
) -> dict[str, Any]:
  """Spikes, energy and time of a run.

  Args:
    counters: of `loihi` on this placement, or of a real chip.
    placement: the placement that was run.
    tick_hz: time steps per second; None runs freely.
    energy: as for `jaxnmc.cost`.

  Returns:
    {"spike_count", "energy_consumed" (uJ), "runtime_ms", "estimated": True,
    "labels": key -> label, "convention": what is counted}; an unknown is None.

  Raises:
    ConfigError: a rate that is no number above 0.
    UserError: as `jaxnmc.cost`.
  """
  found = profile(counters, placement, tick_hz=tick_hz, energy=energy)
  keys = ("spike_count", "energy_consumed", "runtime_ms")
  return {
    **{key: found["figures"][key].value for key in keys},
    "estimated": True,
    "labels": {key: found["figures"][key].label for key in keys},
    "convention": CONVENTION,
  }


def profile(
  counters: Counters,
  placement: Placement,
  *,
  tick_hz: float | None = None,
  energy: str | Energy = "auto",
) -> dict[str, Any]:
  """The figures of `stats`, and power, memory and ticks besides.

  Args: as `stats`.

  Returns:
    {"figures": name -> `Figure` of spike_count, energy_consumed, runtime_ms,
    ms_per_token, mean_w, peak_w, memory_bytes (synapses and neuron state),
    memory_with_runtime_bytes (cores in use with all their memory), "tick_hz",
    "ticks" and "tokens" of the run, "cores" in use, "notes"}.

  Raises: as `stats`.
  """
  report = cost(counters, _at(placement, tick_hz), energy)
  tokens = counters.tokens
  core = placement.hardware.core_memory_bytes
  cores = len(placement.used_cores)
  millijoules, ms = report.run_mj, report.run_ms
  spikes = None
  if "messages_out" in counters.names:
    spikes = int(counters.total("messages_out").sum())
  each = None if ms.value is None else ms.value / tokens
  micro = None if millijoules.value is None else 1e3 * millijoules.value
  whole = None if core is None else cores * core
  figures = {
    "spike_count": Figure(spikes, "spikes", "modelled", "counters"),
    "energy_consumed": dataclasses.replace(millijoules, value=micro, unit="uJ"),
    "runtime_ms": ms,
    "ms_per_token": dataclasses.replace(ms, value=each),
    "mean_w": report.mean_w,
    "peak_w": report.peak_w,
    "memory_bytes": report.memory_bytes,
    "memory_with_runtime_bytes": Figure(
      *(whole, "B", "modelled"),
      f"{cores} cores in use, each with all its memory: programs, axons and"
      " accumulators are in it; what the host keeps is not",
    ),
  }
  return {
    "figures": figures,
    "tick_hz": tick_hz,
    "ticks": counters.steps,
    "tokens": tokens,
    "cores": cores,
    "notes": report.notes,
  }


def _at(placement: Placement, tick_hz: float | None) -> Placement:
  """The placement on chips whose steps take at least 1 / tick_hz.

  A barrier bounds every step from below, whatever else is in it.
  """
  if tick_hz is None:
    return placement
  if not (isinstance(tick_hz, int | float) and 0 < tick_hz < math.inf):
    raise ConfigError(
      f"tick_hz is {tick_hz!r}; allowed is a number of time steps per second"
      " above 0, or None to run freely"
    )
  chip = placement.hardware
  least: dict[str, Any] = {
    name: max(getattr(chip, name) or 0.0, 1 / tick_hz)
    for name in ("barrier_s", "barrier_system_s")
  }
  return dataclasses.replace(
    placement, hardware=dataclasses.replace(chip, **least)
  )


def check_budgets(
  found: Mapping[str, Any], budgets: Mapping[str, float]
) -> list[dict[str, Any]]:
  """Gates: does each figure stay within its budget?

  Args:
    found: of `profile`.
    budgets: of `BUDGETS`: "w" (peak), "ram_bytes", "ms", "uj", "spikes" -> the
      most that is allowed.

  Returns:
    Rows {"budget", "figure", "limit", "value", "unit", "result": "pass",
    "fail" or "unknown", "label"}.  What is unknown is not passed.

  Raises:
    ConfigError: an unknown budget, or a limit that is no number above 0.
  """
  rows = []
  for name, limit in budgets.items():
    if name not in BUDGETS:
      raise ConfigError(
        f"budget {name!r}: there is no such budget; allowed are"
        f" {', '.join(BUDGETS)}"
      )
    if not (isinstance(limit, int | float) and 0 < limit < math.inf):
      raise ConfigError(
        f"budget {name!r}: found {limit!r}; allowed is a number above 0"
      )
    figure, unit = BUDGETS[name]
    value = found["figures"][figure].value
    result = "unknown"
    if value is not None:
      result = "pass" if value <= limit else "fail"
    rows.append(
      {
        "budget": name,
        "figure": figure,
        "limit": limit,
        "value": value,
        "unit": unit,
        "result": result,
        "label": found["figures"][figure].label,
      }
    )
  return rows


def passed(rows: list[dict[str, Any]]) -> bool:
  """Whether every gate is passed; an unknown figure passes none."""
  return all(row["result"] == "pass" for row in rows)


def show(people, found: Mapping[str, Any], rows: list[dict[str, Any]]) -> None:
  """Prints figures and gates.

  Args:
    people: a console.
    found: of `profile`.
    rows: of `check_budgets`.
  """
  rate = "free-running"
  if found["tick_hz"] is not None:
    rate = f"{found['tick_hz']:g} ticks/s"
  body = [
    (name, f.value, f.unit, f.label) for name, f in found["figures"].items()
  ]
  columns = ("figure", ">value", "unit", "label")
  title = f"Estimated, {found['ticks']:,} ticks, {rate}"
  people.print(tables.table(title, columns, body))
  # Which form of energy was taken depends on how long a tick is.
  source = found["figures"]["energy_consumed"].source
  people.print(f"energy: {source}", markup=False)
  if rows:
    gates = [
      (r["budget"], r["value"], r["limit"], r["unit"], r["result"])
      for r in rows
    ]
    head = ("budget", ">value", ">limit", "unit", "result")
    people.print(tables.table("Budgets", head, gates))
