"""`jaxnmc plan cost`: what number formats cost a model on a text."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import jaxnmc
from jaxnmc.cli import rule_sets, setup
from jaxnmc.cli.format_flags import RuleSet
from jaxnmc.cli.output import Output, bar
from jaxnmc.evaluate import provenance
from jaxnmc.evaluate.closeness import Closeness, Figure
from jaxnmc.evaluate.format_cost import BACKENDS, Cost, Costs
from jaxnmc.models.model import Model
from jaxnmc.numerics.float_formats import Float
from jaxnmc.quantize import Plan, plan_bytes
from jaxnmc.report import backends

_DEFAULT = (RuleSet("preset", "W8A16"), RuleSet("preset", "W8A8"))
_COLUMNS = (
  *("formats", "run by", ">perplexity", ">change %", ">same %"),
  *(">KL, nats", ">MB"),
)


@dataclasses.dataclass(frozen=True, eq=False)
class _Row:
  """A rule set and its plan.

  Attributes:
    name: in tables.
    asked: what was asked for.
    plan: made of it, or read.
    costs: in every interpreter; filled when it was measured.
  """

  name: str
  asked: RuleSet
  plan: Plan
  costs: list[Cost] = dataclasses.field(default_factory=list)


def main(args, out: Output) -> int:
  """Runs the command.

  Raises:
    PlanError, FormatError: a rule set that cannot be, before anything is run.
    DataError, TokenError: the text cannot be read, or by this model.
  """
  start = time.perf_counter()
  sets = args.sets or _DEFAULT
  presets = [
    None if one.kind == "plan" else rule_sets.preset(one) for one in sets
  ]
  model = jaxnmc.load(args.model)
  out.notes(model.notes)
  documents = setup.pieces(args, model)
  wanted = [preset for preset in presets if preset is not None]
  stats = None
  if wanted:
    stats = rule_sets.measured(model, wanted, args.calibrate, out)
  rows = []
  for name, one, preset in zip(_names(sets), sets, presets, strict=True):
    if preset is None:
      plan = _existing(out, model, one.value)
    else:
      plan = rule_sets.plan(stats, preset, args.calibrate)
    rows.append(_Row(name, one, plan))
  measure = Costs(
    *(model.fn, model.params, documents),
    vocab_size=model.config.vocab_size,
    bos=backends.begin_id(model),
    batch=args.batch,
  )
  _measure(measure, rows)
  base = plan_bytes(_in_float(rows[0].plan))
  _show(out, model, args.text, measure, rows, base)
  out.result(
    {
      "label": "measured; weights_bytes modelled",
      "model": model.name,
      "weights_sha256": provenance.params_sha256(model.params),
      "text": args.text,
      "text_sha256": provenance.file_sha256(args.text),
      "documents": args.documents,
      "max_ids": args.max_ids,
      "pieces": len(documents),
      "ids": measure.ids,
      "calibrate": args.calibrate,
      "float": {"perplexity": _base(rows), "weights_bytes": base},
      "rows": [_data(row) for row in rows],
      "versions": provenance.versions(),
      "seconds": round(time.perf_counter() - start, 1),
    }
  )
  return 0


def _names(sets: Sequence[RuleSet]) -> list[str]:
  """Labels of sets, numbered where two are equal."""
  found = [rule_sets.label(one) for one in sets]
  return [
    name if found.count(name) == 1 else f"{name} ({found[: k + 1].count(name)})"
    for k, name in enumerate(found)
  ]


def _existing(out: Output, model: Model, name: str) -> Plan:
  """The plan of a file or model; that it is of this model is checked.

  Raises:
    PlanError: there is none, or it is of another model.
  """
  plan = rule_sets.existing(out, name)
  plan.check_params(model.params)
  return plan


def _in_float(plan: Plan) -> Plan:
  """The plan's model without formats."""
  return plan.replace(formats=dict.fromkeys(plan.formats, Float()), dtype=None)


def _measure(measure: Costs, rows: Sequence[_Row]) -> None:
  """Runs every plan in every interpreter that takes it."""
  run = [(row, name) for row in rows for name in BACKENDS]
  refused = {
    (k, name): measure.refused(row.plan, name)
    for k, (row, name) in enumerate(run)
  }
  left = sum(why is None for why in refused.values())
  with bar("ids", left * measure.ids) as advance:
    for k, (row, name) in enumerate(run):
      why = refused[k, name]
      row.costs.append(
        measure(row.plan, name, advance)
        if why is None
        else Cost(name, None, why)
      )


def _base(rows: Sequence[_Row]) -> float | None:
  """Perplexity in float; None where nothing ran beside it."""
  done = [cost.close for row in rows for cost in row.costs if cost.close]
  return done[0].base_perplexity if done else None


def _show(out: Output, model, text, measure, rows, base: int) -> None:
  """The table, and what it cannot hold."""
  size = lambda count: f"{count / 1e6:.2f}"
  first = _base(rows)
  shown = "unknown" if first is None else f"{first:.3f}"
  body = [("float", "reference", shown, "", "", "", size(base))]
  for row in rows:
    for cost in row.costs:
      if cost.close is not None:
        cells = _cells(cost.close)
        body.append(
          (row.name, cost.backend, *cells, size(plan_bytes(row.plan)))
        )
  out.table(
    f"{model.name} on {text}: {measure.ids:,} ids (measured; MB of parameters"
    " modelled); change from float, 95 %",
    _COLUMNS,
    body,
  )
  for row in rows:
    for rule in row.asked.rules:
      out.line(f"* {row.name}: {rule}")
  for row in rows:
    for cost in row.costs:
      if cost.refused is not None:
        out.line(f"* {row.name}, {cost.backend}: {cost.refused}")


def _cells(close: Closeness) -> tuple[str, ...]:
  return (
    f"{close.perplexity:.3f}",
    _percent(close.loss),
    f"{100 * close.agreement.value:.2f}",
    f"{close.divergence.value:.2e}",
  )


def _percent(figure: Figure) -> str:
  value = f"{100 * figure.value:+.2f}"
  if figure.spread is None:
    return value
  return f"{value} ± {100 * figure.spread:.2f}"


def _data(row: _Row) -> dict[str, Any]:
  """A row for JSON; {"refused": why} where an interpreter has no figures."""
  found: dict[str, Any] = {
    "name": row.name,
    "asked": str(row.asked),
    "rules": list(row.asked.rules),
    "plan": row.plan.name,
    "plan_sha256": row.plan.fingerprint,
    "integers": row.plan.integers,
    "weights_bytes": plan_bytes(row.plan),
  }
  for cost in row.costs:
    if cost.close is None:
      found[cost.backend] = {"refused": cost.refused}
      continue
    found[cost.backend] = {
      "perplexity": cost.close.perplexity,
      "change": dataclasses.asdict(cost.close.loss),
      "same_token": dataclasses.asdict(cost.close.agreement),
      "kl": dataclasses.asdict(cost.close.divergence),
    }
  return found
