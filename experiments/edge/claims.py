"""What the article says about why it works, measured on our models."""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from integers import Integers

import jaxnmc as nmc
from edge import chip, measure, spikes
from edge.bench import Bench
from jaxnmc.evaluate.intents import Questions
from jaxnmc.models import gpt, to_spikes

NEAR_ZERO = 0.01


def softmax_sparsity(
  config: gpt.Config, params: Any, ids: np.ndarray
) -> dict[str, Any]:
  """How much of softmax attention is near zero, over pairs that are seen.

  Args:
    config: of a model with softmax attention and no rotary positions.
    params: its float parameters.
    ids: int[B, T].

  Returns:
    "near_zero": share of weights below 1 %, of tokens that see at least eight;
    "strongest": mean of the largest weight of a token; "effective": mean of
    exp(entropy), the number of tokens that attention is spread over.
  """
  run = jax.jit(nmc.reference(gpt.make(config), taps=True))
  taps = run(params, {"ids": ids})[2]
  near, strongest, effective = [], [], []
  for layer in range(config.num_layers):
    q, k = (
      np.asarray(taps[f"layers.{layer}.attn.{n}"], np.float64) for n in "qk"
    )
    heads = lambda x: x.reshape(*x.shape[:2], -1, config.head_size)
    scores = np.einsum("bthd,bshd->bhts", heads(q), heads(k))
    scores /= np.sqrt(config.head_size)
    length = scores.shape[-1]
    scores = np.where(np.tri(length, dtype=bool), scores, -np.inf)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    rows = p[:, :, 7:]
    seen = np.tri(length, dtype=bool)[7:]
    near.append(np.mean((rows < NEAR_ZERO)[..., seen]))
    strongest.append(np.mean(rows.max(-1)))
    logs = np.log(np.where(rows > 0, rows, 1))
    effective.append(np.mean(np.exp(-np.sum(rows * logs, -1))))
  return {
    "near_zero": float(np.mean(near)),
    "strongest": float(np.mean(strongest)),
    "effective": float(np.mean(effective)),
    "by_layer": [float(x) for x in near],
    "label": "measured",
  }


def by_length(
  made: Integers, placed: Any, asked: Questions, lengths: Sequence[int]
) -> dict[str, Any]:
  """Energy, time and work of commands of different lengths, on the cores.

  The same tokens are read longer and longer, so that nothing else changes.

  Args:
    made: model in integers.
    placed: where it lies.
    asked: questions; the longest one is read.
    lengths: how many of its ids.

  Returns:
    "rows" {"ids", "ms", "uj", "synops"} (modelled from counters), and a line
    through the energies: "fixed_uj" of a command of no ids, "uj_per_id".
  """
  row = int(np.argmax(asked.lengths))
  engine = nmc.loihi(made.fn, made.plan, placed)
  rows = []
  for length in sorted({min(n, int(asked.lengths[row])) for n in lengths}):
    ids = asked.ids[row, :length]
    counters = engine(made.qparams, {"ids": ids})[2]
    cost = nmc.cost(counters, placed, chip.ENERGY)
    rows.append(
      {
        "ids": length,
        "ms": cost.ttft_ms.value,
        "uj": 1e3 * cost.run_mj.value,
        "synops": cost.synops_per_token.value * length,
      }
    )
  slope, fixed = np.polyfit(
    [r["ids"] for r in rows], [r["uj"] for r in rows], 1
  )
  return {
    "rows": rows,
    "uj_per_id": float(slope),
    "fixed_uj": float(fixed),
    "label": "modelled",
  }


def by_ticks(
  bench: Bench, source: str, teacher: str, place: pathlib.Path
) -> list[dict[str, Any]]:
  """Accuracy, spikes, time and energy with more ticks.

  Each model is trained for the same few steps; blocks count to twice the ticks
  of attention.
  """
  rows = []
  test = bench.judge.test
  asked = np.linspace(0, len(test) - 1, bench.options.asked).astype(int)
  for ticks in map(int, filter(None, bench.options.try_ticks.split(","))):
    config, params = to_spikes.convert(
      *bench.run.model(source),
      bench.judge.calibration,
      spikes.recipe(bench, ticks, 2 * ticks),
    )
    params = bench.teach(
      *(place / f"{ticks}-ticks", config, params, bench.options.try_steps),
      *(spikes.RATE * bench.options.lr, bench.run.model(teacher)),
    )
    made = bench.judge.integers(config, params, "W8A16")
    _, placed = chip.place(made)
    read = chip.read_commands(made, placed, test, asked)
    score = bench.judge.score(made)
    rows.append(
      {
        "ticks": ticks,
        "steps": bench.options.try_steps,
        "accuracy": score["accuracy"],
        "perplexity": score["perplexity"],
        "spikes": measure.spikes(config, params, test)["mean"],
        "cores": len(placed.used_cores),
        **{name: read[name] for name in ("ms", "uj", "memory_bytes")},
      }
    )
  return rows


def pruning(bench: Bench, whole: str, small: str) -> dict[str, Any]:
  """Spikes of a command with and without the parts that were pruned.

  Both models are as converted: thresholds by the same rule, nothing trained.
  """
  found = {}
  for name, source in (("whole", whole), ("pruned", small)):
    options = bench.options
    config, params = to_spikes.convert(
      *bench.run.model(source),
      bench.judge.calibration,
      spikes.recipe(bench, options.ticks, options.levels),
    )
    found[name] = measure.spikes(config, params, bench.judge.test)["mean"]
  return found | {"times_fewer": found["whole"] / found["pruned"]}


def figures(bench: Bench, final: str, place: pathlib.Path) -> dict[str, Any]:
  """All of them."""
  made, (_, placed) = bench.integers(final), bench.placed(final)
  lengths = [int(n) for n in bench.options.try_ids.split(",")]
  return {
    "softmax": softmax_sparsity(
      *bench.run.model("baseline"), bench.judge.calibration[:16]
    ),
    "pruning": pruning(bench, "baseline", "prune"),
    "lengths": by_length(made, placed, bench.judge.test, lengths),
    "ticks": by_ticks(bench, "prune", "baseline", place),
  }
