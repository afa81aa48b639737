"""Fig. 3 of the paper: layers by time steps, coloured by token, both modes."""

from typing import Any

import numpy as np

from jaxnmc._extras import need
from jaxnmc.chip import schedule
from jaxnmc.chip.network import Network
from jaxnmc.report import files

__all__ = ["figure", "save"]

_COLOURS = 10  # of the map "tab10"; then they come again
_DEEP = 64  # depths from which on tokens are shades, not colours
_MOST_TICKS = 24
_MOST = 1024  # depths that are drawn; those after them are left out


def figure(net: Network, steps: int | None = None) -> Any:
  """Which token is at which depth of the network in each time step.

  Args:
    net: the network.
    steps: time steps on the axis; as many as two tokens in a row take when not
      given.

  Returns:
    A matplotlib figure: pipelined on the left, fall-through on the right. White
    is idle. Rows are depths; a mark is where a layer begins.

  Raises:
    MissingExtra: matplotlib is not installed.
  """
  made = need("matplotlib.figure", "plot", "a plot of the schedule")
  colors = need("matplotlib.colors", "plot", "a plot of the schedule")
  maps = need("matplotlib", "plot", "a plot of the schedule").colormaps
  if steps is None:
    steps = 2 * net.steps_per_token + max(4, net.steps_per_token // 8)
    steps = min(steps, 3 * _MOST)
  deep = net.steps_per_token > _DEEP
  wheel = colors.ListedColormap(["white", *maps["tab10"].colors])
  if deep:
    wheel = maps["plasma"].with_extremes(under="white")
  fig = made.Figure(figsize=(11, 5), layout="constrained")
  axes = fig.subplots(1, 2, sharey=True)
  marks, names = _marks(net)
  for axis, mode in zip(axes, schedule.MODES):
    token = schedule.occupancy(net, mode, steps, _MOST)
    shade, low, high = token, 0.0, max(1.0, float(token.max()))
    if not deep:
      shade = np.where(token < 0, 0, 1 + token % _COLOURS)
      low, high = -0.5, _COLOURS + 0.5
    axis.pcolormesh(
      *(np.arange(steps + 1), np.arange(len(token) + 1), shade),
      cmap=wheel,
      vmin=low,
      vmax=high,
      edgecolors="none" if deep else "0.85",
      linewidth=0.3,
      rasterized=True,
    )
    stride = int(schedule.injections(net, mode, 2)[1])
    entered = -(-steps // stride)
    left = max(0, -(-(steps - net.steps_per_token + 1) // stride))
    axis.set_title(
      f"{mode}: {entered} token{'s' * (entered > 1)} entered, {left} left"
    )
    axis.set_xlabel("time step")
    axis.set_yticks(marks, names)
    axis.hlines(marks, 0, steps, color="0.4", linewidth=0.6)
    axis.set_xlim(0, steps)
    axis.set_ylim(len(token), 0)
    _label(axis, token)
  axes[0].set_ylabel("depth (steps after the token entered)")
  each = sorted(set(net.steps_per_layer))
  fig.suptitle(
    f"{net.steps_per_token} time steps per token"
    + (f", {' or '.join(map(str, each))} per layer" if each else "")
    + ("; shades are tokens, the first is darkest" if deep else "")
    + ("" if deep else "; colours are tokens")
    + (f"; first {_MOST:,} depths" if net.steps_per_token > _MOST else "")
  )
  return fig


def _marks(net: Network) -> tuple[list[int], list[str]]:
  """Depths at which layers begin, and their names."""
  starts = {n: d for n, d in net.layer_starts.items() if d < _MOST}
  each = -(-max(1, len(starts)) // _MOST_TICKS)
  found = {
    depth: f"layer {layer}"
    for k, (layer, depth) in enumerate(starts.items())
    if k % each == 0
  }
  if net.head_start is not None and net.head_start < _MOST:
    found[net.head_start] = "head"
  return list(found), list(found.values())


def _label(axis, token: np.ndarray) -> None:
  """Numbers of the tokens where they enter, if there is room."""
  if token.shape[1] > 60:
    return
  for step, n in enumerate(token[0].tolist()):
    if n >= 0:
      axis.text(step + 0.5, -0.2, str(n), ha="center", va="bottom", fontsize=6)


def save(net: Network, path: str) -> None:
  """Writes the figure; the format follows from the name (png, svg, pdf).

  Raises:
    MissingExtra: matplotlib is not installed.
    OutputError: the file cannot be written.
  """
  files.check_writable(path)
  figure(net).savefig(path, dpi=150)
