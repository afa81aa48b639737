"""The first stages: a float model, and the same with fewer heads and units."""

import pathlib
from typing import Any

from edge import measure, stages, tiny_gpt
from edge.bench import Bench
from jaxnmc.compress import heads, shrink, units

# Of the learning rate: what is trained already, is trained gently.
_RECOVERY = 0.25


def baseline(bench: Bench, place: pathlib.Path) -> dict[str, Any]:
  """Trains TinyGPT; scores, sizes and times it."""
  options = bench.options
  config = tiny_gpt.config(
    bench.tokenizer,
    hidden_size=options.hidden,
    num_layers=options.layers,
    num_heads=options.heads,
  )
  params = bench.teach(place, config, None, options.steps, options.lr)
  stages.keep(place, config, params)
  return figures(bench, config, params)


def prune(bench: Bench, source: str, place: pathlib.Path) -> dict[str, Any]:
  """Takes heads and units out, and trains what is left for a while."""
  options = bench.options
  config, params = bench.run.model(source)
  kept = {
    "heads": heads.keep(config, params, options.prune_heads),
    "units": units.keep(config, params, options.prune_units),
  }
  small, left = shrink.shrink(config, params, **kept)
  found = {
    "left": {name: [int(m.sum()) for m in kept[name]] for name in kept},
    "of": {name: [len(m) for m in kept[name]] for name in kept},
    "cut": bench.judge.floats(small, left),
  }
  lr = _RECOVERY * options.lr
  left = bench.teach(place, small, left, options.recover, lr)
  stages.keep(place, small, left)
  return found | figures(bench, small, left)


def figures(bench: Bench, config, params) -> dict[str, Any]:
  """What is asked of every float model."""
  ids = measure.typical(bench.judge.test)
  return {
    "score": bench.judge.floats(config, params),
    "size": measure.size(config),
    "operations": measure.arithmetic(config),
    "cpu": measure.cpu_latency(config, params, ids),
  }
