"""Rule sets that flags name, as presets and plans."""

import os
import pathlib
from collections.abc import Sequence

import jaxnmc
from jaxnmc import quantize
from jaxnmc.cli.format_flags import RuleSet
from jaxnmc.cli.output import Output
from jaxnmc.errors import PlanError
from jaxnmc.models.model import Model
from jaxnmc.quantize import Plan, Preset
from jaxnmc.quantize import presets as named
from jaxnmc.quantize.rules import parse
from jaxnmc.report import backends


def preset(one: RuleSet) -> Preset:
  """The preset that a set of any kind but "plan" is.

  Raises:
    PlanError, FormatError: a rule, or a file of rules, that cannot be.
  """
  rules = tuple(map(parse, one.rules))
  if one.kind == "row":
    made = quantize.paper(one.value, 1e-6 if one.eps is None else one.eps)
  elif one.kind == "preset":
    made = named.BY_NAME[one.value]
  elif one.kind == "rules":
    made = named.read(one.value)
  else:
    made = named.of_rules(())
  return made.with_rules(*rules)


def label(one: RuleSet) -> str:
  """A set in a table: what it begins with, and how many rules it adds."""
  number = len(one.rules)
  if one.kind is None:
    return f"{number} rule{'s' * (number > 1)}"
  name = one.value
  if one.kind == "row":
    name += " row" + ("" if one.eps is None else f", eps {one.eps:g}")
  elif one.kind != "preset":
    name = pathlib.Path(name).stem
  return f"{name} +{number}" if number else name


def measured(
  model: Model, wanted: Sequence[Preset], calibrate: str | None, out: Output
):
  """Statistics with what the rules of all sets need; notes go to stderr.

  Raises:
    DataError: the text cannot be read, or is none.
  """
  rules = [rule for preset in wanted for rule in preset.rules]
  stats, notes = backends.measured(
    model,
    calibrate,
    histograms=any(
      r.settings().get("calibration", "max") != "max" for r in rules
    ),
    channels=any(r.per == "channel" for r in rules),
  )
  out.notes(notes)
  return stats


def plan(stats, preset: Preset, calibrate: str | None) -> Plan:
  """The plan of a preset, with room to spare where few sentences were seen.

  Raises:
    PlanError, FormatError: as `jaxnmc.plan`.
  """
  if calibrate is None:
    preset = preset.replace(margin=backends.SMALL_MARGIN)
  return jaxnmc.plan(stats, preset)


def existing(out: Output, name: str) -> Plan:
  """A plan file, or the plan that a model brings.

  Raises:
    PlanError: no plan there.
    CheckpointError, ConfigError, MissingExtra: as `jaxnmc.load`.
  """
  if os.path.isfile(name) and not name.endswith((".npz", ".safetensors")):
    return Plan.load(name)
  model = jaxnmc.load(name)
  out.notes(model.notes)
  if model.plan is None:
    raise PlanError(
      f"{name}: the model brings no plan; make one with 'jaxnmc plan make"
      f" {name} --out FILE'"
    )
  return model.plan
