"""One HTML page, complete in itself: no script, no network, inline SVG."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from jaxnmc.report.tables import number

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bar: #3b7dd8;
  --link: #d9772b; --soft: #8882 }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: 0 } h2 { font-size: 1.1rem;
  margin-top: 2rem }
.sub { opacity: .7; margin-top: 0 }
blockquote { margin: 1rem 0; padding: .8rem 1rem; background: var(--soft);
  border-left: 4px solid var(--bar); white-space: pre-wrap }
blockquote b { font-weight: 600 }
.cards { display: flex; flex-wrap: wrap; gap: .8rem }
.card { border: 1px solid var(--line); border-radius: .5rem;
  padding: .6rem 1rem; min-width: 8rem }
.card strong { display: block; font-size: 1.3rem } .card small { opacity: .7 }
.chips { display: flex; flex-wrap: wrap; gap: .8rem; margin: .8rem 0 }
.scroll { overflow-x: auto } table { border-collapse: collapse }
th, td { padding: .2rem .8rem .2rem 0; text-align: left;
  border-bottom: 1px solid var(--line); vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
svg { max-width: 100%; height: auto } svg text { fill: currentColor;
  font: 12px system-ui, sans-serif }
code { overflow-wrap: anywhere }
"""


def _text(value: Any) -> str:
  return escape(number(value))


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
  """A table; a column name that begins with '>' is right-aligned."""
  kind = [' class="n"' if c.startswith(">") else "" for c in columns]
  head = "".join(
    f"<th{k}>{escape(c.removeprefix('>'))}</th>"
    for k, c in zip(kind, columns, strict=True)
  )
  body = "".join(
    "<tr>"
    + "".join(
      f"<td{k}>{_text(cell)}</td>" for k, cell in zip(kind, row, strict=True)
    )
    + "</tr>\n"
    for row in rows
  )
  return (
    f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n'
    f"<tbody>{body}</tbody></table></div>\n"
  )


def pairs(data: Mapping[str, Any]) -> str:
  """A table of two columns."""
  return table(("", ""), list(data.items()))


def cards(data: Sequence[tuple[str, str, str]]) -> str:
  """Large figures: (value with unit, what it is, label)."""
  return (
    '<div class="cards">'
    + "".join(
      f'<div class="card"><strong>{escape(value)}</strong>'
      f"{escape(what)}<br><small>{escape(label)}</small></div>"
      for value, what, label in data
    )
    + "</div>\n"
  )


def bars(names: Sequence[str], values: Sequence[float], unit: str) -> str:
  """Horizontal bars, one per name.

  Args:
    names: labels.
    values: >= 0.
    unit: unit of the values.

  Returns:
    Inline SVG.
  """
  left, width, step = 170, 520, 20
  top = max([*values, 0.0]) or 1.0
  # Room for the longest number behind the longest bar, at 7 units a letter.
  longest = max((len(number(v)) for v in values), default=0) + len(unit) + 1
  right = left + width + 10 + 7 * longest
  rows = []
  for k, (name, value) in enumerate(zip(names, values, strict=True)):
    y, length = k * step, max(width * value / top, 0.5 if value else 0)
    rows.append(
      f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">'
      f"{escape(str(name))}</text>"
      f'<rect x="{left}" y="{y + 3}" width="{length:.1f}" height="14"'
      f' fill="var(--bar)"/><text x="{left + length + 6:.1f}" y="{y + 14}">'
      f"{escape(number(value))} {escape(unit)}</text>"
    )
  height = step * len(names) + 4
  return (
    f'<svg viewBox="0 0 {right} {height}" role="img" width="{right}"'
    f' height="{height}">{"".join(rows)}</svg>\n'
  )


def bullets(lines: Sequence[str]) -> str:
  """An unordered list."""
  return f"<ul>{''.join(f'<li>{escape(x)}</li>' for x in lines)}</ul>\n"


def section(title: str, *parts: str) -> str:
  """A heading and what belongs under it."""
  return f"<h2>{escape(title)}</h2>\n{''.join(parts)}"


def story(prompt: str, text: str) -> str:
  """The prompt in bold and what followed it."""
  begin, rest = escape(prompt), escape(text)
  return f"<blockquote><b>{begin}</b>{rest}</blockquote>\n"


def page(title: str, subtitle: str, *parts: str) -> str:
  """The whole document."""
  return (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f"<title>{escape(title)}</title>\n<style>{_STYLE}</style></head>\n"
    f"<body>\n<h1>{escape(title)}</h1>\n"
    f'<p class="sub">{escape(subtitle)}</p>\n{"".join(parts)}'
    "</body></html>\n"
  )
