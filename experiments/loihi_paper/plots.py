"""Plots of loihi_tables: each function returns a matplotlib figure."""

import pathlib

from jaxnmc.report import plots, schedule_plot
from loihi_paper import rows

_PANELS = (("tokens/s", "tokens/s"), ("W", "power, W"), ("mJ", "mJ/token"))


def _table(tables: list[rows.Table], name: str) -> rows.Table:
  (found,) = (t for t in tables if t.name == name)
  return found


def _column(table: rows.Table, name: str) -> list[float | None]:
  """Values of a column."""
  at = table.columns.index(name) - 1
  return [cells[at].value for _, cells in table.rows]


def power(tables: list[rows.Table]):
  """Fig. 4: parts of the power of one block on one chip."""
  table = _table(tables, "power")
  parts = {name: [c.value for c in cells] for name, cells in table.rows[:3]}
  title = "One block on one chip (fitted)"
  figure = plots.stacked(list(table.columns[1:]), parts, title)
  total = dict(table.rows)["paper: sum"][0].value
  label = "paper, prefill: sum"
  figure.axes[0].hlines(total, -0.35, 0.35, "k", "--", label=label)
  (old,) = figure.legends
  old.remove()
  figure.legend(fontsize="small", loc="outside lower center", ncols=2)
  return figure


def scaling(tables: list[rows.Table], mode: str):
  """Fig. 5: time per step, power per chip, energy by number of chips."""
  table = _table(tables, f"scaling_{mode}")
  figure, axes = plots.new(3, 10, 3.4)
  chips = [int(name) for name, _ in table.rows]
  for ax, what, unit in zip(
    axes,
    ("time per step", "power per chip", "energy per token"),
    ("us", "W/chip", "mJ"),
  ):
    routed, plain = _column(table, f"{unit} (r)"), _column(table, unit)
    name = "fitted at 1 and 24; a hop of rows of four"
    ax.plot(chips, routed, "o-", ms=3, c=plots.COLOURS[1], label=name)
    name = "fitted at 1 and 24; one crossing"
    ax.plot(chips, plain, "s--", ms=3, c=plots.COLOURS[0], label=name)
    if unit == "us":
      name = "predicted, links at published rates"
      ax.plot(chips, _column(table, "links us"), ":", c="k", label=name)
    ax.set(xlabel="chips, one block on each", ylabel=unit, title=what)
    ax.set_ylim(0, None)
  lines, names = axes[0].get_legend_handles_labels()
  where = {"loc": "outside lower center", "ncols": 3}
  figure.legend(lines, names, fontsize="small", **where)
  figure.suptitle(f"{mode}, by number of chips")
  return figure


def lengths(tables: list[rows.Table]):
  """Tables 2 and 3, Fig. 6: throughput, power and energy by length."""
  figure, axes = plots.new(2, 10, 8.5, rows=3)
  for k, (unit, label) in enumerate(_PANELS):
    for ax, mode in zip(axes[2 * k : 2 * k + 2], rows.MODES):
      table = _table(tables, f"lengths_{mode}")
      at = [int(n.replace(",", "")) for n in table.columns[1:]]
      colour = 0
      for name, cells in table.rows:
        what, _, mine = name.rpartition(", ")
        # With F, d and x it is the paper's own row, by construction.
        if mine != unit or what == "ours, F, d, x":
          continue
        style, c = "o-", plots.COLOURS[colour % len(plots.COLOURS)]
        if what == "ours, bare":
          style, c, what = ":", "k", "ours, published constants"
        else:
          colour += 1
        ax.plot(at, [c.value for c in cells], style, ms=3, c=c, label=what)
      ax.set(xscale="log", yscale="log", title=mode if not k else "")
      ax.set_ylabel(label)
      ax.set_xticks(at, [f"{n:,}" for n in at], fontsize="small")
      ax.minorticks_off()
      ends = ax.get_ylim()
      power = range(-2, 6)
      ticks = [s * 10.0**p for p in power for s in (1, 2, 5)]
      ticks = [t for t in ticks if ends[0] < t < ends[1]]
      ax.set_yticks(ticks, [f"{t:,g}" for t in ticks])
  for ax in axes[-2:]:
    ax.set_xlabel("sequence length")
  lines, names = axes[0].get_legend_handles_labels()
  where = {"loc": "outside lower center", "ncols": 3}
  figure.legend(lines, names, fontsize="small", **where)
  return figure


def save(tables: list[rows.Table], folder: str, net=None) -> list[pathlib.Path]:
  """Writes all plots as PNG and returns their paths.

  Args:
    tables: of `loihi_tables`.
    folder: made where it is not there yet.
    net: network of one block, for its schedule (Fig. 3); None: without.

  Raises:
    MissingExtra: matplotlib is not installed.
    OutputError: the folder cannot be written.
  """
  figures = {
    "power": power(tables),
    "lengths": lengths(tables),
    **{f"scaling_{m}": scaling(tables, m) for m in rows.MODES},
  }
  if net is not None:
    figures["schedule"] = schedule_plot.figure(net)
  return plots.save(figures, folder)
