"""A plan: the number format of every site, as plain data."""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from jaxnmc.errors import PlanError
from jaxnmc.numerics.float_formats import Float, Scaled, SiteFormat
from jaxnmc.numerics.formats import Format, NormFormat
from jaxnmc.numerics.sigmoid import SigmoidTable
from jaxnmc.numerics.ternary import Ternary
from jaxnmc.ops.observe import Role, path_name
from jaxnmc.quantize.presets import HALVES

_VERSION = 2
_KNOWN = (1, 2)


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
  """Formats of one model.

  Attributes:
    name: the rule set it came from.
    formats: site (or parameter) path -> format.
    norms: norm path -> numbers inside it, or None for float.
    roles: parameter path -> its part.
    table: the sigmoid table, or None for the exact function.
    eps: eps of every norm, or None for the model's own.
    dynamic: the model's dynamic quantiser of activations stays.
    dtype: half precision in which all else is stored ("float16", "bfloat16"),
      or None.
    calibration: `Stats.digest` of the calibration it came from, or None where
      that is not known (a plan of version 1, or one made by hand).
  """

  name: str
  formats: Mapping[str, SiteFormat]
  norms: Mapping[str, NormFormat | None]
  roles: Mapping[str, Role]
  table: SigmoidTable | None
  eps: float | None
  dynamic: bool = False
  dtype: str | None = None
  calibration: str | None = None

  # --- lookups

  def site(self, path: str) -> SiteFormat:
    """The format of a site, of any kind.

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

  def format(self, path: str) -> Format:
    """The integer format of a site.

    Raises:
      PlanError: the plan does not know the site, or it has no integers there.
    """
    fmt = self.site(path)
    if not isinstance(fmt, Format):
      raise PlanError(_no_integers("this", self.name, path, fmt, 0))
    return fmt

  def inside(self, path: str) -> NormFormat | None:
    """The numbers inside a norm, None for float.

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

  def norm(self, path: str) -> NormFormat:
    """The integers inside a norm.

    Raises:
      PlanError: the plan does not know the norm, or it is float inside.
    """
    inside = self.inside(path)
    if inside is None:
      raise PlanError(
        _no_integers("this", self.name, path + ".mean_square", Float(), 0)
      )
    return inside

  # --- what it can be used for

  def _not_integers(self) -> Iterator[tuple[str, Any]]:
    """What no chip computes: (what, format), sites first."""
    for path, fmt in self.formats.items():
      if not isinstance(fmt, Format):
        yield path, fmt
    for path, inside in self.norms.items():
      if inside is None:
        yield path + ".mean_square", Float()

  @functools.cached_property
  def integers(self) -> bool:
    """Whether every site has integers, so that a chip can compute them."""
    if self.table is None or self.dynamic or self.dtype is not None:
      return False
    return next(self._not_integers(), None) is None

  def need_integers(self, what: str) -> None:
    """Refuses a plan that is not integers everywhere.

    Args:
      what: who needs them, for the message.

    Raises:
      PlanError: names the first site without integers and what to do.
    """
    if self.integers:
      return
    sites = list(self._not_integers())
    if sites:
      path, fmt = sites[0]
      raise PlanError(_no_integers(what, self.name, path, fmt, len(sites) - 1))
    if self.table is None:
      reason = "has no sigmoid table"
    elif self.dynamic:
      reason = "keeps the dynamic quantiser of activations (dynamic=True)"
    else:
      reason = f"stores values in {self.dtype}"
    raise PlanError(
      f"{what} takes integers everywhere, but plan {self.name!r} {reason}; use"
      " fake_quant, or a preset such as W8A16 for integers"
    )

  def check_params(self, params) -> None:
    """Refuses parameters of another model than the plan was made for.

    Args:
      params: pytree of float arrays or `Ternary`.

    Raises:
      PlanError: a parameter of the plan is missing or has another shape.
    """
    is_leaf = lambda x: isinstance(x, Ternary)
    leaves = jax.tree_util.tree_leaves_with_path(params, is_leaf=is_leaf)
    shapes = {path_name(key): tuple(leaf.shape) for key, leaf in leaves}
    for path, role in self.roles.items():
      found = shapes.get(path)
      if found != role.shape:
        have = "is not there" if found is None else f"has shape {list(found)}"
        raise PlanError(
          f"parameter {path} {have}, but plan {self.name!r} was made for"
          f" another model, where it has shape {list(role.shape)}; calibrate"
          " this one"
        )

  def check_calibration(self, stats) -> None:
    """Refuses statistics of another calibration than the plan was made on.

    Args:
      stats: a `Stats`.

    Raises:
      PlanError: the digests differ, or the statistics are of another model.
    """
    if dict(stats.roles) != dict(self.roles):
      raise PlanError(
        f"plan {self.name!r} and the statistics are of two models: their"
        " parameters have other paths or shapes; calibrate the plan's model"
      )
    if self.calibration not in (None, stats.digest):
      raise PlanError(
        f"plan {self.name!r} was made on calibration"
        f" {str(self.calibration)[:12]}, these statistics are"
        f" {stats.digest[:12]}; make the plan anew from them"
      )

  # --- changes

  def replace(self, **changes) -> "Plan":
    """A copy with some fields changed."""
    return dataclasses.replace(self, **changes)

  def with_formats(self, changes: Mapping[str, SiteFormat]) -> "Plan":
    """A copy with the formats of some sites replaced.

    Raises:
      PlanError: the plan does not know one of the sites.
    """
    for path in changes:
      self.site(path)
    return self.replace(formats={**self.formats, **changes})

  # --- identity

  @functools.cached_property
  def fingerprint(self) -> str:
    """SHA-256 of the numbers; equal plans have equal fingerprints.

    The calibration is no part of it: two that lead to the same formats make the
    same integers.
    """
    text = _dump(self._version1() if self.integers else self._numbers())
    return hashlib.sha256(text.encode()).hexdigest()

  def __eq__(self, other) -> bool:
    return isinstance(other, Plan) and self.fingerprint == other.fingerprint

  def __hash__(self) -> int:
    return hash(self.fingerprint)

  def __str__(self) -> str:
    from jaxnmc.quantize.show import text

    return text(self)

  # --- files

  def _version1(self) -> dict[str, Any]:
    """What a file of version 1 holds; fingerprints of integers rest on it."""
    numbers = self._numbers()
    return {
      "version": 1,
      **{k: numbers[k] for k in ("name", "eps", "table", "roles")},
      "formats": numbers["formats"],
      "norms": numbers["norms"],
    }

  def _numbers(self) -> dict[str, Any]:
    return {
      "version": 2,
      "name": self.name,
      "eps": self.eps,
      "table": None if self.table is None else dataclasses.asdict(self.table),
      "dynamic": self.dynamic,
      "dtype": self.dtype,
      "formats": {k: _format_data(f) for k, f in self.formats.items()},
      "norms": {
        k: None if n is None else [n.frac, n.bits]
        for k, n in self.norms.items()
      },
      "roles": {
        k: [r.kind, r.site, list(r.shape), r.transform]
        for k, r in self.roles.items()
      },
    }

  def to_json(self) -> str:
    """Canonical JSON text, version 2 (docs/quantize.md)."""
    return _dump({**self._numbers(), "calibration": self.calibration})

  @classmethod
  def from_json(cls, text: str) -> "Plan":
    """Reads `to_json`, and files of version 1.

    Raises:
      PlanError: the text is no plan of these versions.
    """
    try:
      data = json.loads(text)
      if data["version"] not in _KNOWN:
        raise PlanError(
          f"plan version {data['version']!r} is none of"
          f" {', '.join(map(str, _KNOWN))}; make it anew"
        )
      if data["version"] == 1:
        data |= {"dynamic": False, "dtype": None, "calibration": None}
      dtype, calibration = data["dtype"], data["calibration"]
      if dtype not in (None, *HALVES):
        raise ValueError(f"dtype {dtype!r}")
      if not isinstance(calibration, str | None):
        raise ValueError(f"calibration {calibration!r}")
      table = data["table"]
      return cls(
        name=data["name"],
        eps=data["eps"],
        table=None if table is None else SigmoidTable(**table),
        formats={k: _format_of(v) for k, v in data["formats"].items()},
        norms={
          k: None if v is None else NormFormat(*v)
          for k, v in data["norms"].items()
        },
        roles={
          k: Role(kind, site, tuple(shape), transform)
          for k, (kind, site, shape, transform) in data["roles"].items()
        },
        dynamic=bool(data["dynamic"]),
        dtype=dtype,
        calibration=calibration,
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
      PlanError: the file cannot be read, or is no plan of these versions.
    """
    try:
      return cls.from_json(pathlib.Path(path).read_text())
    except OSError as error:
      raise PlanError(f"plan file {path}: {error.strerror}") from error
    except (PlanError, UnicodeDecodeError) as error:
      raise PlanError(f"plan file {path}: {error}") from error


def _no_integers(what: str, name: str, path: str, fmt, more: int) -> str:
  """Why a site keeps a plan from being integers, and what to do."""
  if isinstance(fmt, Scaled):
    has = f"gives {path} a scale that is no power of two per tensor ({fmt})"
  else:
    has = f"leaves {path} in float"
  others = f" (and {more} more sites are no integers)" if more else ""
  return (
    f"{what} takes integers at every site, but plan {name!r} {has}{others}; use"
    " fake_quant, or give the site bits and a power-of-two scale per tensor"
  )


def _dump(data: dict[str, Any]) -> str:
  return json.dumps(data, sort_keys=True, separators=(",", ":"))


def _format_data(fmt: SiteFormat):
  if isinstance(fmt, Format):
    return [fmt.bits, fmt.frac, int(fmt.unit)]
  if isinstance(fmt, Scaled):
    return {"bits": fmt.bits, "scales": list(fmt.scales)}
  return None


def _format_of(data) -> SiteFormat:
  if data is None:
    return Float()
  if isinstance(data, dict):
    return Scaled(data["bits"], tuple(map(float, data["scales"])))
  bits, frac, unit = data
  return Format(bits, frac, bool(unit))
