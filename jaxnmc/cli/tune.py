"""`jaxnmc tune`: thresholds of a spiking transformer under a spike budget."""

import contextlib
import time
from typing import Any

import jaxnmc
from jaxnmc.cli import spikes
from jaxnmc.cli.output import Output, bar
from jaxnmc.cli.tune_flags import MULTIPLIERS
from jaxnmc.errors import ConfigError
from jaxnmc.evaluate import provenance
from jaxnmc.io import files
from jaxnmc.models import families, gpt, spike_counts
from jaxnmc.models.model import Model
from jaxnmc.models.to_spikes import Recipe, convert
from jaxnmc.models.tune_thresholds import Judge, grid, tune
from jaxnmc.report import firing, plots, tuning
from jaxnmc.train import export

REPORT = "tune.json"


def main(args) -> int:
  """Runs the command.

  Raises:
    ConfigError: a model that is no transformer, flags without effect, or as
      `Judge`.
    BudgetError: no thresholds meet the budget.
    CheckpointError: the folder is taken, or as `jaxnmc.load`.
    DataError, TokenError: the text cannot be read, or by this model.
  """
  start = time.perf_counter()
  out = Output(args)
  _check_flags(args)
  if args.plots is not None:
    plots.check(args.plots)
  folder: Any = contextlib.nullcontext()
  if args.out is not None:
    folder = files.new_folder(args.out)
  with folder as work:
    model = jaxnmc.load(args.model)
    out.notes(model.notes)
    spikes.check(model)
    ids = spikes.ids_of(model, args)
    judges, made = _judges(args, out, model, ids)
    data = {
      "command": "tune",
      "label": "measured, on the text that thresholds were tuned on",
      "model": model.name,
      "reference": args.reference or model.name,
      "text": args.text,
      "text_sha256": provenance.file_sha256(args.text),
      "texts": len(ids),
      "tokens": int(ids.size),
      "budget": args.budget,
      "over": args.over,
    }
    search = _grid if args.grid else _search
    more, ticks, point = search(args, judges)
    config, params = made[ticks][0], judges[ticks].params(point)
    before, after = (
      spike_counts.count(config, p, ids) for p in (made[ticks][1], params)
    )
    data |= more | {
      "ticks": ticks,
      "sites": tuning.sites(before, after, point),
      "histogram": firing.spike_histogram(after),
      "versions": provenance.versions(),
      "seconds": round(time.perf_counter() - start, 1),
    }
    if work is not None:
      tuned = families.model(
        args.out, config, params, tokenizer=model.tokenizer
      )
      export.save_folder(work, tuned, {"tuned_from": model.name})
      files.write_json(work / REPORT, data)
  tuning.show(out.people, data)
  if args.plots is not None:
    made_plots = {"spike_histogram": plots.spike_histogram(data["histogram"])}
    for path in plots.save(made_plots, args.plots):
      out.line(f"plot: {path}")
  if args.out is not None:
    out.line(f"{args.out}: tuned; report in {REPORT}")
  out.result(data)
  return 0


def _check_flags(args) -> None:
  """Refuses flags that have no effect, or that lack another."""
  if args.budget is None and not args.grid:
    raise ConfigError(
      "--budget is missing; give the most spikes per inference, as 2M, or"
      " --grid to measure what there is"
    )
  if args.multipliers is not None and not args.grid:
    raise ConfigError("--multipliers has no effect without --grid")
  if len(args.ticks or ()) > 1 and not args.grid:
    raise ConfigError(
      f"--ticks {','.join(map(str, args.ticks))}: several need --grid; give one"
    )


def _judges(args, out: Output, model: Model, ids) -> tuple[dict, dict]:
  """({ticks: Judge}, {ticks: (config, params)}) of what is tuned."""
  config = model.config
  dense = config.attention == "softmax" and config.mlp_ticks is None
  if dense:
    ticks = args.ticks or (4,)
    with bar("layers converted", len(ticks) * config.num_layers) as advance:
      made = {
        t: convert(
          *(config, model.params, ids),
          *(Recipe(ticks=t, mlp_ticks=t), advance),
        )
        for t in ticks
      }
  elif args.ticks is not None:
    raise ConfigError(
      f"--ticks has no effect: {model.name} spikes already; leave it out, or"
      " name the model it was converted from"
    )
  else:
    t = config.ticks if config.attention == "ssa" else config.mlp_ticks
    made = {t: (config, model.params)}
  other = model
  if args.reference is not None:
    other = jaxnmc.load(args.reference)
    out.notes(other.notes)
    if not isinstance(other.config, gpt.Config):
      raise ConfigError(f"--reference {args.reference}: is no transformer")
  base = (other.config, other.params)
  judges = {t: Judge(base, m, ids, over=args.over) for t, m in made.items()}
  return judges, made


def _search(args, judges) -> tuple[dict, int, Any]:
  """(what to report, ticks, the point taken)."""
  ((ticks, judge),) = judges.items()
  guess = 2 + 2 * args.passes * len(judge.sites)
  with bar("thresholds measured", guess) as advance:
    found = tune(
      *(judge, args.budget),
      passes=args.passes,
      progress=lambda point: advance(1),
    )
  return tuning.searched(found), ticks, found.best


def _grid(args, judges) -> tuple[dict, int, Any]:
  """As `_search`, of the best pair of the grid."""
  factors = args.multipliers or MULTIPLIERS
  with bar("thresholds measured", len(judges) * len(factors)) as advance:
    rows = grid(judges, factors, args.budget, lambda point: advance(1))
  best = [row for row in rows if row["best"]]
  if not best:
    least = min(row["spikes"] for row in rows)
    raise ConfigError(
      f"--budget {args.budget:,.0f}: nothing on the grid has so few spikes per"
      f" inference; the nearest is {least:,.0f}: give larger --multipliers, or"
      " leave --grid out"
    )
  judge = judges[best[0]["ticks"]]
  names = [site.key for site in judge.sites]
  point = judge(dict.fromkeys(names, best[0]["multiplier"]))
  return {"grid": rows, "search": None}, best[0]["ticks"], point
