"""Rules: path patterns that say how the sites of a model get their formats.

A rule matches sites by a regular expression over the whole path and sets some
fields; the vocabulary is that of qwix (path pattern, bits, per-channel,
calibration), applied to named sites instead of intercepted functions.  A site
that no rule gives bits stays in float.
"""

import dataclasses
import difflib
import re
from collections.abc import Sequence
from typing import Any

from jaxnmc.errors import FormatError, PlanError
from jaxnmc.numerics.formats import MAX_BITS

ACTIVATION, GAIN, TABLE, CONST = "activation", "gain", "table", "const"
DENSE, NORM = "dense", "norm"
KINDS = (ACTIVATION, GAIN, DENSE, TABLE, CONST, NORM)
_CHOICES = {
  "on": KINDS,
  "scale": ("power-of-two", "free"),
  "per": ("tensor", "channel"),
  "calibration": ("max", "percentile", "mse"),
}
_FLAGS = ("floating", "override")
# Fields that choose the fraction bits, which the inside of a norm is given.
_CHOOSE = ("scale", "per", "calibration", "percentile", "margin")


@dataclasses.dataclass(frozen=True)
class Rule:
  r"""What the sites of a pattern get; a field that is None is left alone.

  Attributes:
    pattern: regular expression that matches the whole path of a site, e.g.
      r"layers\.\d+\.attn\..*"; gains of norms are the sites `<norm>.gain`.
    on: only sites of this kind: "activation", "gain", "dense" (a matrix
      that is not ternary), "table" (embedding), "const" or "norm".  None is all
      of them but "norm", whose paths are those of norms and whose bits and frac
      are numbers inside of the norm.
    bits: width, 2 to 24.
    frac: fraction bits; chosen by calibration where no rule gives them.
    floating: leave the site in float.
    scale: "power-of-two" (default; what a chip can apply) or "free".
    per: one scale per "tensor" (default) or "channel" (last axis).
    calibration: what range the codes shall cover: "max" of what was seen
      (default), "percentile" of magnitudes, or "mse", the one with the least
      mean square error.
    percentile: share of magnitudes to cover, in percent, 0 < p <= 100; 99.9 if
      not given.
    margin: share of headroom above that range, 0 to 16.
    override: may change what earlier rules set.

  Raises:
    FormatError: bits, frac or margin out of range.
    PlanError: another field has an impossible value, nothing is set, or fields
      exclude each other.
  """

  pattern: str
  _: dataclasses.KW_ONLY
  on: str | None = None
  bits: int | None = None
  frac: int | None = None
  floating: bool | None = None
  scale: str | None = None
  per: str | None = None
  calibration: str | None = None
  percentile: float | None = None
  margin: float | None = None
  override: bool = False

  def __post_init__(self):
    try:
      re.compile(self.pattern)
    except re.error as error:
      raise PlanError(
        f"{self}: the pattern is no regular expression ({error})"
      ) from error
    for name, allowed in _CHOICES.items():
      value = getattr(self, name)
      if value is not None and value not in allowed:
        raise PlanError(
          f"{self}: found {name} {value!r}, allowed are {', '.join(allowed)}"
        )
    for name, low, high in (
      ("bits", 2, MAX_BITS),
      ("frac", -40, 40),
      ("margin", 0, 16),
    ):
      value = getattr(self, name)
      if value is not None and not low <= value <= high:
        raise FormatError(f"{self}: {name} must lie in {low}..{high}")
    if self.percentile is not None and not 0 < self.percentile <= 100:
      raise PlanError(f"{self}: percentile must lie in 0..100, above 0")
    self._check_together()

  def _check_together(self) -> None:
    settings = self.settings()
    if not settings:
      raise PlanError(f"{self}: sets nothing; give it bits or another field")
    if self.percentile is not None and self.calibration not in (
      None,
      "percentile",
    ):
      raise PlanError(
        f"{self}: a percentile goes with calibration 'percentile' only"
      )
    number = [f for f in ("bits", "frac", *_CHOOSE) if f in settings]
    if self.floating and number:
      raise PlanError(
        f"{self}: leaves sites in float, so {number[0]} means nothing; drop one"
      )
    if self.frac is not None and (self.scale == "free" or self.per):
      raise PlanError(
        f"{self}: frac is the scale, so scale and per mean nothing; drop them"
      )
    chosen = [f for f in _CHOOSE if f in settings]
    if self.on == NORM and chosen:
      raise PlanError(
        f"{self}: the inside of a norm takes bits, frac and floating only;"
        f" drop {chosen[0]}"
      )

  def __str__(self) -> str:
    fields = [
      f"{f.name}={value!r}"
      for f in dataclasses.fields(self)
      if f.name != "pattern"
      and (value := getattr(self, f.name)) not in (None, False)
    ]
    return f"Rule({', '.join([repr(self.pattern), *fields])})"

  def settings(self) -> dict[str, Any]:
    """The fields it sets; bits or frac also say that a site is not float."""
    names = ("bits", "frac", "floating", *_CHOOSE)
    found = {n: getattr(self, n) for n in names if getattr(self, n) is not None}
    if {"bits", "frac"} & found.keys():
      found.setdefault("floating", False)
    if "percentile" in found:
      found.setdefault("calibration", "percentile")
    return found

  def matches(self, path: str, kind: str) -> bool:
    """Whether a site of this path and kind is meant."""
    meant = kind == self.on if self.on else kind != NORM
    return meant and re.fullmatch(self.pattern, path) is not None


def parse(text: str) -> Rule:
  r"""A rule as the command line writes it: `PATTERN:field=value,...`.

  Fields without a value are flags: `float` (for `floating`) and `override`.
  For example `layers\.0\..*:bits=8,calibration=mse,override`.

  Args:
    text: the rule.

  Returns:
    The rule.

  Raises:
    PlanError: the text is no rule, or as `Rule`.
    FormatError: as `Rule`.
  """
  pattern, colon, fields = text.rpartition(":")
  if not (colon and pattern and fields):
    raise PlanError(
      f"rule {text!r}: expected PATTERN:field=value,... such as"
      " '.*gain:bits=8,override'"
    )
  kinds = {"bits": int, "frac": int, "percentile": float, "margin": float}
  kinds |= dict.fromkeys(_CHOICES, str)
  given: dict[str, Any] = {}
  for field in fields.split(","):
    name, equals, value = field.strip().partition("=")
    name = "floating" if name == "float" else name
    try:
      if equals:
        given[name] = kinds[name](value)
      elif name in _FLAGS:
        given[name] = True
      else:
        raise KeyError(name)
    except (KeyError, ValueError):
      allowed = [f"{k}=..." for k in kinds] + ["float", "override"]
      raise PlanError(
        f"rule {text!r}: found {field!r}, allowed are {', '.join(allowed)}"
      ) from None
  return Rule(pattern, **given)


def resolve(
  rules: Sequence[Rule],
  sites: Sequence[tuple[str, str]],
  optional: frozenset[Rule] = frozenset(),
) -> dict[tuple[str, str], dict[str, Any]]:
  """What the rules say about each site.

  In order; two rules that give one site different values of one field
  disagree, unless the later one overrides.

  Args:
    rules: the rules, first to last.
    sites: (path, kind) of every site and norm.
    optional: rules that may match nothing.

  Returns:
    (path, kind) -> field -> value, for all sites.

  Raises:
    PlanError: a rule matches nothing, or two rules disagree.
  """
  found: dict[tuple[str, str], dict[str, Any]] = {key: {} for key in sites}
  givers: dict[tuple[str, str, str], Rule] = {}
  for rule in rules:
    keys = [key for key in sites if rule.matches(*key)]
    if not keys and rule not in optional:
      raise PlanError(_nothing(rule, sites))
    for key in keys:
      for name, value in rule.settings().items():
        before = found[key].setdefault(name, value)
        if before != value and not rule.override:
          other = givers[*key, name]
          raise PlanError(
            f"site {key[0]}: {other} and {rule} disagree about {name}"
            f" ({before!r} and {value!r}); give the one that shall win"
            " override=True and put it last"
          )
        found[key][name] = value
        givers[*key, name] = rule
  return found


def _nothing(rule: Rule, sites: Sequence[tuple[str, str]]) -> str:
  """Why a rule matches nothing, with what it may have meant."""
  kinds = sorted({k for p, k in sites if re.fullmatch(rule.pattern, p)})
  if kinds:
    return (
      f"{rule} matches nothing: its pattern matches sites of kind"
      f" {', '.join(kinds)} only; change 'on'"
    )
  meant = [p for p, k in sites if rule.on in (None, k)] or [p for p, _ in sites]
  plain = re.sub(r"\\d\+|\\d|\.\*|\.\+", "0", rule.pattern)
  plain = plain.replace("\\", "")
  close = difflib.get_close_matches(plain, meant, n=3, cutoff=0.6)
  parts = [p for p in re.findall(r"[A-Za-z_]{3,}", plain) if p != "layers"]
  holding = [p for p in meant if any(part in p for part in parts)]
  near = list(dict.fromkeys([*close, *holding, *meant]))[:3]
  return (
    f"{rule} matches nothing (a pattern must match a whole path); near it are"
    f" {', '.join(near) or 'no sites at all'}"
  )
