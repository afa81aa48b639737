"""The first stages: a float model, and the same with fewer heads and units."""

import pathlib
from typing import Any

from edge import measure, stages, teach
from edge.bench import Bench

_LR = 2e-3
_RECOVERY_LR = 5e-4


def baseline(bench: Bench, place: pathlib.Path) -> dict[str, Any]:
  """Trains TinyGPT; scores, sizes and times it."""
  options = bench.options
  config = teach.tiny_gpt(
    bench.tokenizer,
    hidden_size=options.hidden,
    num_layers=options.layers,
    num_heads=options.heads,
  )
  params = bench.teach(place, config, None, options.steps, _LR)
  stages.keep(place, config, params)
  return figures(bench, config, params)


def figures(bench: Bench, config, params) -> dict[str, Any]:
  """What is asked of every float model."""
  ids = measure.typical(bench.judge.test)
  return {
    "score": bench.judge.floats(config, params),
    "size": measure.size(config),
    "operations": measure.arithmetic(config),
    "cpu": measure.cpu_latency(config, params, ids),
  }
