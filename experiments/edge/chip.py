"""On cores: as few as hold the model, commands that they read, their cost."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from integers import Integers

import jaxnmc as nmc
from jaxnmc.errors import PlacementError
from jaxnmc.evaluate.intents import Questions
from jaxnmc.numerics.fx import codes
from jaxnmc.report import chips, stats
from jaxnmc.report.placement import on_chips, summary

ARTICLE_CORES = 12
# One form for all runs, so that they can be compared: "auto" changes it where
# a step draws more than the fit of the other saw.
ENERGY = "running"
_TICK_HZ = (None, 1000.0)
# What the article asks of edge devices (its section 1.2), and of a query.
_LIMITS = {"w": 5.0, "ram_bytes": 256e6, "ms": 50.0, "spikes": 2e6}


def place(made: Integers):
  """(recorded graph, its placement on as few chips as do)."""
  graph = nmc.record(made.fn, made.plan, made.qparams)
  return graph, on_chips(graph)


def map_figures(graph, placed) -> dict[str, Any]:
  """What a placement takes, and what the article's twelve cores say."""
  found = {
    name: value
    for name, value in summary(placed).items()
    if not isinstance(value, (list, dict))
  }
  found["cores"] = len(placed.used_cores)
  fewest = on_chips(graph, objective="memory")
  found["fewest_cores"] = len(fewest.used_cores)
  few = dataclasses.replace(
    nmc.chip.loihi2(chips=1), cores_per_chip=ARTICLE_CORES
  )
  try:
    nmc.place(graph, few)
    found["twelve_cores"] = "fits"
  except PlacementError as error:
    found["twelve_cores"] = str(error)
  found["other_chips"] = chips.compare(placed)
  return found


def read_commands(
  made: Integers, placed, asked: Questions, rows: Sequence[int]
) -> dict[str, Any]:
  """Commands read by the cores, one after the other, each from rest.

  Args:
    made: model in integers.
    placed: where it lies.
    asked: questions.
    rows: which of them.

  Returns:
    How many integers equal `fixed`; the answers that were right; and the mean
    cost of a command up to its intent (modelled from counters).
  """
  engine = nmc.loihi(made.fn, made.plan, placed)
  fixed = jax.jit(nmc.fixed(made.fn, made.plan))
  same = whole = right = 0
  costs: list[dict[str, Any]] = []
  others: list[float] = []
  profiles: list[dict[float | None, dict[str, Any]]] = []
  for row in rows:
    ids = asked.ids[row, : asked.lengths[row]]
    out, _, counters = engine(made.qparams, {"ids": ids})
    want = fixed(made.qparams, {"ids": asked.ids[row]})[0]
    got = codes(out.logits)
    same += int(np.sum(got == codes(want.logits)[: len(ids)]))
    whole += int(np.size(got))
    right += int(np.argmax(got[-1])) == int(asked.answers[row])
    costs.append(nmc.cost(counters, placed, ENERGY).to_dict())
    others.append(nmc.cost(counters, placed, "step").run_mj.value)
    at = {
      hz: stats.profile(counters, placed, tick_hz=hz, energy=ENERGY)
      for hz in _TICK_HZ
    }
    profiles.append(at)
  mean = lambda name: float(np.mean([c[name]["value"] for c in costs]))
  return {
    "commands": len(costs),
    "mean_ids": float(np.mean([asked.lengths[row] for row in rows])),
    "equal": same,
    "integers": whole,
    "right": right,
    "ms": mean("ttft_ms"),
    "uj": 1e3 * mean("run_mj"),
    "other_form_uj": 1e3 * float(np.mean(others)),
    "mean_w": mean("mean_w"),
    "peak_w": mean("peak_w"),
    "synops_per_token": mean("synops_per_token"),
    "memory_bytes": costs[0]["memory_bytes"]["value"],
    "profile": _figures(profiles[0][None]),
    "profile_1khz": _figures(profiles[0][1000.0]),
    "gates": stats.check_budgets(profiles[0][None], _LIMITS),
    "label": "modelled",
  }


def _figures(profile: dict[str, Any]) -> dict[str, Any]:
  return {name: figure.value for name, figure in profile["figures"].items()} | {
    "ticks": profile["ticks"]
  }


def figures(bench, source: str) -> dict[str, Any]:
  """Integers of a spiking model, where they lie, and commands on the cores."""
  made, (graph, placed) = bench.integers(source), bench.placed(source)
  rows = np.linspace(0, len(bench.judge.test) - 1, bench.options.asked)
  return {
    "score": bench.judge.score(made),
    "placement": map_figures(graph, placed),
    "cores": read_commands(made, placed, bench.judge.test, rows.astype(int)),
  }
