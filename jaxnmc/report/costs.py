"""What a run cost: the report of the cores, and this machine's own clock."""

import dataclasses
import functools
from typing import Any

import jaxnmc
from jaxnmc.models.generate import Generated
from jaxnmc.report import activity, meshmap, tables
from jaxnmc.report import placement as placements

# Figures with a row of their own; the others are columns of the phase table.
_SINGLE = {
  "ttft_ms": "time to the first token",
  "peak_w": "peak power",
  "memory_bytes": "synapses and neuron state",
  "memory_percent": "synapse memory of the chips in use",
  "steps_per_token": "time steps per token",
  "synops_per_token": "stored weights walked per token",
  "nonzero_percent": "of them not zero",
  "hops_per_token": "hops between routers per token",
  "link_words_per_token": "words on the busiest link per token",
  "saturations": "values clipped by their format",
}
PHASE_COLUMNS = (
  *("phase", ">tokens", ">us/step", ">ms/token", ">tokens/s"),
  *(">mJ/token", ">W", "label"),
)


def collect(found: Generated, backend) -> dict[str, Any]:
  """Cost, counters and placement of a run on the cores, ready for JSON.

  Args:
    found: what was generated; its counters are merged in order.
    backend: the `loihi` backend that generated it.

  Returns:
    "cost" (the figures and tables of `jaxnmc.cost`), "counters" (totals),
    "placement", "core_walk": stored weights walked per token by each core,
    "mesh": where the cores lie and what their links carry (`meshmap`), and
    "activity": steps, power, messages (`activity`).
  """
  counters = functools.reduce(lambda a, b: a.merge(b), found.counters)
  placed = backend.placement
  report = jaxnmc.cost(counters, placed)
  walk = counters.by("core", "synops_stored", placed) / counters.tokens
  cost = dataclasses.asdict(report)
  return {
    "cost": cost,
    "counters": {
      "tokens": counters.tokens,
      "steps": counters.steps,
      **{name: int(counters.total(name).sum()) for name in counters.names},
      "saturations": counters.saturations,
    },
    "placement": placements.summary(placed),
    "core_walk": walk.tolist(),
    "mesh": meshmap.collect(counters, placed),
    "activity": activity.collect(counters, placed, report),
  }


def phases(data: dict[str, Any]) -> list[list[Any]]:
  """Rows of the phase table: prompt, generation, whole run.

  Args:
    data: result of a command, with "cost" of `collect`.

  Returns:
    Cells in the order of `PHASE_COLUMNS`.
  """
  cost = data["cost"]
  value = lambda name: cost[name]["value"]
  tokens = cost["tokens"]
  inverse = lambda x: None if not x else 1e3 / x
  rows = []
  for phase, name in (("prefill", "prompt"), ("generate", "writing")):
    label = cost[f"{phase}_mj_per_token"]["label"]
    # A full pipeline gives a token per step, a token alone takes them all.
    ms = (
      inverse(value("prefill_tokens_per_s"))
      if phase == "prefill"
      else value("generate_ms_per_token")
    )
    rows.append(
      [
        name,
        tokens[phase],
        value(f"{phase}_step_us"),
        ms,
        value(f"{phase}_tokens_per_s"),
        value(f"{phase}_mj_per_token"),
        value(f"{phase}_w"),
        label,
      ]
    )
  total = sum(tokens.values())
  each = lambda x: None if x is None else x / total
  rows.append(
    [
      "all",
      total,
      "",
      each(value("run_ms")),
      inverse(each(value("run_ms"))),
      each(value("run_mj")),
      value("mean_w"),
      cost["run_mj"]["label"],
    ]
  )
  return rows


def singles(data: dict[str, Any]) -> list[tuple[str, str, str]]:
  """Rows (what, value with unit, label) of the other figures."""
  rows = []
  for name, text in _SINGLE.items():
    figure = data["cost"][name]
    value, unit = figure["value"], figure["unit"]
    if value is None and name == "saturations":
      continue
    if unit == "B" and value is not None:
      shown = tables.size(value)
    elif isinstance(value, float) and value.is_integer():
      shown = f"{int(value):,} {unit}"
    else:
      shown = f"{tables.number(value)} {unit}"
    rows.append((text, shown, figure["label"]))
  return rows


def host_row(data: dict[str, Any]) -> list[tuple[str, Any, str]]:
  """Rows (what, value, label) of the clock of this machine."""
  host = data["host"]
  return [
    ("seconds, compilation included", host["seconds"], host["label"]),
    ("seconds to the first token", host["first_token_s"], host["label"]),
    ("tokens/s after that", host["tokens_per_s"], host["label"]),
  ]


def show(console, data: dict[str, Any]) -> None:
  """Prints what a run cost; the last table of `run` and `demo`.

  Args:
    console: a rich console.
    data: result of a command.
  """
  title = f"{data['backend']} on this machine: {data['tokens']} tokens"
  columns = ("what", ">value", "label")
  console.print()
  console.print(tables.table(title, columns, host_row(data)))
  console.print(data["sampling"], markup=False)
  console.print()
  if data["cost"] is None:
    return
  place = data["placement"]
  console.print(
    tables.table(
      f"On {place['cores_used']} cores of {place['chips_used']}"
      f" {place['system']} chip{'s' * (place['chips_used'] > 1)}",
      columns,
      singles(data),
    )
  )
  console.print(
    tables.table("What it costs on the cores", PHASE_COLUMNS, phases(data))
  )
  for note in data["cost"]["notes"]:
    console.print(f"* {note}", markup=False)
  console.print()
