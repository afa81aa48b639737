"""What is measured after every stage, on commands nobody trained on."""

import dataclasses
import os
import statistics
import time
from typing import Any

import integers
import jax
import numpy as np
from integers import Integers

import jaxnmc as nmc
from edge.commands import Corpus, question
from jaxnmc.evaluate import intents
from jaxnmc.io import info
from jaxnmc.io.tokenizer import BPETokenizer
from jaxnmc.models import gpt, spike_counts
from jaxnmc.train import data

_REPEATS = 21


@dataclasses.dataclass(frozen=True, eq=False)
class Judge:
  """Questions and text, the same for every stage.

  Attributes:
    tokenizer: of all models.
    test: commands that were held out, with their intents.
    calibration: int32[B, T], training text that ranges are measured on.
    context: ids that the models take.
  """

  tokenizer: BPETokenizer
  test: intents.Questions
  calibration: np.ndarray
  context: int

  @classmethod
  def of(
    cls,
    corpus: Corpus,
    tokenizer: BPETokenizer,
    context: int,
    windows: int,
    most: int,
  ) -> "Judge":
    """The judge of a corpus.

    Args:
      corpus: commands.
      tokenizer: with their intents as labels.
      context: ids that the models take.
      windows: of training text, to calibrate on.
      most: commands of the test.
    """
    stream = data.pack(corpus.documents(), tokenizer)
    size = min(context // 2, len(stream.ids) // windows)
    rows = stream.ids[: size * windows].reshape(windows, size)
    test = asked(tokenizer, corpus.test[:most], context)
    return cls(tokenizer, test, rows, context)

  def floats(self, config: gpt.Config, params: Any) -> dict[str, Any]:
    """Scores of a float model."""
    run = jax.jit(nmc.reference(gpt.make(config)))
    return intents.score(run, params, self.test).to_dict()

  def integers(self, config: gpt.Config, params: Any, preset: str) -> Integers:
    """Formats by the calibration text, and the integers."""
    return integers.of(config, params, self.calibration, preset)

  def score(self, made: Integers) -> dict[str, Any]:
    """Scores of a model under its formats.

    Softmax attention has no integers; its scores are those of `fake_quant`,
    the float model on the grids of the plan.
    """
    if made.config.attention == "ssa":
      run, given, name = nmc.fixed(made.fn, made.plan), made.qparams, "fixed"
    else:
      run, given = nmc.fake_quant(made.fn, made.plan), made.params
      name = "fake_quant"
    found = intents.score(jax.jit(run), given, self.test)
    return found.to_dict() | {"interpreter": name}


def asked(
  tokenizer: BPETokenizer,
  commands,
  context: int,
  label=lambda command: command.intent,
) -> intents.Questions:
  """Commands as questions.

  Args:
    tokenizer: with a label for each.
    commands: what was said.
    context: ids that the model takes.
    label: of a command.
  """
  texts = [question(command.text) for command in commands]
  answers = [tokenizer.label_id(label(command)) for command in commands]
  return intents.questions(tokenizer, texts, answers, context)


def size(config: gpt.Config, bits: int = 32) -> dict[str, Any]:
  """Parameters, and their megabytes at so many bits each."""
  count = config.num_params
  return {"parameters": count, "megabytes": count * bits / 8e6, "bits": bits}


def arithmetic(config: gpt.Config) -> dict[str, int]:
  """Operations of one token of the float model, by kind."""
  return info.operations(config)


def typical(test: intents.Questions) -> np.ndarray:
  """The ids of a question of median length: int32[T]."""
  order = np.argsort(test.lengths, kind="stable")
  row = order[len(order) // 2]
  return test.ids[row, : test.lengths[row]]


def spikes(
  config: gpt.Config, params: Any, test: intents.Questions, most: int = 128
) -> dict[str, Any]:
  """Spikes of a command, mean and most, and of each site (measured).

  Args:
    config: of a spiking model.
    params: its float parameters.
    test: commands; evenly chosen ones of them are counted.
    most: how many.
  """
  rows = np.linspace(0, len(test) - 1, min(most, len(test))).astype(int)
  some = test[rows]
  found = spike_counts.count(config, params, some.ids, some.mask)
  return {
    "commands": len(rows),
    "mean": found.mean,
    "worst": found.worst,
    "rate": found.total / found.possible,
    "sites": found.rows(),
    "histograms": {k: [int(n) for n in h] for k, h in found.histograms.items()},
    "label": "measured",
  }


def cpu_latency(config: gpt.Config, params: Any, ids: np.ndarray) -> dict:
  """Time of one question on this CPU: its ids at once, and one more token.

  Returns:
    Medians in ms ("query_ms" up to the intent, "token_ms" of a next token),
    the load of the machine and its cores; measured.
  """
  fn = gpt.make(config)
  run = jax.jit(nmc.reference(fn))
  start = gpt.init_state(config)
  _, state = run(params, {"ids": ids}, start)

  def timed(inputs, state) -> list[float]:
    times = []
    for _ in range(_REPEATS):
      begin = time.perf_counter()
      jax.block_until_ready(run(params, {"ids": inputs}, state)[0].logits)
      times.append(1e3 * (time.perf_counter() - begin))
    return times[1:]

  timed(ids[:1], state)
  query, token = timed(ids, start), timed(ids[:1], state)
  return {
    "query_ids": len(ids),
    "query_ms": statistics.median(query),
    "token_ms": statistics.median(token),
    "load": os.getloadavg()[0],
    "cpus": os.cpu_count(),
    "label": "measured",
  }
