"""Statistics and rules to a plan: a format for every site."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxnmc.errors import FormatError, PlanError
from jaxnmc.numerics.float_formats import Float, Scaled, SiteFormat
from jaxnmc.numerics.formats import (
  Format,
  NormFormat,
  frac_for,
  symmetric_limit,
)
from jaxnmc.quantize import ranges, rules
from jaxnmc.quantize.plan import Plan
from jaxnmc.quantize.presets import Preset, of_rules
from jaxnmc.quantize.rules import Rule
from jaxnmc.quantize.stats import Stats

_MEAN_SQUARE = ".mean_square"
_PERCENTILE = 99.9
_MOST_FRAC = 36
_ADJUSTED = ", adjusted"


def named(stats: Stats) -> list[tuple[str, str]]:
  """(path, kind) of every site and norm; a norm may share its result's path."""
  roles = {role.site: role.kind for role in stats.roles.values()}
  found = []
  for path in sorted(stats.ranges):
    if path.endswith(_MEAN_SQUARE):
      found.append((path.removesuffix(_MEAN_SQUARE), rules.NORM))
    elif path.endswith(".gain"):
      found.append((path, rules.GAIN))
    else:
      kind = roles.get(path)
      known = kind in (rules.DENSE, rules.TABLE, rules.CONST)
      found.append((path, str(kind) if known else rules.ACTIVATION))
  return found


def plan(stats: Stats, preset: Preset | Sequence[Rule]) -> Plan:
  """Chooses a format for every site (docs/numerics.md, 3; docs/quantize.md).

  Scales are powers of two, per tensor, as fine as the calibrated range (and
  the margin) allows, unless a rule says otherwise.  A site that is added to a
  finer one (`align`) takes at most that one's fraction bits, so that the sum
  fits.

  Args:
    stats: what `calibrate` returned.
    preset: how many bits go where, e.g. `jaxnmc.quantize.W8A16`; or rules
      alone, which leave in float what they do not give bits.

  Returns:
    The plan.

  Raises:
    PlanError: a range is not finite, a site aligns to one that is not there, a
      rule matches nothing, two disagree, or one needs what calibration did not
      keep.
    FormatError: the preset asks for a width that no format has.
  """
  if not isinstance(preset, Preset):
    preset = of_rules(preset)
  own = preset.own_rules()
  # A model need not have constants, say; blocks it must have if they are meant.
  optional = frozenset(r for r in own if r.pattern == ".*" or r.on == "const")
  found = rules.resolve((*own, *preset.rules), named(stats), optional)
  sites = {p: s for (p, kind), s in found.items() if kind != rules.NORM}
  norms = {p: s for (p, kind), s in found.items() if kind == rules.NORM}
  formats = {path: _format(path, s, stats) for path, s in sites.items()}
  _align(formats, sites, stats)
  return Plan(
    name=preset.name,
    formats=formats,
    norms={path: _inside(path, s, stats) for path, s in norms.items()},
    roles=dict(stats.roles),
    table=preset.table,
    eps=preset.eps,
    dynamic=preset.dynamic,
    dtype=preset.dtype,
    calibration=stats.digest,
  )


def adjust(made: Plan, stats: Stats, *changes: Rule) -> Plan:
  """A plan with some sites chosen anew; the others keep their formats.

  Every change overrides.  A site that gets no bits from it keeps its own.

  Args:
    made: the plan.
    stats: the statistics it was made from.
    *changes: rules, first to last.

  Returns:
    The new plan, named after the old one.

  Raises:
    PlanError: statistics of another calibration or model, or as `plan`.
    FormatError: as `plan`.
  """
  made.check_calibration(stats)
  changes = tuple(dataclasses.replace(r, override=True) for r in changes)
  found = rules.resolve(changes, named(stats))
  formats, norms = dict(made.formats), dict(made.norms)
  sites = {}
  for (path, kind), settings in found.items():
    if not settings:
      continue
    if kind == rules.NORM:
      inside = norms[path] or NormFormat()
      norms[path] = _inside(
        path, {"frac": inside.frac, "bits": inside.bits, **settings}, stats
      )
      continue
    before = made.site(path)
    if not isinstance(before, Float):
      settings = {"bits": before.bits, "floating": False, **settings}
    sites[path] = settings
    formats[path] = _format(path, settings, stats)
  _align(formats, sites, stats)
  name = made.name.removesuffix(_ADJUSTED) + _ADJUSTED
  return made.replace(name=name, formats=formats, norms=norms)


def _inside(
  path: str, settings: Mapping[str, Any], stats: Stats
) -> NormFormat | None:
  """Numbers inside a norm; None for float."""
  if settings.get("floating", True):
    return None
  bits, frac = settings.get("bits", NormFormat.bits), settings.get("frac")
  if frac is None:
    # As fine as the largest mean square allows; even, so that a root has a
    # whole number of fraction bits, too.
    limit = stats.ranges[path + _MEAN_SQUARE]
    if not math.isfinite(limit):
      raise PlanError(
        f"norm {path} had the mean square {limit} while calibrating; the"
        " parameters or inputs are broken, or the float type overflows"
      )
    most = math.log2(((1 << bits) - 1) / limit) if limit > 0 else _MOST_FRAC
    frac = max(0, min(math.floor(most) // 2 * 2, _MOST_FRAC))
  try:
    return NormFormat(frac, bits)
  except FormatError as error:
    raise FormatError(f"norm {path}: {error}") from error


def _format(path: str, settings: Mapping[str, Any], stats: Stats) -> SiteFormat:
  limit = stats.ranges[path]
  if not math.isfinite(limit):
    raise PlanError(
      f"site {path} took the value {limit} while calibrating; the parameters or"
      " inputs are broken, or the float type overflows"
    )
  if settings.get("floating", True):
    return Float()
  if path in stats.notes.wholes:
    # Spikes and counts: another format would make other numbers of them.
    most = stats.notes.wholes[path]
    bits = max(2, most.bit_length() + 1)
    # Sixteen bits end below 2^15 - 1.
    return Format(bits + (symmetric_limit(bits) < most), 0)
  if "bits" not in settings:
    raise PlanError(
      f"site {path}: a rule gives it {settings['frac']} fraction bits, but none"
      " says how many bits it has; add bits"
    )
  bits, frac = settings["bits"], settings.get("frac")
  channel = settings.get("per") == "channel"
  free = settings.get("scale") == "free"
  if path in stats.notes.units and not (channel or free):
    if frac in (None, bits - 1):
      return Format(bits, bits - 1, unit=True)
  if frac is not None:
    return Format(bits, frac)
  spare = 1 + settings.get("margin", 0.0)
  if channel:
    return _per_channel(path, settings, stats, spare)
  limit = _limit(path, settings, stats) * spare
  if not free:
    return Format(bits, frac_for(limit, bits))
  most = symmetric_limit(bits)
  return Scaled(bits, (limit / most if limit > 0 else 1 / most,))


def _per_channel(path: str, settings, stats: Stats, spare: float) -> Scaled:
  how = settings.get("calibration", "max")
  if how != "max":
    raise PlanError(
      f"site {path}: scales per channel are calibrated by max, found {how};"
      " histograms are kept per site only"
    )
  if path not in stats.channels:
    raise PlanError(
      f"site {path}: a rule asks for scales per channel, but calibration kept"
      " no channels; calibrate with channels=True"
    )
  bits = settings["bits"]
  most = symmetric_limit(bits)
  limits = [float(x) * spare for x in stats.channels[path]]
  if settings.get("scale") == "free":
    return Scaled(bits, tuple((x or 1.0) / most for x in limits))
  return Scaled(bits, tuple(2.0 ** -frac_for(x, bits) for x in limits))


def _limit(path: str, settings: Mapping[str, Any], stats: Stats) -> float:
  """The magnitude that the codes of a site shall reach."""
  top, how = stats.ranges[path], settings.get("calibration", "max")
  if how == "max":
    return top
  if path not in stats.histograms:
    raise PlanError(
      f"site {path}: a rule calibrates it by {how}, but calibration kept no"
      " histograms; calibrate with histograms=True"
    )
  counts = stats.histograms[path]
  if how == "percentile":
    share = settings.get("percentile", _PERCENTILE)
    return ranges.percentile(counts, share, top)
  free = settings.get("scale") == "free"
  return ranges.least_error(counts, settings["bits"], top, free)


def _align(formats: dict[str, SiteFormat], sites, stats: Stats) -> None:
  """Sites added to others take no more fraction bits than those have."""
  for path, name in sorted(stats.notes.aligns.items()):
    other = formats[_sibling(path, name, formats)]
    mine = formats[path]
    if not (isinstance(mine, Format) and isinstance(other, Format)):
      continue
    if mine.frac > other.frac and "frac" not in sites.get(path, ()):
      formats[path] = Format(mine.bits, other.frac)


def _sibling(path: str, name: str, formats: Mapping[str, SiteFormat]) -> str:
  """The nearest site `name` in the scopes around `path`."""
  scope = path.split(".")[:-1]
  while True:
    candidate = ".".join((*scope, name))
    if candidate in formats:
      return candidate
    if not scope:
      raise PlanError(f"site {path} aligns to {name!r}, which does not exist")
    scope = scope[:-1]
