"""Cores and links of every chip, drawn where they lie: inline SVG."""

from collections.abc import Sequence
from html import escape
from typing import Any

from jaxnmc.chip.routing import routes
from jaxnmc.chip.routing.links import LinkLoads, link_loads
from jaxnmc.errors import UserError
from jaxnmc.report.tables import number
from jaxnmc.report.trace import link_name

__all__ = ["collect", "draw"]

_MOST = 48  # chips that are drawn
_FEW, _LARGE = 2, 1.6  # so many chips are drawn larger
_CELL, _GAP, _EDGE = 11, 13, 8  # a core, the room for links, the rim
_TOP = 18  # height of a chip's title
_WIDEST = 4.0  # the busiest link


def collect(counters, placement) -> dict[str, Any]:
  """What `draw` needs, ready for JSON.

  Args:
    counters: of a run.
    placement: of the same run.

  Returns:
    "columns", "rows", "cores_per_router" and "cores" of a chip; per chip in
    use "chips" (number, layers, "walked" per token and "stored" weights of
    each core, "links": words per token, routers x 4 directions); "busiest"
    links; "facts" (rows); "note": why there is nothing, else None.
  """
  empty: dict[str, Any] = {"chips": [], "busiest": [], "facts": []}
  try:
    mesh, _ = routes.layout(placement.hardware)
  except UserError as error:
    return empty | {"note": str(error)}
  loads, note = None, None
  try:
    loads = link_loads(counters, placement)
  except UserError as error:
    note = str(error)
  tokens, per = max(1, counters.tokens), mesh.cores
  walked = counters.by("core", "synops_stored", placement) / tokens
  stored = placement.sum_by(placement.tile_core, placement.stored)
  chips = []
  for row in placement.table():
    if row["chip"] == "host":
      continue
    chip = row["chip"]
    part = slice(chip * per, (chip + 1) * per)
    chips.append(
      {
        "chip": chip,
        "layers": row["layers"],
        "walked": walked[part].tolist(),
        "stored": stored[part].tolist(),
        "links": _words(loads, chip, tokens),
      }
    )
  facts = [
    {"fact": k, "value": f.value, "unit": f.unit, "kind": f.kind}
    | {"source": f.source}
    for k, f in routes.ROUTE_FACTS.items()
  ]
  return {
    "columns": mesh.columns,
    "rows": mesh.rows,
    "cores_per_router": mesh.cores_per_router,
    "cores": per,
    "chips": chips,
    "busiest": _busiest(loads, tokens),
    "facts": facts,
    "note": note,
  }


def _words(loads: LinkLoads | None, chip: int, tokens: int):
  if loads is None:
    return None
  return (loads.words["mesh"][chip] / tokens).tolist()


def _busiest(loads: LinkLoads | None, tokens: int) -> list[dict[str, Any]]:
  """The links with most words, of each kind."""
  if loads is None:
    return []
  rows = []
  for kind in ("mesh", "chip"):
    for row in loads.ranking(3, [kind]):
      if row["words"]:
        rows.append(
          {
            "chip": row["chip"],
            "link": link_name(row, loads.mesh.columns),
            "messages_per_token": row["messages"] / tokens,
            "words_per_token": row["words"] / tokens,
          }
        )
  return rows


def draw(data: dict[str, Any]) -> str:
  """The chips side by side, all on one scale.

  Args:
    data: of `collect`.

  Returns:
    HTML with inline SVG; text where there is nothing to draw.
  """
  chips = data["chips"][:_MOST]
  if not chips:
    return f"<p>{escape(data['note'] or 'no chip is in use')}</p>\n"
  most = max((max(c["walked"], default=0) for c in data["chips"]), default=0)
  words = [w for c in data["chips"] for row in c["links"] or () for w in row]
  widest = max(words, default=0.0)
  scale = _LARGE if len(chips) <= _FEW else 1.0
  parts = [
    _chip(data, chip, most or 1.0, widest or 1.0, scale) for chip in chips
  ]
  left = len(data["chips"]) - len(chips)
  more = f"<p>{left} more chips are not drawn.</p>\n" if left else ""
  return (
    f'<div class="chips">{"".join(parts)}</div>\n{more}'
    + _legend(most, widest)
    + (f'<p class="sub">{escape(data["note"])}</p>\n' if data["note"] else "")
  )


def _legend(most: float, widest: float) -> str:
  """The scale of colours, and of the links where there are any."""
  squares = "".join(
    f'<rect x="{k * 16}" y="3" width="14" height="14" fill="var(--bar)"'
    f' fill-opacity="{_shade(k / 5):.3f}"/>'
    for k in range(6)
  )
  text = f"0 to {number(most)} weights walked per token"
  lines = ""
  if widest:
    lines = (
      '<line x1="0" y1="30" x2="94" y2="30" stroke="var(--link)"'
      f' stroke-width="{_WIDEST}"/><text x="104" y="34">'
      f"{escape(number(widest))} words per token, the busiest link of a"
      " mesh</text>"
    )
  height = 40 if lines else 22
  return (
    f'<svg viewBox="0 0 560 {height}" width="560" height="{height}"'
    f' role="img">{squares}<text x="104" y="15">{escape(text)}</text>{lines}'
    "</svg>\n"
  )


def _shade(share: float) -> float:
  return 0.06 + 0.94 * share


def _chip(data: dict[str, Any], chip, most, widest, scale: float) -> str:
  """One chip: its routers' links under its cores."""
  pitch = 2 * _CELL + _GAP  # two rows of two cores, and their links
  wide = data["columns"] * pitch - _GAP + 2 * _EDGE
  high = data["rows"] * pitch - _GAP + 2 * _EDGE + _TOP
  corner = lambda router: (
    _EDGE + router % data["columns"] * pitch,
    _TOP + _EDGE + router // data["columns"] * pitch,
  )
  drawn = [
    f'<rect x="0.5" y="{_TOP + 0.5}" width="{wide - 1}"'
    f' height="{high - _TOP - 1}" rx="4" fill="none" stroke="var(--line)"/>'
  ]
  for router, row in enumerate(chip["links"] or ()):
    x, y = corner(router)
    drawn += _links(data, chip["chip"], router, row, (x, y), widest)
  for core in range(data["cores"]):
    router, place = divmod(core, data["cores_per_router"])
    x, y = corner(router)
    x, y = x + place % 2 * _CELL, y + place // 2 * _CELL
    drawn.append(_core(data, chip, core, (x, y), most))
  for router in range(data["columns"] * data["rows"]):
    if router * data["cores_per_router"] >= data["cores"]:
      x, y = corner(router)
      drawn.append(
        f'<circle cx="{x + _CELL}" cy="{y + _CELL}" r="2" fill="var(--line)"/>'
      )
  title, layers = f"chip {chip['chip']}", chip["layers"]
  if layers:
    title += f": {'layers ' * layers[0].isdigit()}{layers}"
  return (
    f'<svg viewBox="0 0 {wide} {high}" width="{wide * scale:g}"'
    f' height="{high * scale:g}" role="img">'
    f'<text x="1" y="12">{escape(_short(title))}</text>'
    f"{''.join(drawn)}</svg>\n"
  )


def _short(text: str) -> str:
  return text if len(text) <= 40 else text[:39] + "…"


def _core(data, chip, core: int, at, most: float) -> str:
  """A square, darker the more weights it walks; empty without any."""
  x, y = at
  walked = chip["walked"][core] if core < len(chip["walked"]) else 0.0
  stored = chip["stored"][core] if core < len(chip["stored"]) else 0
  row, column = divmod(core // data["cores_per_router"], data["columns"])
  text = f"chip {chip['chip']}, core {core} at router {column},{row}:"
  if stored or walked:
    text += (
      f" {number(float(walked))} weights walked per token"
      f" ({100 * walked / most:.3g} % of the busiest core),"
      f" {number(int(stored))} stored"
    )
    fill = f'fill="var(--bar)" fill-opacity="{_shade(walked / most):.3f}"'
  else:
    text, fill = text + " no weights", 'fill="none" stroke="var(--line)"'
  return (
    f'<rect x="{x}" y="{y}" width="{_CELL - 1}" height="{_CELL - 1}" {fill}>'
    f"<title>{escape(text)}</title></rect>"
  )


# Ends of the link in each direction: along, across, in parts of the gap.
_SIDES = ((1, 0, -1), (-1, 0, 1), (0, 1, 1), (0, -1, -1))


def _links(
  data, chip: int, router: int, row: Sequence[float], at, widest: float
) -> list[str]:
  """A line per direction, as wide as its words; the two ways side by side."""
  found = []
  half = _CELL - 0.5
  y, x = divmod(router, data["columns"])
  for (dx, dy, shift), way, words in zip(_SIDES, routes.DIRECTIONS, row):
    inside = 0 <= x + dx < data["columns"] and 0 <= y + dy < data["rows"]
    if not words or not inside:
      continue
    # From the rim of this block to that of the next one.
    far = half + _GAP + 1
    x1 = at[0] + half + dx * half + (3 * shift if dy else 0)
    y1 = at[1] + half + dy * half + (3 * shift if dx else 0)
    x2, y2 = x1 + dx * (far - half), y1 + dy * (far - half)
    width = max(0.4, _WIDEST * words / widest)
    text = (
      f"chip {chip}, router {x},{y} {way}: {number(float(words))} words per"
      f" token ({100 * words / widest:.3g} % of the busiest link)"
    )
    found.append(
      f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"'
      f' stroke="var(--link)" stroke-width="{width:.2f}">'
      f"<title>{escape(text)}</title></line>"
    )
  return found
