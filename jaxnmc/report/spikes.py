"""What a run of the backend `spiking` sent, by role, and three energies."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxnmc.chip.counting.histograms import role
from jaxnmc.report import tables
from jaxnmc.spike import energy, traffic

__all__ = ["COLUMNS", "ENERGY_COLUMNS", "collect", "energies", "notes"]
__all__ += ["roles", "show"]

COLUMNS = (
  *("values of", ">sites", ">bits", ">ticks", ">rate", ">spikes/token"),
  *(">synops/token", ">messages instead", "label"),
)
ENERGY_COLUMNS = (
  *("counted", ">spikes uJ/token", ">dense uJ/token", ">saved %", "label"),
)


def collect(calls: Sequence[traffic.Spikes], code: str) -> dict[str, Any]:
  """Calls of a run as JSON.

  Args:
    calls: what each call sent.
    code: name of the spike code.

  Returns:
    Totals per token; "roles": rows of equal sites in all layers; "energy": pJ
    per token; "graded": roles of the messages that are no spikes.
  """
  rows = traffic.rows_of(*calls)
  tokens = int(sum(int(call.tokens.sum()) for call in calls))
  groups: dict[str, list[traffic.Row]] = {}
  for row in rows:
    groups.setdefault(role(row.site), []).append(row)
  found = traffic.energy_of(rows)
  numbers = {
    k: v / tokens if isinstance(v, float) else v
    for k, v in dataclasses.asdict(found).items()
  }
  return {
    "label": "modelled",
    "code": code,
    "tokens": tokens,
    **_totals(rows, tokens),
    "roles": [
      {
        "role": name,
        "sites": len(group),
        "bits": sorted({row.bits for row in group}),
        "ticks": sorted({row.ticks for row in group}),
        **_totals(group, tokens),
      }
      for name, group in groups.items()
    ],
    "energy": {"unit": "pJ/token", **numbers},
    "saved": found.savings(),
    "graded": list(dict.fromkeys(map(role, calls[0].graded))),
  }


def _totals(rows: list[traffic.Row], tokens: int) -> dict[str, float]:
  """Sums over products; a site that drives two of them sends once."""
  sites = {row.site: row for row in rows}.values()
  total = lambda name, of: sum(getattr(row, name) for row in of)
  return {
    "rate": total("spikes", sites) / total("possible", sites),
    "spikes_per_token": total("spikes", sites) / tokens,
    "synops_per_token": total("synops", rows) / tokens,
    "stored_synops_per_token": total("stored_synops", rows) / tokens,
    "messages_per_token": total("messages", sites) / tokens,
    "message_synops_per_token": total("message_synops", rows) / tokens,
  }


def roles(data: dict[str, Any]) -> list[list[Any]]:
  """Rows of the table of `COLUMNS`, all together last."""
  one = lambda found: "-".join(map(str, dict.fromkeys((found[0], found[-1]))))
  shown = lambda row: [
    row["rate"],
    row["spikes_per_token"],
    row["synops_per_token"],
    row["messages_per_token"],
    data["label"],
  ]
  rows = [
    [
      row["role"],
      row["sites"],
      one(row["bits"]),
      one(row["ticks"]),
      *shown(row),
    ]
    for row in data["roles"]
  ]
  sites = sum(row["sites"] for row in data["roles"])
  return [*rows, ["all", sites, "", "", *shown(data)]]


def energies(data: dict[str, Any]) -> list[list[Any]]:
  """Rows of the table of `ENERGY_COLUMNS`."""
  found = data["energy"]
  return [
    [
      what,
      *(1e-6 * found[name] for name in pair),
      100 * data["saved"][what],
      found["label"],
    ]
    for what, pair in energy.PAIRS.items()
  ]


def notes(data: dict[str, Any]) -> tuple[str, ...]:
  """What the tables leave out."""
  graded = ", ".join(data["graded"]) or "none"
  return (
    "logits and states are the integers of fixed; a spike is -1, 0 or 1, and"
    " its synaptic operations are those with weights that are not zero",
    "energy: matrix products only, 45 nm constants (Horowitz 2014, quoted),"
    f" {data['energy']['convention']} and {data['energy']['memory']}; the"
    " bit-matched form has 8-bit weights and activations of as many bits as"
    " the sites",
    f"messages that stayed graded: {graded}",
  )


def show(console, data: dict[str, Any]) -> None:
  """Prints what was sent and what it costs.

  Args:
    console: a rich console.
    data: result of `collect`.
  """
  title = f"Spikes into matrix products, code {data['code']}"
  console.print(tables.table(title, COLUMNS, roles(data)))
  console.print(
    tables.table("Energy of these products", ENERGY_COLUMNS, energies(data))
  )
  for note in notes(data):
    console.print(f"* {note}", markup=False)
  console.print()
