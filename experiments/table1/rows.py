"""The rows of the study: every row of the paper, and what a chip computes."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jaxnmc as nmc
from jaxnmc.errors import UserError
from jaxnmc.numerics.formats import NormFormat
from jaxnmc.quantize import presets
from jaxnmc.quantize.rules import Rule

# Enough fraction bits for an eps of 1e-6, which 12 round to zero.
FINE = NormFormat(frac=20, bits=24)


@dataclasses.dataclass(frozen=True)
class Row:
  """One way to compute a model.

  Attributes:
    name: shown in tables.
    preset: its formats.
    backend: "fake_quant" or "fixed".
    quoted: row of the paper's table, or None.
  """

  name: str
  preset: Any
  backend: str = "fake_quant"
  quoted: str | None = None


def paper_rows() -> list[Row]:
  """Those of the paper, in its order; the first is the baseline."""
  quoted = {"FP16": "MatMul-free baseline", "PT": "PT"}
  found = [
    Row(name, presets.paper(name), quoted=quoted.get(name, f"PT + {name}"))
    for name in presets.ROWS
  ]
  for name in ("W8A8", "W8A16"):
    preset = presets.paper(name, 1e-3)
    found.append(Row(preset.name, preset, quoted=f"PT + {name}, eps"))
  return found


def chip_rows() -> list[Row]:
  """In integers: the two rows that a chip can compute, and one of ours."""
  made = lambda name: presets.paper(name, 1e-3, integers=True)
  fine = made("W8A16").replace(eps=1e-6, norm=FINE)
  return [
    Row("W8A8, integers", made("W8A8"), "fixed", "PT + W8A8, eps"),
    Row("W8A16, integers", made("W8A16"), "fixed", "PT + W8A16, eps"),
    Row("W8A16, integers, eps 1e-6", fine, "fixed"),
  ]


def own_rows() -> list[Row]:
  """8-bit activations again, with scales that the paper does not name.

  Of the largest value, as the paper's rows here have it, a power-of-two scale
  wastes up to a bit; what that costs, these rows show.
  """
  least = Rule(presets.BLOCKS, on="activation", calibration="mse")
  free = Rule(presets.BLOCKS, on="activation", calibration="mse", scale="free")
  a8, chip = presets.paper("A8"), presets.paper("W8A8", 1e-3, integers=True)
  named = lambda preset, name, rule: preset.with_rules(rule).replace(name=name)
  return [
    Row("A8, least error", named(a8, "A8 mse", least)),
    Row("A8, least error, any scale", named(a8, "A8 free", free)),
    Row("W8A8, integers, least error", named(chip, "W8A8 mse", least), "fixed"),
  ]


def ready(row: Row, model, stats) -> tuple[Callable, Any, Any]:
  """(run, params, plan) of a row.

  Args:
    row: the row.
    model: what `jaxnmc.load` returned.
    stats: its calibration.

  Raises:
    UserError: the row has no such form; the message says why.
  """
  plan = nmc.plan(stats, row.preset)
  if row.backend == "fake_quant":
    return nmc.fake_quant(model.fn, plan), model.params, plan
  qparams = nmc.quantize_params(model.params, plan)
  return nmc.fixed(model.fn, plan), qparams, plan


def refusals(rows: Sequence[Row], model, stats) -> dict[str, str]:
  """What `fixed` says to each row: the first site that it cannot compute."""
  found = {}
  for row in rows:
    try:
      ready(dataclasses.replace(row, backend="fixed"), model, stats)
    except UserError as error:
      found[row.name] = str(error)
  return found


def underflow(model, stats) -> str:
  """What becomes of eps 1e-6 with 12 fraction bits."""
  preset = nmc.quantize.W8A16.replace(eps=1e-6)
  try:
    recorded(model, stats, preset)
  except UserError as error:
    return str(error)
  return "eps 1e-6 was not refused with 12 fraction bits"


def recorded(model, stats, preset):
  """The model's graph under a preset.

  Raises:
    UserError: it has no integers; the message says where.
  """
  plan = nmc.plan(stats, preset)
  qparams = nmc.quantize_params(model.params, plan)
  return nmc.record(model.fn, plan, qparams)
