"""A plan: the number format of every site, as plain data."""

import dataclasses
import functools
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Mapping

from jaxnmc.errors import PlanError
from jaxnmc.numerics.formats import Format, NormFormat, frac_for
from jaxnmc.numerics.sigmoid import SigmoidTable
from jaxnmc.ops.observe import Role
from jaxnmc.quantize.presets import Preset
from jaxnmc.quantize.stats import Stats

_VERSION = 1


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
  """Formats of one model.

  Attributes:
    name: the rule set it came from.
    formats: site (or parameter) path -> format.
    norms: norm path -> numbers inside it.
    roles: parameter path -> its part.
    table: the sigmoid table.
    eps: eps of every norm, or None for the model's own.
  """

  name: str
  formats: Mapping[str, Format]
  norms: Mapping[str, NormFormat]
  roles: Mapping[str, Role]
  table: SigmoidTable
  eps: float | None

  def format(self, path: str) -> Format:
    """The format of a site.

    Raises:
      PlanError: the plan does not know the site.
    """
    try:
      return self.formats[path]
    except KeyError:
      raise PlanError(
        f"plan {self.name!r} has no format for site {path}; it was made for"
        " another model (or formulation): calibrate this one"
      ) from None

  def norm(self, path: str) -> NormFormat:
    """The numbers inside a norm.

    Raises:
      PlanError: the plan does not know the norm.
    """
    try:
      return self.norms[path]
    except KeyError:
      raise PlanError(
        f"plan {self.name!r} has no norm {path}; it was made for another"
        " model (or formulation): calibrate this one"
      ) from None

  def replace(self, **changes) -> "Plan":
    """A copy with some fields changed."""
    return dataclasses.replace(self, **changes)

  def with_formats(self, changes: Mapping[str, Format]) -> "Plan":
    """A copy with the formats of some sites replaced.

    Raises:
      PlanError: the plan does not know one of the sites.
    """
    for path in changes:
      self.format(path)
    return self.replace(formats={**self.formats, **changes})

  @functools.cached_property
  def fingerprint(self) -> str:
    """SHA-256 of the plan's contents; equal plans have equal fingerprints."""
    return hashlib.sha256(self.to_json().encode()).hexdigest()

  def __eq__(self, other) -> bool:
    return isinstance(other, Plan) and self.fingerprint == other.fingerprint

  def __hash__(self) -> int:
    return hash(self.fingerprint)

  def to_json(self) -> str:
    """Canonical JSON text."""
    data = {
      "version": _VERSION,
      "name": self.name,
      "eps": self.eps,
      "table": dataclasses.asdict(self.table),
      "formats": {
        k: [f.bits, f.frac, int(f.unit)] for k, f in self.formats.items()
      },
      "norms": {k: [n.frac, n.bits] for k, n in self.norms.items()},
      "roles": {
        k: [r.kind, r.site, list(r.shape), r.transform]
        for k, r in self.roles.items()
      },
    }
    return json.dumps(data, sort_keys=True, separators=(",", ":"))

  @classmethod
  def from_json(cls, text: str) -> "Plan":
    """Reads `to_json`.

    Raises:
      PlanError: the text is no plan of this version.
    """
    try:
      data = json.loads(text)
      if data["version"] != _VERSION:
        raise PlanError(
          f"plan version {data['version']!r} is not {_VERSION}; make it anew"
        )
      return cls(
        name=data["name"],
        eps=data["eps"],
        table=SigmoidTable(**data["table"]),
        formats={
          k: Format(b, f, bool(u)) for k, (b, f, u) in data["formats"].items()
        },
        norms={k: NormFormat(*v) for k, v in data["norms"].items()},
        roles={
          k: Role(kind, site, tuple(shape), transform)
          for k, (kind, site, shape, transform) in data["roles"].items()
        },
      )
    except PlanError:
      raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
      raise PlanError(f"not a plan: {error}") from error

  def save(self, path: str | os.PathLike) -> None:
    """Writes the plan; the file appears whole or not at all.

    Raises:
      OSError: the system refuses.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(self.to_json())
    os.replace(temporary, path)

  @classmethod
  def load(cls, path: str | os.PathLike) -> "Plan":
    """Reads a saved plan.

    Raises:
      PlanError: the file cannot be read, or is no plan of this version.
    """
    try:
      return cls.from_json(pathlib.Path(path).read_text())
    except OSError as error:
      raise PlanError(f"plan file {path}: {error.strerror}") from error
    except PlanError as error:
      raise PlanError(f"plan file {path}: {error}") from error


def _format(path: str, limit: float, stats: Stats, preset: Preset) -> Format:
  kinds = {role.site: role.kind for role in stats.roles.values()}
  bits = preset.act_bits
  if path.endswith(".gain"):
    bits = preset.weight_bits
  elif kinds.get(path) == "table":
    bits = preset.table_bits
  if not math.isfinite(limit):
    raise PlanError(
      f"site {path} took the value {limit} while calibrating; the parameters or"
      " inputs are broken, or the float type overflows"
    )
  if path in stats.notes.units:
    return Format(bits, bits - 1, unit=True)
  return Format(bits, frac_for(limit * (1 + preset.margin), bits))


def _sibling(path: str, name: str, formats: Mapping[str, Format]) -> str:
  """The nearest site `name` in the scopes around `path`."""
  scope = path.split(".")[:-1]
  while True:
    candidate = ".".join((*scope, name))
    if candidate in formats:
      return candidate
    if not scope:
      raise PlanError(f"site {path} aligns to {name!r}, which does not exist")
    scope = scope[:-1]


def plan(stats: Stats, preset: Preset) -> Plan:
  """Chooses a format for every site (docs/numerics.md, 3).

  Scales are powers of two, per tensor, as fine as the calibrated range (and
  the preset's margin) allows.  A site that is added to a finer one (`align`)
  takes at most that one's fraction bits, so that the sum fits.

  Args:
    stats: what `calibrate` returned.
    preset: how many bits go where, e.g. `jaxnmc.quantize.W8A16`.

  Returns:
    The plan.

  Raises:
    PlanError: a range is not finite, or a site aligns to one that is not there.
    FormatError: the preset asks for a width that no format has.
  """
  formats, norms = {}, {}
  for path, limit in sorted(stats.ranges.items()):
    if path.endswith(".mean_square"):
      norms[path.removesuffix(".mean_square")] = preset.norm
    else:
      formats[path] = _format(path, limit, stats, preset)
  for path, name in sorted(stats.notes.aligns.items()):
    other = formats[_sibling(path, name, formats)]
    mine = formats[path]
    if mine.frac > other.frac:
      formats[path] = Format(mine.bits, other.frac)
  return Plan(
    preset.name, formats, norms, dict(stats.roles), preset.table, preset.eps
  )
