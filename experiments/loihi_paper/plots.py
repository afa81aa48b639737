"""Plots of loihi_tables: each function returns a matplotlib figure."""

import pathlib

from jaxnmc._extras import need
from loihi_paper import rows

_COLOURS = ("#bbbbbb", "#4477aa", "#ee6677", "#228833", "#ccbb44")


def _figure(columns: int, width: float, height: float = 3.2):
  module = need("matplotlib.figure", "plot", "--plot")
  figure = module.Figure(figsize=(width, height), layout="constrained")
  return figure, figure.subplots(1, columns, squeeze=False)[0]


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
  figure, (ax,) = _figure(1, 4.6, 4)
  base = [0.0, 0.0]
  for (name, cells), colour in zip(table.rows[:3], _COLOURS):
    height = [c.value for c in cells]
    ax.bar(table.columns[1:], height, 0.55, base, label=name, color=colour)
    base = [a + b for a, b in zip(base, height)]
  rest = dict(table.rows)
  total = rest["paper: sum"][0].value
  ax.hlines(total, -0.35, 0.35, "k", "--", label="paper, prefill: sum")
  ax.set(ylabel="W", title="One block on one chip (fitted)")
  figure.legend(fontsize="small", loc="outside lower center", ncols=2)
  return figure


def scaling(tables: list[rows.Table], mode: str):
  """Fig. 5: time per step, power per chip, energy by number of chips."""
  table = _table(tables, f"scaling_{mode}")
  figure, axes = _figure(3, 10)
  chips = [int(name) for name, _ in table.rows]
  for ax, what, unit in zip(
    axes,
    ("time per step", "power per chip", "energy per token"),
    ("us", "W/chip", "mJ"),
  ):
    routed = _column(table, f"{unit} (r)")
    ax.plot(chips, routed, "o-", ms=3, c=_COLOURS[2], label="rows of four")
    plain = _column(table, unit)
    ax.plot(chips, plain, "s--", ms=3, c=_COLOURS[1], label="one crossing")
    if unit == "us":
      bare = _column(table, "bare us")
      ax.plot(chips, bare, ":", c="k", label="published constants")
      ax.legend(fontsize="small", loc="lower right")
    ax.set(xlabel="chips, one block on each", ylabel=unit, title=what)
    ax.set_ylim(0, None)
  figure.suptitle(f"{mode}: rows of Table 4 at 1 and 24, predicted between")
  return figure


def lengths(tables: list[rows.Table]):
  """Tables 2 and 3: throughput by sequence length."""
  figure, axes = _figure(2, 11, 3.6)
  for ax, mode in zip(axes, rows.MODES):
    table = _table(tables, f"lengths_{mode}")
    at = [int(n.replace(",", "")) for n in table.columns[1:]]
    for name, cells in table.rows:
      what, _, unit = name.rpartition(", ")
      if unit == "tokens/s":
        style = "k:" if what == "ours, bare" else "o-"
        if what != "ours, F, d, x":  # the paper's own row by construction
          ax.plot(at, [c.value for c in cells], style, ms=3, label=what)
    ax.set(xscale="log", yscale="log", xlabel="sequence length", title=mode)
    ax.set_xticks(at, [f"{n:,}" for n in at], fontsize="small")
    ax.minorticks_off()
    ends = ax.get_ylim()
    ticks = [t for k in range(6) for t in (10**k, 2 * 10**k, 5 * 10**k)]
    ticks = [t for t in ticks if ends[0] < t < ends[1]]
    ax.set_yticks(ticks, [f"{t:,}" for t in ticks])
  axes[0].set_ylabel("tokens/s")
  lines, names = axes[0].get_legend_handles_labels()
  figure.legend(lines, names, fontsize="small", loc="outside right upper")
  return figure


def save(tables: list[rows.Table], folder: str) -> list[pathlib.Path]:
  """Writes all plots as PNG and returns their paths.

  Raises:
    MissingExtra: matplotlib is not installed.
  """
  figures = {
    "power": power(tables),
    "lengths": lengths(tables),
    **{f"scaling_{m}": scaling(tables, m) for m in rows.MODES},
  }
  target = pathlib.Path(folder)
  target.mkdir(parents=True, exist_ok=True)
  paths = []
  for name, figure in figures.items():
    paths.append(target / f"{name}.png")
    figure.savefig(paths[-1], dpi=130)
  return paths
