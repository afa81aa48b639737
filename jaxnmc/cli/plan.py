"""`jaxnmc plan`: make, show and compare number formats."""

import os

import jaxnmc
from jaxnmc import quantize
from jaxnmc.cli.output import Output
from jaxnmc.errors import ConfigError, PlanError
from jaxnmc.io import files as whole_files
from jaxnmc.quantize import Plan, show
from jaxnmc.quantize.presets import of_rules
from jaxnmc.quantize.rules import parse
from jaxnmc.report import backends, files

_ONE_OF = {"make": 1, "show": 1, "diff": 2}
_OF_MAKE = ("preset", "row", "eps", "rule", "out", "calibrate")


def main(args) -> int:
  """Runs the command; 1 if two plans differ."""
  out = Output(args)
  _check(args)
  if args.action == "diff":
    return _diff(out, *(_plan(out, name) for name in args.what))
  if args.action == "show":
    plan = _plan(out, args.what[0])
  else:
    plan = _make(out, args)
  _show(out, plan)
  if args.out:
    whole_files.write_bytes(args.out, plan.to_json().encode())
    out.line(f"wrote {args.out}")
  return 0


def _check(args) -> None:
  """Refuses names and flags that do not go together.

  Raises:
    ConfigError: which, and what goes.
    OutputError: the plan cannot be written where it was asked for.
  """
  need = _ONE_OF[args.action]
  if len(args.what) != need:
    raise ConfigError(
      f"plan {args.action} takes {need} name{'s' * (need > 1)}, found"
      f" {len(args.what)}: {' '.join(args.what)}"
    )
  for flag in _OF_MAKE:
    if args.action != "make" and getattr(args, flag) not in (None, []):
      raise ConfigError(f"--{flag} goes with 'plan make' only; leave it out")
  if args.eps is not None and args.row is None:
    raise ConfigError("--eps goes with --row only; name the row of the table")
  files.check_writable(args.out)


def _plan(out: Output, name: str) -> Plan:
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


def _make(out: Output, args) -> Plan:
  """The plan of the flags; errors as `jaxnmc.plan` and `backends.measured`."""
  rules = tuple(parse(text) for text in args.rule)
  if args.row:
    preset = quantize.paper(args.row, 1e-6 if args.eps is None else args.eps)
  elif args.preset:
    preset = getattr(quantize, args.preset)
  else:
    preset = of_rules(()) if rules else quantize.W8A16
  model = jaxnmc.load(args.what[0])
  out.notes(model.notes)
  stats, notes = backends.measured(
    model,
    args.calibrate,
    histograms=any(
      r.settings().get("calibration", "max") != "max" for r in rules
    ),
    channels=any(r.per == "channel" for r in rules),
  )
  out.notes(notes)
  if args.calibrate is None:
    preset = preset.replace(margin=backends.SMALL_MARGIN)
  return jaxnmc.plan(stats, preset.with_rules(*rules))


def _show(out: Output, plan: Plan) -> None:
  settings, rows = show.settings(plan), show.rows(plan)
  out.table("Plan", ("field", "value"), list(settings.items()))
  out.table(
    "Formats",
    ("site", ">sites", "format", ">largest value"),
    [
      (r.site, r.number, r.format, "" if r.largest is None else r.largest)
      for r in rows
    ],
  )
  out.result(
    {
      **settings,
      "fingerprint": plan.fingerprint,
      "calibration": plan.calibration,
      "integers everywhere": plan.integers,
      "sites": [r._asdict() for r in rows],
    }
  )


def _diff(out: Output, before: Plan, after: Plan) -> int:
  changes = show.diff(before, after)
  if changes:
    out.table("Differences", ("what", "first", "second"), changes)
  else:
    out.line("equal")
  out.result({"equal": not changes, "changes": [c._asdict() for c in changes]})
  return int(bool(changes))
