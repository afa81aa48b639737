"""New commands, learned by the cores: the last layer, in integers.

The intents of the new commands get labels that were never a target.  Only their
rows change; as many old commands are read again beside the new ones, so that
the new rows learn when to be silent.
"""

import collections
import pathlib
import random
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

import jaxnmc as nmc
from edge import measure
from edge.bench import Bench
from edge.commands import Command, spare
from edge.measure import Integers
from jaxnmc.chip import learning
from jaxnmc.errors import UserError
from jaxnmc.evaluate.intents import Questions

HIDDEN = "norm"  # the site in front of the head
_RATES = tuple(range(-10, -2))
_EPOCHS = 4
_BATCH = 64


class Examples:
  """What the head reads at the end of commands, and the row that is right.

  Attributes:
    hidden: int32[N, D], codes of `fixed`.
    rows: int32[N].
  """

  def __init__(self, hidden: np.ndarray, rows: np.ndarray):
    self.hidden, self.rows = hidden, rows

  def __len__(self) -> int:
    return len(self.rows)

  def __getitem__(self, some) -> "Examples":
    return Examples(self.hidden[some], self.rows[some])

  def __add__(self, other: "Examples") -> "Examples":
    return Examples(
      np.concatenate([self.hidden, other.hidden]),
      np.concatenate([self.rows, other.rows]),
    )


def reader(made: Integers):
  """A function from questions to what the head reads behind them."""
  fixed = nmc.fixed(made.fn, made.plan, taps=True)
  run = jax.jit(lambda ids: fixed(made.qparams, {"ids": ids})[2][HIDDEN].q)

  def read(asked: Questions) -> Examples:
    found = []
    for start in range(0, len(asked), _BATCH):
      rows = np.minimum(np.arange(start, start + _BATCH), len(asked) - 1)
      out = np.asarray(run(asked.ids[rows]))
      last = out[np.arange(_BATCH), asked.lengths[rows] - 1]
      found.append(last[: len(asked) - start])
    return Examples(np.concatenate(found), asked.answers)

  return read


def learn(bench: Bench, source: str, place: pathlib.Path) -> dict[str, Any]:
  """Teaches the last layer of a stage's model the new commands.

  The rate is chosen on a fifth of the examples, which is learned afterwards,
  too; the test has other commands.

  Raises:
    UserError: there are no new commands.
  """
  corpus, options = bench.corpus, bench.options
  if not corpus.new:
    raise UserError("--new: name a file of new commands to learn on the chip")
  config, params = bench.run.model(source)
  made = bench.judge.integers(config, params, "W8A16")
  read = reader(made)
  number = {intent: k for k, intent in enumerate(corpus.new_intents)}

  def asked(commands: Sequence[Command], new: bool) -> Examples:
    label = lambda c: spare(number[c.intent]) if new else c.intent
    return read(measure.asked(bench.tokenizer, commands, config.context, label))

  draw = random.Random(0)
  count = min(options.examples, len(corpus.new))
  new = asked(draw.sample(list(corpus.new), count), True)
  old = asked(draw.sample(list(corpus.train), count), False)
  new_test, old_test = asked(corpus.new_test, True), read(bench.judge.test)
  head = learning.from_model(made.plan, made.qparams, hidden=HIDDEN)
  rows = sorted({bench.tokenizer.label_id(spare(k)) for k in number.values()})
  fifth = count // 5

  def taught(head, examples: Examples, rate: int, epochs: int, start: int = 0):
    return learning.tune(
      *(head, examples.hidden, examples.rows, learning.Delta(rate=rate)),
      rows=np.asarray(rows, np.int32),
      epochs=epochs,
      start=start,
    )

  right = lambda h, part: learning.accuracy(h, part.hidden, part.rows)
  tried = []
  for rate in _RATES:
    tuned, _ = taught(head, new[fifth:] + old[fifth:], rate, _EPOCHS)
    found = right(tuned, new[:fifth]), right(tuned, old[:fifth])
    tried.append({"rate": rate, "new": found[0], "old": found[1]})
  best = max(tried, key=lambda row: row["new"] + row["old"])["rate"]
  tuned, steps, curve = head, 0, []
  totals: collections.Counter[str] = collections.Counter()
  for epoch in range(_EPOCHS + 1):
    found = right(tuned, new_test), right(tuned, old_test)
    curve.append({"examples": steps, "new": found[0], "old": found[1]})
    if epoch < _EPOCHS:
      tuned, log = taught(tuned, new + old, best, 1, steps)
      steps += len(log.order)
      totals.update(log.totals())
  weights = {"before": head.weight, "after": tuned.weight}
  np.savez(place / "head.npz", **{k: np.asarray(w) for k, w in weights.items()})
  first, last = curve[0], curve[-1]
  return {
    "intents": list(number),
    "examples": count,
    "rehearsed": count,
    "epochs": _EPOCHS,
    "rate": best,
    "tried": tried,
    "curve": curve,
    "new_points": 100 * (last["new"] - first["new"]),
    "old_points": 100 * (last["old"] - first["old"]),
    "tested": {"new": len(new_test), "old": len(old_test)},
    "counts": dict(totals),
  }
