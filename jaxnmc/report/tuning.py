"""What tuning thresholds to a budget of spikes came to."""

import dataclasses
from typing import Any

from jaxnmc.models.spike_counts import Counts
from jaxnmc.report import tables
from jaxnmc.spike.budget import Found, Point

__all__ = ["searched", "show", "sites"]

STAGES = {
  "start": "as given",
  "uniform": "one multiplier for all",
  "best": "site by site",
}


def searched(found: Found) -> dict[str, Any]:
  """The three stages of a search, ready for JSON."""
  return {
    "grid": None,
    "search": {
      "measured": found.measured,
      **{name: dataclasses.asdict(getattr(found, name)) for name in STAGES},
    },
  }


def sites(before: Counts, after: Counts, point: Point) -> list[dict[str, Any]]:
  """One row per site: its multiplier, spikes per text before and after.

  Args:
    before: of the model as given.
    after: of the tuned one, on the same texts.
    point: whose multipliers it has.
  """
  texts = len(before.spikes)
  old, new = (counts.spikes.sum(0) / texts for counts in (before, after))
  return [
    {
      "layer": row["layer"],
      "site": row["site"],
      "multiplier": point.multipliers[site.key],
      "before": float(a),
      "after": float(b),
      "rate": row["rate"],
      "label": "measured",
    }
    for row, site, a, b in zip(after.rows(), after.sites, old, new, strict=True)
  ]


def show(people, data: dict[str, Any]) -> None:
  """Prints the tables.

  Args:
    people: a console.
    data: of `jaxnmc tune`.
  """
  over = {"worst": "the most of a text", "mean": "mean of texts"}[data["over"]]
  budget = data["budget"]
  most = "" if budget is None else f"; budget {budget:,.0f}"
  title = (
    f"Spikes per inference, {over}{most} ({data['texts']} texts, measured);"
    f" KL from {data['reference']}, nats"
  )
  body: list[tuple]
  columns: tuple[str, ...]
  if data["search"] is not None:
    stages = data["search"]
    body = [
      (
        text,
        round(stages[name]["spikes"]),
        f"{stages[name]['divergence']:.4f}",
        stages[name]["spikes"] <= budget,
      )
      for name, text in STAGES.items()
    ]
    columns = ("thresholds", ">spikes", ">KL", "within")
    people.print(tables.table(title, columns, body))
  else:
    fits = lambda row: "" if row["fits"] is None else row["fits"]
    body = [
      (
        *(r["ticks"], r["multiplier"], round(r["spikes"])),
        *(f"{r['divergence']:.4f}", fits(r), "*" * r["best"]),
      )
      for r in data["grid"]
    ]
    columns = (">ticks", ">multiplier", ">spikes", ">KL", "within", "best")
    people.print(tables.table(title, columns, body))
  body = [
    (
      *(r["layer"], r["site"], f"{r['multiplier']:.3f}"),
      *(round(r["before"]), round(r["after"]), f"{100 * r['rate']:.2f}"),
    )
    for r in data["sites"]
  ]
  columns = ("layer", "site", ">multiplier", ">before", ">after", ">rate %")
  people.print(tables.table("Spikes per text, mean (measured)", columns, body))
