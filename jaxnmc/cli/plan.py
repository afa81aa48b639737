"""`jaxnmc plan`: make, show and compare number formats, and what they cost."""

import jaxnmc
from jaxnmc.cli import plan_cost, rule_sets
from jaxnmc.cli.format_flags import RuleSet
from jaxnmc.cli.output import Output
from jaxnmc.errors import ConfigError
from jaxnmc.io import files as whole_files
from jaxnmc.quantize import Plan, show
from jaxnmc.report import files


def main(args) -> int:
  """Runs the command; 1 if two plans differ."""
  out = Output(args)
  if args.action == "cost":
    return plan_cost.main(args, out)
  if args.action == "make":
    return _make(out, args)
  if args.action == "show":
    _show(out, rule_sets.existing(out, args.plan))
    return 0
  return _diff(out, *(rule_sets.existing(out, name) for name in args.plans))


def _make(out: Output, args) -> int:
  """Makes, shows and writes the plan of the flags.

  Raises:
    ConfigError: the flags name several.
    OutputError: the plan cannot be written where it was asked for.
    PlanError, FormatError, DataError: as `rule_sets`.
  """
  sets = args.sets or (RuleSet("preset", "W8A16"),)
  if len(sets) > 1:
    found = "; ".join(map(str, sets))
    raise ConfigError(
      f"plan make makes one plan, found {len(sets)}: {found}"
      " (--rule comes after what it is added to); 'plan cost' takes several"
    )
  files.check_writable(args.out)
  preset = rule_sets.preset(sets[0])
  model = jaxnmc.load(args.model)
  out.notes(model.notes)
  stats = rule_sets.measured(model, [preset], args.calibrate, out)
  plan = rule_sets.plan(stats, preset, args.calibrate)
  _show(out, plan)
  if args.out:
    whole_files.write_bytes(args.out, plan.to_json().encode())
    out.line(f"wrote {args.out}")
  return 0


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
