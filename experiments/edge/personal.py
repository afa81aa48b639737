"""New commands, learned by the cores: the last layer, in integers.

The intents of the new commands get labels that were never a target.  Only their
rows change; old commands are read again beside the new ones, so that the new
rows learn when to be silent.
"""

import collections
import dataclasses
import pathlib
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from edge import measure, states
from edge.bench import Bench
from edge.commands import Command, spare
from edge.states import Examples
from jaxnmc.chip import learning
from jaxnmc.errors import UserError

_RATES = (-10, -9, -8, -7, -6)
_EPOCHS = 3
_MOST_LOST = 0.02  # of old commands, by the choice of the rate


@dataclasses.dataclass(frozen=True, eq=False)
class Lesson:
  """Examples to learn, and others to see how it went.

  Attributes:
    head: before.
    rows: of the head, those of new labels.
    new: new commands, to learn.
    old: old ones, to learn beside them.
    new_test: new commands that are not learned.
    chosen: half of the commands nobody trained on; rates are chosen by it.
    old_test: the other half.
  """

  head: learning.Head
  rows: np.ndarray
  new: Examples
  old: Examples
  new_test: Examples
  chosen: Examples
  old_test: Examples

  def taught(
    self, head: learning.Head, examples: Examples, rate: int, start: int
  ) -> tuple[learning.Head, learning.Log]:
    """The head after all examples, once each."""
    return learning.tune(
      *(head, examples.hidden, examples.rows, learning.Delta(rate=rate)),
      rows=self.rows,
      start=start,
    )


def right(head: learning.Head, some: Examples) -> float:
  """Share of examples whose row wins."""
  return learning.accuracy(head, some.hidden, some.rows)


def lesson(bench: Bench, source: str) -> Lesson:
  """Examples of a run, read by a stage's model in integers.

  Raises:
    UserError: there are no new commands.
  """
  corpus, options = bench.corpus, bench.options
  if not corpus.new:
    raise UserError("--new: name a file of new commands to learn on the chip")
  made = bench.integers(source)
  read = states.reader(made)
  labels = {intent: spare(k) for k, intent in enumerate(corpus.new_intents)}

  def asked(commands: Sequence[Command]) -> Examples:
    label = lambda c: labels.get(c.intent, c.intent)
    context = made.config.context
    return read(measure.asked(bench.tokenizer, commands, context, label))

  draw = random.Random(0)
  some = lambda rows, count: draw.sample(list(rows), min(count, len(rows)))
  new = asked(some(corpus.new, options.examples))
  old = asked(some(corpus.train, options.rehearse * len(new)))
  test = bench.tested(source)
  rows = sorted(bench.tokenizer.label_id(label) for label in labels.values())
  return Lesson(
    learning.from_model(made.plan, made.qparams, hidden=states.HIDDEN),
    np.asarray(rows, np.int32),
    *(new, old, asked(corpus.new_test), test[::2], test[1::2]),
  )


def rates(given: Lesson) -> list[dict[str, Any]]:
  """What each rate does to a fifth of the new examples, not learned yet.

  "old" is of the half of the old commands that choices are made by.
  """
  fifth = len(given.new) // 5
  found = []
  for rate in _RATES:
    head, start = given.head, 0
    for _ in range(_EPOCHS):
      examples = given.new[fifth:] + given.old
      head, log = given.taught(head, examples, rate, start)
      start += len(log.order)
    found.append(
      {
        "rate": rate,
        "new": right(head, given.new[:fifth]),
        "old": right(head, given.chosen),
      }
    )
  return found


def best(tried: list[dict[str, Any]], before: float) -> int:
  """The rate with most new commands right among those that keep the old ones.

  Args:
    tried: of `rates`.
    before: old commands that were right before.
  """
  kept = [row for row in tried if row["old"] >= before - _MOST_LOST]
  if not kept:
    return max(tried, key=lambda row: row["old"])["rate"]
  return max(kept, key=lambda row: row["new"])["rate"]


def learn(bench: Bench, source: str, place: pathlib.Path) -> dict[str, Any]:
  """Teaches the last layer of a stage's model the new commands."""
  given = lesson(bench, source)
  tried = rates(given)
  rate = best(tried, right(given.head, given.chosen))
  head, steps = given.head, 0
  curve: list[dict[str, float]] = []
  totals: collections.Counter[str] = collections.Counter()
  for epoch in range(_EPOCHS + 1):
    found = right(head, given.new_test), right(head, given.old_test)
    curve.append({"examples": steps, "new": found[0], "old": found[1]})
    if epoch < _EPOCHS:
      head, log = given.taught(head, given.new + given.old, rate, steps)
      steps += len(log.order)
      totals.update(log.totals())
  weights = {"before": given.head.weight, "after": head.weight}
  np.savez(place / "head.npz", **{k: np.asarray(w) for k, w in weights.items()})
  first, last = curve[0], curve[-1]
  energy = log.energy()
  return {
    "intents": list(bench.corpus.new_intents),
    "examples": len(given.new),
    "rehearsed": len(given.old),
    "epochs": _EPOCHS,
    "rate": rate,
    "tried": tried,
    "curve": curve,
    "new_points": 100 * (last["new"] - first["new"]),
    "old_points": 100 * (last["old"] - first["old"]),
    "tested": {"new": len(given.new_test), "old": len(given.old_test)},
    "counts": dict(totals),
    "energy_of_last_epoch": {
      k: dataclasses.asdict(f) for k, f in energy.items()
    },
  }
