"""From float to spikes: conversion, a short training, tuned thresholds."""

import pathlib
from typing import Any

from edge import measure, stages
from edge.bench import Bench
from jaxnmc.errors import UserError
from jaxnmc.models import to_spikes, tune_thresholds

RATE = 0.75  # of the learning rate
_QUESTIONS = 32
_FACTORS = (0.5, 0.71, 0.84, 0.92, 1.0, 1.09, 1.19, 1.41, 2.0)
_SHARES = (0.9, 0.75, 0.5, 0.25)


def recipe(bench: Bench, ticks: int, levels: int) -> to_spikes.Recipe:
  """How the pipeline converts."""
  return to_spikes.Recipe(
    ticks=ticks,
    signed=True,
    share=90.0,
    mlp_ticks=levels,
    mlp_top=bench.options.mlp_top,
  )


def convert(
  bench: Bench, source: str, teacher: str, place: pathlib.Path
) -> dict[str, Any]:
  """Spiking attention and blocks, then some steps beside a float model."""
  options = bench.options
  config, params = to_spikes.convert(
    *bench.run.model(source),
    bench.judge.calibration,
    recipe(bench, options.ticks, options.levels),
  )
  found = {
    "converted": bench.judge.floats(config, params),
    "converted_spikes": measure.spikes(config, params, bench.judge.test),
  }
  like = bench.run.model(teacher)
  lr = RATE * options.lr
  params = bench.teach(place, config, params, options.tune, lr, like)
  stages.keep(place, config, params)
  return found | {
    "tuned": bench.judge.floats(config, params),
    "spikes": measure.spikes(config, params, bench.judge.test),
  }


def thresholds(
  bench: Bench, source: str, teacher: str, place: pathlib.Path
) -> dict[str, Any]:
  """Thresholds nearest to the float model within the budget of spikes.

  Also measured: all thresholds times one factor, and budgets below what the
  model sends.
  """
  config, params = bench.run.model(source)
  # Of training: the test stays unseen.
  some = bench.corpus.train[:_QUESTIONS]
  asked = measure.asked(bench.tokenizer, some, bench.judge.context)
  judge = tune_thresholds.Judge(
    bench.run.model(teacher), (config, params), asked.ids, asked.mask
  )
  found = tune_thresholds.tune(
    judge, bench.options.budget, passes=bench.options.passes
  )
  tuned = judge.params(found.best)
  stages.keep(place, config, tuned)
  sites = [site.key for site in judge.sites]
  grid = [judge(dict.fromkeys(sites, factor)) for factor in _FACTORS]
  lean = []
  for share in _SHARES:
    try:
      best = tune_thresholds.tune(
        judge, share * found.start.spikes, passes=0
      ).best
      lean.append(_point(best) | {"budget": share * found.start.spikes})
    except UserError as error:
      lean.append({"budget": share * found.start.spikes, "no": str(error)})
  return {
    "budget": bench.options.budget,
    "before": _point(found.start),
    "after": _point(found.best),
    "multipliers": dict(found.best.multipliers),
    "points": found.measured,
    "grid": [
      _point(p) | {"factor": f} for f, p in zip(_FACTORS, grid, strict=True)
    ],
    "lean": lean,
    "score": bench.judge.floats(config, tuned),
    "spikes": measure.spikes(config, tuned, bench.judge.test),
  }


def _point(point) -> dict[str, float]:
  return {"spikes": point.spikes, "kl": point.divergence}
