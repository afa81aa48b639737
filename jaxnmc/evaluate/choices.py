"""Accuracy on multiple-choice tasks, with its interval and the level of chance.

The choice with the largest log-likelihood is the answer: `acc` takes the sum,
`acc_norm` the sum over the UTF-8 bytes of the choice.  (lm-evaluation-harness
calls the same `acc` and `acc_norm`, but counts characters; its `acc_bytes`
counts bytes. In ASCII there is no difference.)
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxnmc.evaluate.likelihood import Likelihood, encode_pair
from jaxnmc.evaluate.tasks import Task, queries
from jaxnmc.io.tokenizer import Tokenizer

# Of a normal distribution, 95 % lie within so many standard deviations.
_Z = 1.959963984540054


@dataclasses.dataclass(frozen=True)
class Answer:
  """What the model says to one item.

  Attributes:
    id: of the item.
    label: index of the right choice.
    log_p: ln p of each choice.
    bytes: UTF-8 bytes of each scored text.
  """

  id: str
  label: int
  log_p: tuple[float, ...]
  bytes: tuple[int, ...]

  @property
  def pick(self) -> int:
    """The likeliest choice; of equal ones the first."""
    return int(np.argmax(self.log_p))

  @property
  def pick_norm(self) -> int:
    """The choice that is likeliest per byte; of equal ones the first."""
    return int(np.argmax(np.array(self.log_p) / np.array(self.bytes)))


@dataclasses.dataclass(frozen=True)
class Accuracy:
  """A share of right answers.

  Attributes:
    right: number of them.
    count: of how many.
  """

  right: int
  count: int

  @property
  def value(self) -> float:
    """The share."""
    return self.right / self.count

  @property
  def interval(self) -> tuple[float, float]:
    """95 % confidence interval; see `wilson`."""
    return wilson(self.right, self.count)


@dataclasses.dataclass(frozen=True)
class Result:
  """Accuracy on one task.

  Attributes:
    acc: by the sum.
    acc_norm: by the sum over bytes.
    chance: what guessing gives.
  """

  acc: Accuracy
  acc_norm: Accuracy
  chance: float


def wilson(right: int, count: int, z: float = _Z) -> tuple[float, float]:
  """Wilson's score interval of a share (1927, JASA 22, 209-212).

      (p + z^2/2n -+ z sqrt(p (1 - p) / n + z^2/4n^2)) / (1 + z^2/n)

  Args:
    right: number of successes.
    count: number of trials, >= 1.
    z: standard deviations; 95 % by default.

  Returns:
    (low, high), within 0 ... 1.
  """
  share, over = right / count, z * z / count
  middle = share + over / 2
  width = z * math.sqrt(share * (1 - share) / count + over / (4 * count))
  low, high = (middle - width) / (1 + over), (middle + width) / (1 + over)
  # At the ends the formula gives 0 and 1 but for rounding.
  return low if right else 0.0, high if right < count else 1.0


def result(task: Task, answers: Sequence[Answer]) -> Result:
  """Accuracy over answers.

  Args:
    task: the task (or its first items).
    answers: one for each of its items.
  """
  count = len(answers)
  chance = sum(1 / len(item.choices) for item in task.items) / len(task.items)
  return Result(
    Accuracy(sum(a.pick == a.label for a in answers), count),
    Accuracy(sum(a.pick_norm == a.label for a in answers), count),
    chance,
  )


def answer(
  likelihood: Likelihood,
  tokenizer: Tokenizer,
  task: Task,
  *,
  done: Mapping[str, Answer] | None = None,
  keep: Callable[[Sequence[Answer]], Any] | None = None,
  progress: Callable[[int], None] | None = None,
  block: int = 32,
) -> list[Answer]:
  """Answers the items of a task.

  Args:
    likelihood: a backend.
    tokenizer: the model's.
    task: the task.
    done: answers that are there already, by id.
    keep: called with the answers of every block as soon as they are there.
    progress: called with the number of items done since the last call.
    block: items of similar length that are scored together.

  Returns:
    One answer per item, in the order of the file.

  Raises:
    TokenError: the tokenizer is not the model's.
  """
  found = dict(done or {})
  todo = []
  for item in task.items:
    if item.id not in found:
      asked = queries(item, task.form)
      pairs = [encode_pair(tokenizer, q.context, q.continuation) for q in asked]
      todo.append((item, [q.size for q in asked], pairs))
  if progress is not None:
    progress(len(task.items) - len(todo))
  todo.sort(key=lambda entry: sum(len(p.context) for p in entry[2]))
  for first in range(0, len(todo), block):
    some = todo[first : first + block]
    likely = iter(likelihood([pair for _, _, pairs in some for pair in pairs]))
    new = []
    for item, sizes, pairs in some:
      log_p = tuple(next(likely).log_p for _ in pairs)
      new.append(Answer(item.id, item.label, log_p, tuple(sizes)))
    found |= {one.id: one for one in new}
    if keep is not None:
      keep(new)
    if progress is not None:
      progress(len(new))
  return [found[item.id] for item in task.items]
