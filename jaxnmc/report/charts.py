"""Charts of `activity` as inline SVG: colours follow the page's theme."""

from collections.abc import Sequence
from html import escape
from statistics import fmean
from typing import Any

from jaxnmc.report import activity
from jaxnmc.report.tables import number

__all__ = ["core_messages", "messages", "power", "rates", "steps"]

# Told apart by colour-blind people, on white and on black.
COLOURS = ("#3b7dd8", "#d9772b", "#2f9e6e", "#c9a227", "#9d5fc4", "#8a8f98")
_LEFT, _TOP, _WIDTH, _HEIGHT = 60, 26, 720, 170
_BARS = 240  # cores, or groups of them
_LETTER = 7  # width of a letter, about


def _svg(width: float, height: float, *parts: str) -> str:
  return (
    f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}"'
    f' height="{height:g}" role="img">{"".join(parts)}</svg>\n'
  )


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
  return (
    f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
    f"{escape(text)}</text>"
  )


def _rect(x, y, width, height, fill: str, title: str = "", more="") -> str:
  head = (
    f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}"'
    f' height="{height:.2f}" fill="{fill}"{more}'
  )
  if not title:
    return head + "/>"
  return f"{head}><title>{escape(title)}</title></rect>"


def legend(names: Sequence[str]) -> str:
  """Names with the colours of `COLOURS`, in rows."""
  parts, x, y = [], 0.0, 0.0
  for name, colour in zip(names, COLOURS):
    wide = 26 + _LETTER * len(name)
    if x and x + wide > _LEFT + _WIDTH:
      x, y = 0.0, y + 20
    parts.append(_rect(x, y + 4, 12, 12, colour))
    parts.append(_text(x + 17, y + 14, name))
    x += wide + 10
  return _svg(_LEFT + _WIDTH, y + 22, *parts)


def _scale(most: float) -> tuple[float, list[float]]:
  """End of an axis that holds `most`, and its ticks."""
  if most <= 0:
    return 1.0, [0.0, 1.0]
  power = 1.0
  while power > most:
    power /= 10
  while power * 10 <= most:
    power *= 10
  step = next(s * power for s in (0.2, 0.5, 1, 2) if 5 * s * power >= most)
  count = int(-(-most // step))
  return count * step, [k * step for k in range(count + 1)]


def _axis(top: float, ticks: Sequence[float], unit: str) -> list[str]:
  """Lines and numbers of the vertical axis, its unit above it."""
  found = [_text(0, 12, unit)]
  for tick in ticks:
    y = _TOP + _HEIGHT * (1 - tick / top)
    found.append(
      f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_LEFT + _WIDTH}" y2="{y:.1f}"'
      ' stroke="var(--line)"/>'
    )
    found.append(_text(_LEFT - 6, y + 4, number(float(tick)), "end"))
  return found


def steps(data: dict[str, Any]) -> str:
  """Time per step over the run, coloured by what set it.

  Args:
    data: of `activity.steps`.

  Returns:
    HTML with inline SVG.
  """
  names = list(data["us"])
  columns = list(zip(*data["us"].values()))
  top, ticks = _scale(max(map(sum, columns)))
  parts = _axis(top, ticks, "us per step")
  at = lambda step: _LEFT + _WIDTH * step / data["steps"]
  start = 0
  for end, column in zip(data["ends"], columns):
    y = float(_TOP + _HEIGHT)
    for colour, value in zip(COLOURS, column):
      if value:
        high = _HEIGHT * value / top
        y -= high
        parts.append(_rect(at(start), y, at(end) - at(start), high, colour))
    shares = ", ".join(f"{n} {number(v)}" for n, v in zip(names, column) if v)
    title = f"steps {start:,} to {end - 1:,}: {number(sum(column))} us each"
    if len(names) > 1:
      title += f" ({shares})"
    clear = ' fill-opacity="0"'
    box = (at(start), _TOP, at(end) - at(start), _HEIGHT)
    parts.append(_rect(*box, "#000", title, clear))
    start = end
  _, marks = _scale(data["steps"])
  for mark in marks:
    # The last numbers must not meet the name of the axis.
    if mark <= 0.9 * data["steps"]:
      parts.append(
        _text(at(mark), _TOP + 16 + _HEIGHT, f"{mark:,.0f}", "middle")
      )
  edge = _LEFT + _WIDTH
  parts.append(_text(edge, _TOP + 16 + _HEIGHT, "time step", "end"))
  first = data["prompt_steps"]
  if 0 < first < data["steps"]:
    x = at(first)
    parts.append(
      f'<line x1="{x:.1f}" y1="16" x2="{x:.1f}" y2="{_TOP + _HEIGHT}"'
      ' stroke="currentColor" stroke-dasharray="3 3"/>'
    )
    late = x > _LEFT + _WIDTH / 2
    side, text = (
      ("end", "writing from here ") if late else ("start", " writing")
    )
    parts.append(_text(x + (-4 if late else 4), 12, text.strip(), side))
  return legend(names) + _svg(edge + 4, _TOP + _HEIGHT + 22, *parts)


def power(data: dict[str, Any]) -> str:
  """Mean power of both modes as bars of their parts.

  Args:
    data: of `activity.power`.

  Returns:
    HTML with inline SVG.
  """
  rows = data["rows"]
  names = list(next(iter(rows.values())))
  most = max(sum(parts.values()) for parts in rows.values()) or 1.0
  drawn, wide = [], _WIDTH - 90
  for k, (mode, parts) in enumerate(rows.items()):
    x, y = float(_LEFT), 30 * k
    drawn.append(_text(_LEFT - 8, y + 17, mode, "end"))
    for colour, (name, watts) in zip(COLOURS, parts.items()):
      length = wide * watts / most
      title = f"{mode}, {name}: {number(watts)} W"
      drawn.append(_rect(x, y + 4, length, 20, colour, title))
      x += length
    total = f"{number(sum(parts.values()))} W"
    drawn.append(_text(x + 6, y + 19, total))
  return legend(names) + _svg(_LEFT + _WIDTH, 30 * len(rows) + 4, *drawn)


def core_messages(data: dict[str, Any]) -> str:
  """Messages out and in per token, core by core.

  Args:
    data: of `activity.core_messages`; of many cores, neighbours share a bar.

  Returns:
    HTML with inline SVG; nothing where they were not counted.
  """
  kinds = [(k, f"messages {k}") for k in ("out", "in") if data[k]]
  if not kinds:
    return ""
  found = legend([name for _, name in kinds])
  each = -(-len(data["cores"]) // _BARS)
  groups = range(0, len(data["cores"]), each)
  mean = lambda row: [fmean(row[g : g + each]) for g in groups]
  means = {kind: mean(data[kind]) for kind, _ in kinds}
  wide = _WIDTH / len(groups)
  top, ticks = _scale(max(map(max, means.values())))
  parts = _axis(top, ticks, "messages per token")
  for n, first in enumerate(groups):
    chip, place = divmod(data["cores"][first], data["cores_per_chip"])
    more = f" and the {each - 1} after it, mean" if each > 1 else ""
    for k, (kind, name) in enumerate(kinds):
      value = means[kind][n]
      high = _HEIGHT * value / top
      title = f"chip {chip}, core {place}{more}: {number(value)} {name}"
      title += " per token"
      x = _LEFT + wide * (n + (0.05 + 0.9 * k / len(kinds)))
      size = 0.9 * wide / len(kinds)
      y = _TOP + _HEIGHT - high
      parts.append(_rect(x, y, size, high, COLOURS[k], title))
  edge, low = _LEFT + _WIDTH, _TOP + 16 + _HEIGHT
  parts.append(_text(_LEFT, low, "first core in use"))
  parts.append(_text(edge, low, "last", "end"))
  return found + _svg(edge + 4, _TOP + _HEIGHT + 22, *parts)


def messages(data: dict[str, Any]) -> str:
  """How many bits the values of each role have: a row of shades per role.

  Args:
    data: of `activity.messages`.

  Returns:
    HTML with inline SVG.
  """
  most = max(k for r in data["roles"] for k, n in enumerate(r["bits"]) if n)
  names = ["0", *map(str, range(1, most + 1))]
  rows = [(row, row["bits"][: most + 1]) for row in data["roles"]]
  text = "bits of the magnitude; 0 was not sent"
  return _shades(names, rows, text, "values", lambda k: f"{names[k]} bits")


def rates(data: dict[str, Any]) -> str:
  """How often neurons of each role send: a row of shades per role.

  Args:
    data: of `activity.messages`.

  Returns:
    HTML with inline SVG.
  """
  names = ["0", *([""] * 20), "100"]
  for k in (4, 8, 12, 16):
    names[1 + k] = str(5 * k)
  rows = [(row, row["rates"]) for row in data["roles"]]
  text = (
    "percent of the tokens in which a neuron sent; first never, last always"
  )
  label = lambda k: f"{activity.RATES[k]} % of the tokens"
  return _shades(names, rows, text, "neurons", label)


def _shades(names, rows, axis: str, what: str, label) -> str:
  """A row per role; the stronger a cell, the larger its share."""
  longest = max(len(row["role"]) for row, _ in rows)
  left, cell, high = 10 + _LETTER * longest, 18, 18
  parts = []
  for y, (row, counts) in enumerate(rows):
    top = high * y
    total = max(1, sum(counts))
    parts.append(_text(left - 8, top + 13, row["role"], "end"))
    for k, count in enumerate(counts):
      if not count:
        continue
      share = count / total
      title = (
        f"{row['role']}, {label(k)}: {count:,} {what}, {number(100 * share)} %"
      )
      # The root keeps small shares visible; the exact one is in the title.
      shade = f' fill-opacity="{0.1 + 0.9 * share**0.5:.3f}"'
      box = (left + cell * k, top + 1, cell - 1, high - 2)
      parts.append(_rect(*box, "var(--bar)", title, shade))
    end = left + cell * len(names) + 8
    parts.append(_text(end, top + 13, f"{number(row['sent_percent'])} % sent"))
  low = high * len(rows) + 14
  for k, name in enumerate(names):
    if name:
      parts.append(_text(left + cell * (k + 0.5), low, name, "middle"))
  parts.append(_text(left, low + 18, axis))
  width = left + cell * len(names) + 140
  return _svg(width, low + 26, *parts)
