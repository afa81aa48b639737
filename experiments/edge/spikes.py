"""From float to spikes: conversion, a short training, tuned thresholds."""

import pathlib
from typing import Any

from edge import stages
from edge.bench import Bench
from jaxnmc.models import to_spikes

_LR = 1e-3


def recipe(bench: Bench, ticks: int, levels: int) -> to_spikes.Recipe:
  """How the pipeline converts."""
  return to_spikes.Recipe(
    ticks=ticks,
    signed=True,
    share=90.0,
    mlp_ticks=levels,
    mlp_top=bench.options.mlp_top,
  )


def convert(bench: Bench, source: str, place: pathlib.Path) -> dict[str, Any]:
  """Spiking attention and blocks, then some steps beside the float model."""
  options = bench.options
  teacher = bench.run.model(source)
  how = recipe(bench, options.ticks, options.levels)
  config, params = to_spikes.convert(*teacher, bench.judge.calibration, how)
  found = {"converted": bench.judge.floats(config, params)}
  params = bench.teach(place, config, params, options.tune, _LR, teacher)
  stages.keep(place, config, params)
  return found | {"tuned": bench.judge.floats(config, params)}
