"""Plots as matplotlib figures (extra `plot`); nothing is drawn on a screen."""

import io
import pathlib
from collections.abc import Mapping
from typing import Any

from jaxnmc._extras import need
from jaxnmc.report import files, tables

__all__ = ["COLOURS", "GREY", "check", "core_messages", "message_sizes", "new"]
__all__ += ["of_run", "power", "save", "send_rates", "spike_histogram"]
__all__ += ["stacked", "steps", "utilisation"]

# Paul Tol's "bright" scheme: told apart by colour-blind people, too.
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")
GREY = "#bbbbbb"
_DPI = 130
_PANELS = 24  # chips that are drawn


def new(
  columns: int = 1, width: float = 6.4, height: float = 3.6, rows: int = 1
) -> tuple[Any, list[Any]]:
  """An empty figure.

  Args:
    columns: panels side by side.
    width: of the figure, inches.
    height: of the figure, inches.
    rows: panels one above the other.

  Returns:
    (figure, its axes row by row).

  Raises:
    MissingExtra: matplotlib is not installed.
  """
  module = need("matplotlib.figure", "plot", "a plot")
  figure = module.Figure(figsize=(width, height), layout="constrained")
  return figure, figure.subplots(rows, columns, squeeze=False).ravel().tolist()


def check(folder: str) -> None:
  """Refuses what `save` could not do, before the work is done.

  Raises:
    MissingExtra: matplotlib is not installed.
    OutputError: the folder takes no file, or its parent does not exist.
  """
  files.check_folder(folder)
  need("matplotlib.figure", "plot", "a plot")


def save(figures: Mapping[str, Any], folder: str) -> list[pathlib.Path]:
  """Writes figures as PNG, each whole or not at all; returns their paths.

  Args:
    figures: name of the file, without its ending -> figure.
    folder: made where it is not there yet.

  Raises:
    OutputError: the system refuses.
  """
  target = files.make_folder(folder)
  paths = []
  for name, figure in figures.items():
    data = io.BytesIO()
    figure.savefig(data, dpi=_DPI, format="png")
    paths.append(target / f"{name}.png")
    files.write_bytes(str(paths[-1]), data.getvalue())
  return paths


def of_run(data: dict[str, Any]) -> dict[str, Any]:
  """All plots of a run.

  Args:
    data: result of `jaxnmc run --backend loihi`, with "activity" and "mesh".

  Returns:
    Name -> figure, those left out for which nothing was counted.
  """
  done, mesh = data["activity"], data["mesh"]
  made = {}
  if mesh["chips"]:
    made["cores"] = utilisation(mesh)
  for name, draw in (
    ("steps", steps),
    ("power", power),
    ("core_messages", core_messages),
  ):
    if done[name] is not None:
      made[name] = draw(done[name])
  if done["messages"] is not None:
    made["message_sizes"] = message_sizes(done["messages"])
    made["send_rates"] = send_rates(done["messages"])
  return made


def utilisation(mesh: dict[str, Any]):
  """Weights walked per token by every core, where it lies on its chip.

  Args:
    mesh: of `meshmap.collect`.

  Returns:
    matplotlib figure; a panel per chip, 24 at most.
  """
  chips = mesh["chips"][:_PANELS]
  # A router has two rows of two cores.
  across = 2 * mesh["columns"]
  down = mesh["rows"] * max(1, mesh["cores_per_router"] // 2)
  wide = min(len(chips), 4)
  high = -(-len(chips) // wide)
  size = 6.4 if wide == 1 else 3.0
  figure, axes = new(wide, size * wide + 1, (0.62 * size + 0.4) * high, high)
  most = max((max(c["walked"], default=0) for c in mesh["chips"]), default=0)
  for ax, chip in zip(axes, chips):
    grid = [[float("nan")] * across for _ in range(down)]
    for core in range(mesh["cores"]):
      router, place = divmod(core, mesh["cores_per_router"])
      y, x = divmod(router, mesh["columns"])
      stored = chip["stored"][core] if core < len(chip["stored"]) else 0
      if stored:
        grid[2 * y + place // 2][2 * x + place % 2] = chip["walked"][core]
    image = ax.imshow(grid, vmin=0, vmax=most or 1, cmap="viridis")
    ax.set(title=f"chip {chip['chip']}", xticks=[], yticks=[])
    for x in range(2, across, 2):
      ax.axvline(x - 0.5, color="w", lw=1)
    for y in range(2, down, 2):
      ax.axhline(y - 0.5, color="w", lw=1)
  for ax in axes[len(chips) :]:
    ax.set_axis_off()
  bar = figure.colorbar(image, ax=axes, shrink=0.8)
  bar.set_label("weights walked per token")
  left = len(mesh["chips"]) - len(chips)
  more = f"; {left} more chips are not drawn" if left else ""
  figure.suptitle(f"Cores on the mesh (white: no weights){more}")
  return figure


def steps(data: dict[str, Any]):
  """Time per step over the run, coloured by the term that set it.

  Args:
    data: of `activity.steps`.

  Returns:
    matplotlib figure.
  """
  figure, (ax,) = new(1, 9, 3.4)
  ends = data["ends"]
  base = [0.0] * len(ends)
  for colour, (name, values) in zip(COLOURS, data["us"].items()):
    top = [a + b for a, b in zip(base, values)]
    ax.stairs(
      top, [0, *ends], baseline=base, fill=True, color=colour, label=name
    )
    base = top
  first = data["prompt_steps"]
  if 0 < first < data["steps"]:
    ax.axvline(first, color="k", ls=":", label="writing begins")
  ax.set(xlabel="time step", ylabel="us per step", xlim=(0, data["steps"]))
  ax.set(title=f"Time per step ({data['label']}), by the term that set it")
  ax.xaxis.set_major_formatter("{x:,.0f}")
  figure.legend(fontsize="small", loc="outside right upper")
  return figure


def power(data: dict[str, Any]):
  """Mean power of both modes, split into what it is drawn for.

  Args:
    data: of `activity.power`.

  Returns:
    matplotlib figure.
  """
  parts = {
    part: [mode[part] for mode in data["rows"].values()]
    for part in next(iter(data["rows"].values()))
  }
  return stacked(list(data["rows"]), parts, f"Mean power ({data['label']})")


def stacked(names: list[str], parts: Mapping[str, list[float]], title: str):
  """Stacked bars in W.

  Args:
    names: of the bars.
    parts: what a part is -> its value in each bar.
    title: of the plot.

  Returns:
    matplotlib figure with one panel.
  """
  figure, (ax,) = new(1, 4.6, 4)
  base = [0.0] * len(names)
  for (part, height), colour in zip(parts.items(), (GREY, *COLOURS)):
    ax.bar(names, height, 0.55, base, label=part, color=colour)
    base = [a + b for a, b in zip(base, height)]
  for name, total in zip(names, base):
    text = f"{tables.number(float(total))} W"
    above = {"xytext": (0, 7), "textcoords": "offset points"}
    ax.annotate(text, (name, total), ha="center", va="bottom", **above)
  ax.set(ylabel="W", title=title)
  ax.set_ylim(0, 1.1 * ax.get_ylim()[1])
  figure.legend(fontsize="small", loc="outside lower center", ncols=2)
  return figure


def core_messages(data: dict[str, Any]):
  """Messages out and in per token, core by core.

  Args:
    data: of `activity.core_messages`.

  Returns:
    matplotlib figure.
  """
  figure, axes = new(1, 9, 4.4, rows=2)
  at = range(len(data["cores"]))
  for ax, kind, colour in zip(axes, ("out", "in"), COLOURS):
    ax.bar(at, data[kind] or [0.0] * len(at), 1.0, color=colour)
    known = "" if data[kind] else " (not counted)"
    ax.set(ylabel="messages per token", title=f"messages {kind}{known}")
    ax.set_xlim(-0.5, len(at) - 0.5)
  axes[-1].set_xlabel("cores in use, in order of their numbers")
  return figure


def message_sizes(data: dict[str, Any]):
  """How many bits the values of each role have.

  Args:
    data: of `activity.messages`.

  Returns:
    matplotlib figure: a row per role, shares of its values.
  """
  most = max(k for r in data["roles"] for k, n in enumerate(r["bits"]) if n)
  rows = [row["bits"][: most + 1] for row in data["roles"]]
  ticks = [*range(0, most + 1, 2)]
  figure, ax = _shades(data["roles"], rows, "% of the values")
  ax.set_xticks(ticks)
  ax.set(xlabel="bits of the magnitude (0: not sent)")
  ax.set_title(f"How large messages are, {data['tokens']:,} tokens")
  return figure


def send_rates(data: dict[str, Any]):
  """How often the neurons of each role send.

  Args:
    data: of `activity.messages`.

  Returns:
    matplotlib figure: a row per role, shares of its neurons.
  """
  rows = [row["rates"] for row in data["roles"]]
  figure, ax = _shades(data["roles"], rows, "% of the neurons")
  places = {0: "never", 5.5: "25", 10.5: "50", 15.5: "75", 21: "always"}
  ax.set_xticks([*places], [*places.values()])
  ax.set(xlabel="% of the tokens in which a neuron sent")
  ax.set_title(f"How often neurons send, {data['tokens']:,} tokens")
  return figure


def spike_histogram(rows: list[dict[str, Any]]):
  """How many of their ticks neurons fired in, by site.

  Args:
    rows: of `firing.spike_histogram`.

  Returns:
    matplotlib figure: a row per site, shares of its neurons and tokens.
  """
  most = max(row["ticks"] for row in rows)
  names = [{"role": f"{row['layer']}.{row['site']}"} for row in rows]
  times = [row["times"] + [0] * (most - row["ticks"]) for row in rows]
  figure, ax = _shades(names, times, "% of neurons and tokens")
  ax.set(xlabel="spikes of a neuron for a token")
  ax.set_title("How often neurons fire (measured)")
  return figure


def _shades(roles, rows, unit: str):
  """A row per role, as dark as the cell's share of it, in percent."""
  longest = max(len(row["role"]) for row in roles)
  wide = 6.5 + 0.075 * longest
  figure, (ax,) = new(1, wide, 1.2 + 0.21 * len(rows))
  shares = [
    [100 * n / max(1, sum(row)) or float("nan") for n in row] for row in rows
  ]
  image = ax.imshow(shares, aspect="auto", vmin=0, vmax=100, cmap="viridis_r")
  names = [f"{row['role']}" for row in roles]
  ax.set_yticks(range(len(names)), names, fontsize="small")
  figure.colorbar(image, ax=ax).set_label(unit)
  return figure, ax
