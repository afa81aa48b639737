"""Tables and plots of the study."""

import pathlib
from typing import Any

import on_chip

from jaxnmc.report import plots, tables
from neurt.energies import CLAIMED

_AXES = {
  "tokens": "tokens (4 ticks, rate 0.2)",
  "ticks": "ticks (256 tokens, rate 0.2)",
  "rate": "rate (256 tokens, 4 ticks)",
}


def percent(figure: dict, digits: int = 1) -> str:
  """A share with its spread, if there is one, in per cent."""
  spread = figure["spread"]
  more = "" if spread is None else f" ± {100 * spread:.{digits}f}"
  return f"{100 * figure['value']:+.{digits}f}{more}"


def tables_of(found: dict[str, Any]) -> None:
  """Prints what came out."""
  people = tables.console()
  first = found["rows"][0]
  title = (
    f"{found['model']} ({found['parameters']:,} parameters), {found['text']}:"
    f" {first['ids']:,} ids in {first['documents']} documents (measured)"
  )
  head = ("model", ">perplexity", ">change, %", ">same, %")
  head += (">cos hidden", ">cos logits")
  body = [
    (
      row["row"],
      f"{row['perplexity']:.2f}",
      percent(row["change"]),
      f"{100 * row['agreement']['value']:.1f}",
      f"{row['cosine_hidden']:.3f}",
      f"{row['cosine_logits']:.3f}",
    )
    for row in found["rows"]
  ]
  people.print(tables.table(title, head, body))
  names = ("q", "k", "v", "out", "mlp")
  shown = lambda rates, name: f"{rates[name]:.3f}" if name in rates else "-"
  body = [
    (row["row"], *(shown(row["rates"], name) for name in names))
    for row in found["rows"]
    if row["rates"]
  ]
  title = "spikes per neuron and tick, means over layers (measured)"
  head = ("model", *(f">{name}" for name in names))
  people.print(tables.table(title, head, body))
  _both_readings(found)
  _energy(found, people)
  if found["chip"] is not None:
    on_chip.show(found["chip"])


def _both_readings(found: dict[str, Any]) -> None:
  """The paper's sentence, signed."""
  # The last two rows: all that spikes, and the control.
  tuned, control = (row["change"] for row in found["rows"][-2:])
  change = tuned["value"]
  print(
    f"perplexity: spiking and tuned {percent(tuned)} %, the dense model with"
    f" the same steps {percent(control)} %"
  )
  lower = "yes" if change <= -0.097 else "no"
  within = "yes" if change <= 0.10 else "no"
  print(
    "'a 9.7 % reduction in perplexity' read as 9.7 % lower:"
    f" {lower}; as within 9.7 % (band of 10 %): {within}"
  )


def _energy(found: dict[str, Any], people) -> None:
  one = found["energy"]
  body = []
  for form in ("quadratic", "running sum"):
    for name, saving in one[form]["savings"].items():
      body.append((form, name, f"{100 * saving:+.1f}"))
  title = (
    f"attention core over {one['tokens']} tokens at the measured rates, T s ="
    f" {one['quadratic']['drive']:.3f} (modelled, 45 nm)"
  )
  people.print(tables.table(title, ("form", "what", ">saved, %"), body))
  head = ("convention", *(f">T s for {100 * s:.2f} %" for s in CLAIMED))
  rows = [(n, f"{a:.3f}", f"{b:.3f}") for n, a, b in found["inverted"]]
  people.print(tables.table("what the claims need (modelled)", head, rows))


def plot(found: dict[str, Any], folder: str) -> list[pathlib.Path]:
  """Savings against sequence length, ticks and rate; the claims as lines."""
  figure, axes = plots.new(3, 11, 3.4)
  kinds = ("arithmetic", "with memory", "bit-matched with memory")
  for ax, (name, points) in zip(axes, found["curves"].items()):
    for kind, style, colour in zip(kinds, ("-o", "--s", ":^"), plots.COLOURS):
      saved = [100 * row[kind] for _, row in points]
      ax.plot([x for x, _ in points], saved, style, color=colour, label=kind)
    for claim in CLAIMED:
      ax.axhline(100 * claim, color=plots.GREY, lw=0.8, zorder=0)
      place = {"ha": "right", "va": "bottom", "fontsize": 7}
      where = ax.get_yaxis_transform()
      ax.text(
        *(0.99, 100 * claim, f"{100 * claim:.2f} %"), transform=where, **place
      )
    ax.axhline(0, color="black", lw=0.6)
    ax.set_xlabel(_AXES[name])
    ax.set_ylim(-150, 110)
    if name != "rate":
      ax.set_xscale("log", base=2)
      ax.set_xticks([x for x, _ in points], [str(x) for x, _ in points])
  axes[0].set_ylabel("saved in the attention core, %")
  axes[0].legend(loc="lower left", fontsize=8)
  return plots.save({"neurtransformer": figure}, folder)
