"""Variants of the recipe: what is asked for, and what is shown of them."""

import pathlib
from collections.abc import Sequence
from typing import Any

from jaxnmc.errors import UserError
from jaxnmc.models.gpt_config import CHOICES, MAX_TICKS
from jaxnmc.report import plots, tables
from neurt import show
from neurt.energies import CLAIMED

_FIELDS = ("ticks", "neuron", "signed", "surrogate", "share", "windows", "seed")
_LOG = (10, 20, 50, 100)
_BAND = 10.0  # of perplexity, in per cent: that of the paper


def parse(given: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
  """(name, changes of the recipe) of each variant, from FIELD=A,B.

  Raises:
    UserError: there is no such field, or no such value of it.
  """
  found: list[tuple[str, dict[str, Any]]] = []
  for text in given:
    field, _, values = text.partition("=")
    if field not in _FIELDS or not values:
      raise UserError(
        f"--vary {text}: found {field!r}; allowed are {', '.join(_FIELDS)},"
        " each with values, as ticks=2,8"
      )
    for value in values.split(","):
      # "sigmoid" says enough, "2" does not.
      name = value if field in CHOICES else f"{field} {value}"
      found.append((name, {field: _value(field, value)}))
  return found


def _value(field: str, text: str) -> Any:
  """A value of the type and range of its field."""
  words = {"signed": {"true": True, "false": False}, "windows": {"none": None}}
  choices = words.get(field) or {k: k for k in CHOICES.get(field, ())}
  if choices:
    if text not in choices:
      raise UserError(
        f"--vary {field}: found {text!r}; allowed: {', '.join(choices)}"
      )
    return choices[text]
  low, high = {"ticks": (1, MAX_TICKS), "share": (0, 100)}.get(
    field, (0, 2**31)
  )
  try:
    number = float(text) if field == "share" else int(text)
  except ValueError:
    number = -1
  if not low <= number <= high:
    raise UserError(
      f"--vary {field}: found {text!r}; allowed are numbers from {low} to"
      f" {high}"
    )
  return number


def _saved(row: dict[str, Any]) -> dict[str, float]:
  return row["energy"]["quadratic"]["savings"]


def tables_of(found: dict[str, Any]) -> None:
  """Prints what came out."""
  people = tables.console()
  rows = found["rows"]
  first = rows[0]["attention"]
  title = (
    f"{found['settings']['steps']} steps each; {first['ids']:,} ids in"
    f" {first['documents']} documents; perplexity against the teacher's, %"
    " (measured)"
  )
  head = ("model", "variant", ">attention", ">and blocks", ">control")
  head += (">same, %", ">cosine")
  body = [
    (
      f"{row['parameters'] / 1e6:.2f} M",
      row["variant"],
      show.percent(row["attention"]["change"]),
      show.percent(row["all"]["change"]),
      show.percent(row["control"]["change"]) if row["control"] else "",
      f"{100 * row['all']['agreement']['value']:.1f}",
      f"{row['all']['cosine_hidden']:.3f}",
    )
    for row in rows
  ]
  people.print(tables.table(title, head, body))
  title = (
    "energy saved in the attention core: arithmetic, with memory, and so"
    " against 8-bit (modelled, 45 nm, measured rates)"
  )
  head = ("model", "variant", ">ticks", ">rates of q, k, v", ">T s")
  head += (">saved, %", ">memory", ">8-bit")
  rates = lambda row: " ".join(
    f"{row['attention']['rates'][name]:.2f}" for name in "qkv"
  )
  body = [
    (
      f"{row['parameters'] / 1e6:.2f} M",
      row["variant"],
      str(row["attention"]["attention_ticks"]),
      rates(row),
      f"{row['energy']['quadratic']['drive']:.2f}",
      f"{100 * _saved(row)['arithmetic']:.1f}",
      f"{100 * _saved(row)['with memory']:.1f}",
      f"{100 * _saved(row)['bit-matched with memory']:.1f}",
    )
    for row in rows
  ]
  people.print(tables.table(title, head, body))


def plot(found: dict[str, Any], folder: str) -> list[pathlib.Path]:
  """Quality against size; quality and savings against ticks; other variants."""
  figure, axes = plots.new(3, 11.5, 3.6)
  rows = found["rows"]
  bases = [row for row in rows if not row["changes"]]
  bases.sort(key=lambda row: row["parameters"])
  _sizes(axes[0], bases)
  _ticks(axes[1], [rows[0], *(r for r in rows if "ticks" in r["changes"])])
  others = [r for r in rows if r["changes"] and "ticks" not in r["changes"]]
  _others(axes[2], [rows[0], *others])
  return plots.save({"neurtransformer_variants": figure}, folder)


def _points(ax, x, rows, name: str, colour: str, label: str) -> None:
  values = [100 * row[name]["change"]["value"] for row in rows]
  errors = [100 * (row[name]["change"]["spread"] or 0) for row in rows]
  ax.errorbar(
    x, values, errors, fmt="-o", ms=4, color=colour, label=label, capsize=2
  )


def _band(ax) -> None:
  ax.axhspan(-_BAND, _BAND, color=plots.GREY, alpha=0.15, lw=0, zorder=0)
  ax.axhline(0, color="black", lw=0.6)


def _sizes(ax, rows) -> None:
  x = [row["parameters"] / 1e6 for row in rows]
  kinds = ("attention", "all", "control")
  names = ("attention spikes", "and blocks", "control: dense")
  for kind, label, colour in zip(kinds, names, plots.COLOURS):
    _points(ax, x, rows, kind, colour, label)
  _band(ax)
  ax.set_xscale("log")
  ax.set_xticks(x, [f"{n:.1f}" for n in x])
  ax.minorticks_off()
  ax.set_xlabel("million parameters")
  ax.set_ylabel("perplexity against the teacher, %")
  ax.legend(fontsize=8)


def _ticks(ax, rows) -> None:
  rows = sorted(rows, key=lambda row: row["attention"]["attention_ticks"])
  x = [row["attention"]["attention_ticks"] for row in rows]
  _points(ax, x, rows, "attention", plots.COLOURS[0], "perplexity, change")
  _band(ax)
  names = ("arithmetic", "with memory")
  for name, style in zip(names, ("--s", ":^")):
    saved = [100 * _saved(row)[name] for row in rows]
    label = f"saved, {name}"
    ax.plot(x, saved, style, ms=4, color=plots.COLOURS[1], label=label)
  for claim in CLAIMED:
    ax.axhline(100 * claim, color=plots.GREY, lw=0.8, zorder=0)
  ax.set_xscale("log", base=2)
  ax.set_xticks(x, [str(n) for n in x])
  ax.set_xlabel("ticks of attention")
  ax.set_ylabel("%")
  ax.legend(fontsize=8)


def _others(ax, rows) -> None:
  y = range(len(rows))[::-1]
  values = [100 * row["attention"]["change"]["value"] for row in rows]
  errors = [100 * (row["attention"]["change"]["spread"] or 0) for row in rows]
  ax.errorbar(
    values, y, xerr=errors, fmt="o", ms=4, color=plots.COLOURS[0], capsize=2
  )
  ax.set_yticks(y, [row["variant"] for row in rows], fontsize=8)
  if min(values) > 0:
    ax.set_xscale("log")  # one that fails does not hide the others
    ax.set_xticks(_LOG, map(str, _LOG))
    ax.minorticks_off()
    ax.set_xlim(min(_LOG[0], min(values) / 1.2), max(values) * 1.2)
  ax.set_xlabel("perplexity against the teacher, %")
