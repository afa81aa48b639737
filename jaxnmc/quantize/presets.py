"""Rule sets with the paper's names (Abreu et al. 2025, Table 1).

The paper's rows are a float model with some roundings: W8 rounds the gains of
the norms (matrices are ternary in any row), A8 and A16 what lies between the
operations of a block, W8A8 and W8A16 both; eps is 1e-6.  Its last two rows
also take eps 1e-3 and numbers of 24 bits, 12 of them fraction, inside norms.
The dynamic 8-bit quantiser in front of every product stays in all of them.

`W8A8` and `W8A16` here are those last two rows as a chip runs them: integers
at every site, embedding and logits included, a sigmoid from a table, and no
dynamic quantiser (docs/numerics.md, 10).  `paper` gives any row by name and
eps.
"""

import dataclasses
import os
import pathlib

from jaxnmc.errors import FormatError, PlanError, UserError
from jaxnmc.numerics.formats import NormFormat
from jaxnmc.numerics.sigmoid import SigmoidTable
from jaxnmc.quantize.rules import Rule, parse

HALVES = ("float16", "bfloat16")
# What lies in a block: not the embedding, the last norms or the logits.
BLOCKS = r"layers\.\d+\..*"

# Sums of spikes are compared with these; at the many fraction bits of a small
# threshold with 16 bits a potential would leave its 32.
_THRESHOLDS = r"layers\.\d+\.attn\.ssa\.out"
_THRESHOLD_BITS = 8


@dataclasses.dataclass(frozen=True)
class Preset:
  """How many bits go where; None leaves it in float.

  Attributes:
    name: shown in tables.
    weight_bits: bits of norm gains, and of matrices that are not ternary.
    act_bits: bits of all other sites that `act_sites` matches, constants and
      logits included; one power-of-two scale per tensor.
    table_bits: bits of the embedding table.
    eps: eps of every norm, or None for the model's own.
    norm: numbers inside a norm.
    table: the sigmoid table.
    margin: share of headroom above the calibrated range, 0 to 16.
    act_sites: pattern of the sites that take act_bits.
    dynamic: keep the model's dynamic quantiser of activations.
    dtype: "float16" or "bfloat16" in which parameters and values are stored,
      or None for float as it comes.
    rules: further rules, after these.

  Raises:
    FormatError: a margin outside 0..16.
    PlanError: another dtype.
  """

  name: str
  weight_bits: int | None = 8
  act_bits: int | None = 16
  table_bits: int | None = 16
  eps: float | None = 1e-3
  norm: NormFormat | None = NormFormat()
  table: SigmoidTable | None = SigmoidTable()
  margin: float = 0.0
  act_sites: str = ".*"
  dynamic: bool = False
  dtype: str | None = None
  rules: tuple[Rule, ...] = ()

  def __post_init__(self):
    if not 0 <= self.margin <= 16:
      raise FormatError(f"margin must lie in 0..16; found {self.margin}")
    if self.dtype is not None and self.dtype not in HALVES:
      raise PlanError(
        f"preset {self.name!r}: found dtype {self.dtype!r}, allowed are"
        f" {', '.join(HALVES)} and None"
      )

  def replace(self, **changes) -> "Preset":
    """A copy with some fields changed."""
    return dataclasses.replace(self, **changes)

  def with_rules(self, *rules: Rule) -> "Preset":
    """A copy with further rules at the end."""
    return self.replace(rules=(*self.rules, *rules))

  def own_rules(self) -> tuple[Rule, ...]:
    """The fields as rules; those of `rules` come after them."""
    found = []
    for on, sites, bits in (
      ("gain", ".*", self.weight_bits),
      ("dense", ".*", self.weight_bits),
      ("activation", self.act_sites, self.act_bits),
      ("const", self.act_sites, self.act_bits),
      ("table", ".*", self.table_bits),
    ):
      if bits is not None:
        found.append(Rule(sites, on=on, bits=bits))
    if self.act_bits is not None:
      bits = min(_THRESHOLD_BITS, self.act_bits)
      found.append(Rule(_THRESHOLDS, on="const", bits=bits, override=True))
    if self.norm is not None:
      found.append(
        Rule(".*", on="norm", bits=self.norm.bits, frac=self.norm.frac)
      )
    if self.margin:
      found.append(Rule(".*", margin=self.margin))
    return tuple(found)


def of_rules(rules, name: str = "rules") -> Preset:
  """A preset of nothing but rules: what they do not say is float."""
  return Preset(
    name,
    weight_bits=None,
    act_bits=None,
    table_bits=None,
    eps=None,
    norm=None,
    table=None,
    dynamic=True,
    rules=tuple(rules),
  )


W8A16 = Preset("W8A16")
W8A8 = Preset("W8A8", act_bits=8)

PT = of_rules((), "PT").replace(eps=1e-6)
FP16 = PT.replace(name="FP16", dtype="float16")
W8 = PT.replace(name="W8", weight_bits=8)
A8 = PT.replace(name="A8", act_bits=8, act_sites=BLOCKS)
A16 = A8.replace(name="A16", act_bits=16)

BY_NAME = {p.name: p for p in (FP16, PT, W8, A8, A16, W8A8, W8A16)}
ROWS = tuple(BY_NAME)


def paper(row: str, eps: float = 1e-6, integers: bool = False) -> Preset:
  """A row of the paper's Table 1.

  Args:
    row: one of `ROWS`; FP16 is its baseline, PT that in float32.
    eps: eps of every norm, 1e-6 or 1e-3; with 1e-3 activations that are
      quantised are so inside norms, too (24 bits, 12 of them fraction).
    integers: the row as a chip runs it; W8A8 and W8A16 with eps 1e-3 only.

  Returns:
    The preset; its name says eps where that is not the row's own 1e-6.

  Raises:
    PlanError: there is no such row, it has no such eps, or no integers.
  """
  if row not in ROWS or eps not in (1e-6, 1e-3):
    raise PlanError(
      f"found row {row!r} with eps {eps:g}, allowed are {', '.join(ROWS)} with"
      " eps 1e-06 or 0.001"
    )
  if integers:
    if row not in ("W8A8", "W8A16") or eps != 1e-3:
      raise PlanError(
        f"row {row} with eps {eps:g} is not integers everywhere; those are W8A8"
        " and W8A16 with eps 0.001"
      )
    return {"W8A8": W8A8, "W8A16": W8A16}[row]
  weights = row.startswith("W8")
  bits = {"A8": 8, "A16": 16}.get(row.removeprefix("W8"))
  large = eps == 1e-3
  return PT.replace(
    name=row + (" eps 1e-3" if large else ""),
    eps=eps,
    dtype="float16" if row == "FP16" else None,
    weight_bits=8 if weights else None,
    act_bits=bits,
    act_sites=BLOCKS if bits else ".*",
    norm=NormFormat() if large and bits else None,
  )


def read(path: str | os.PathLike) -> Preset:
  """A preset from a text file of rules, one a line (`rules.parse`).

  The first line may be `preset NAME`, one of `ROWS`, which the rules are added
  to; without it, what they do not say is float.  Empty lines and those that
  begin with `#` are left out.

  Args:
    path: the file.

  Returns:
    The preset, named after the file.

  Raises:
    PlanError: the file cannot be read, says nothing, or names no preset.
    PlanError, FormatError: a line is no rule; the message says which.
  """
  path = pathlib.Path(path)
  try:
    lines = path.read_text(encoding="utf-8").splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise PlanError(
      f"{path}: cannot be read as a text file of rules ({error}); check the"
      " path"
    ) from error
  base, rules = of_rules(()), list[Rule]()
  said = [(k, line.strip()) for k, line in enumerate(lines, 1)]
  said = [(k, line) for k, line in said if line and line[0] != "#"]
  for number, line in said:
    first, _, name = line.partition(" ")
    try:
      if first != "preset":
        rules.append(parse(line))
      elif (number, line) != said[0] or name.strip() not in ROWS:
        raise PlanError(
          f"found {line!r}, allowed is 'preset NAME' in front of all rules,"
          f" with one of {', '.join(ROWS)}"
        )
      else:
        base = BY_NAME[name.strip()]
    except UserError as error:
      raise type(error)(f"{path}, line {number}: {error}") from error
  if not said:
    raise PlanError(f"{path}: holds no rule; write one a line")
  return base.with_rules(*rules).replace(name=path.stem)
