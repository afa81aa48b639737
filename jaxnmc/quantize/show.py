"""A plan as people read it: sites folded over layers, and what differs."""

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from jaxnmc.numerics.float_formats import Float, Scaled, SiteFormat
from jaxnmc.numerics.formats import Format
from jaxnmc.quantize.plan import Plan

_LAYER = re.compile(r"(.*\blayers\.)(\d+)(\..*)")


class Row(NamedTuple):
  """Sites of one name and one format in several layers.

  Attributes:
    site: path; the layers' numbers as "0-3,5".
    number: how many sites.
    format: the format, as text.
    step: distance of two codes, None for float or several scales.
    largest: largest value, None as for step.
  """

  site: str
  number: int
  format: str
  step: float | None
  largest: float | None


class Change(NamedTuple):
  """What differs between two plans: a field or folded sites."""

  what: str
  before: str
  after: str


def rows(plan: Plan) -> list[Row]:
  """The formats of a plan, norms' insides among them, folded over layers."""
  return [
    Row(site, number, str(fmt), *_extent(fmt))
    for site, number, fmt in _folded(_everything(plan))
  ]


def settings(plan: Plan) -> dict[str, str]:
  """What a plan says besides formats: field -> text."""
  table = plan.table
  return {
    "name": plan.name,
    "integers everywhere": "yes" if plan.integers else "no",
    "eps of norms": "the model's" if plan.eps is None else f"{plan.eps:g}",
    "sigmoid": "exact"
    if table is None
    else f"table of {table.segments} segments, {table.in_frac} input and"
    f" {table.out_frac} output fraction bits, spacing 2^{table.spacing}",
    "dynamic quantiser": "kept" if plan.dynamic else "none",
    "stored in": plan.dtype or "float as it comes",
    "calibration": (plan.calibration or "unknown")[:12],
    "model": f"{len(plan.roles)} parameters",
    "fingerprint": plan.fingerprint[:12],
  }


def text(plan: Plan) -> str:
  """The plan as a table of plain text."""
  lines = [f"{k}: {v}" for k, v in settings(plan).items()]
  found = rows(plan)
  wide = max([len("site"), *(len(r.site) for r in found)])
  form = max([len("format"), *(len(r.format) for r in found)])
  lines += ["", f"{'site':{wide}}  {'format':{form}}  largest"]
  for row in found:
    largest = "" if row.largest is None else f"{row.largest:.4g}"
    lines.append(f"{row.site:{wide}}  {row.format:{form}}  {largest}".rstrip())
  return "\n".join(lines)


def diff(before: Plan, after: Plan) -> list[Change]:
  """What differs between two plans, sites folded over layers.

  Plans of two models differ in `model`; sites that one lacks are "absent".
  """
  a, b = settings(before), settings(after)
  changes = [
    Change(k, a[k], b[k])
    for k in a
    if a[k] != b[k] and k not in ("fingerprint", "model")
  ]
  if before.calibration == after.calibration:
    changes = [c for c in changes if c.what != "calibration"]
  for path in sorted(before.roles.keys() | after.roles.keys()):
    shapes = [
      list(p.roles[path].shape) if path in p.roles else "absent"
      for p in (before, after)
    ]
    if shapes[0] != shapes[1]:
      changes.append(Change(f"model: {path}", *map(str, shapes)))
      break
  old, new = _everything(before), _everything(after)
  pairs = {
    path: (_name(old.get(path)), _name(new.get(path)))
    for path in sorted(old.keys() | new.keys())
    if old.get(path) != new.get(path)
  }
  return changes + [
    Change(site if number == 1 else f"{site} ({number})", *pair)
    for site, number, pair in _folded(pairs)
  ]


def _everything(plan: Plan) -> dict[str, Any]:
  norms = {f"{k}.mean_square": n or Float() for k, n in plan.norms.items()}
  return dict(sorted({**plan.formats, **norms}.items()))


def _name(fmt) -> str:
  return "absent" if fmt is None else str(fmt)


def _extent(fmt: SiteFormat) -> tuple[float | None, float | None]:
  """(step, largest value) of a format with one scale."""
  if isinstance(fmt, Format):
    return 2.0**-fmt.frac, fmt.high * 2.0**-fmt.frac
  if isinstance(fmt, Scaled) and len(fmt.scales) == 1:
    return fmt.scales[0], fmt.high * fmt.scales[0]
  return None, None


def _folded(by_path: Mapping[str, Any]) -> list[tuple[str, int, Any]]:
  """(path with layers' numbers, how many, value), equal ones together."""
  groups: dict[tuple, list[int]] = {}
  for path, value in by_path.items():
    match = _LAYER.fullmatch(path)
    if match is None:
      groups[path, None, value] = []
    else:
      key = (match[1], match[3], value)
      groups.setdefault(key, []).append(int(match[2]))
  found = []
  for (head, tail, value), layers in groups.items():
    if tail is None:
      found.append((head, 1, value))
    else:
      found.append((f"{head}{_spans(layers)}{tail}", len(layers), value))
  return found


def _spans(numbers: Iterable[int]) -> str:
  """0, 1, 2, 5 -> "0-2,5"."""
  parts = []
  ordered = enumerate(sorted(numbers))
  for _, pairs in itertools.groupby(ordered, lambda pair: pair[1] - pair[0]):
    run = [n for _, n in pairs]
    parts.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
  return ",".join(parts)
