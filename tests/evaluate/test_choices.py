"""Accuracy: right answers counted, intervals, resumed answers not asked."""

import math

import numpy as np
import pytest
from scipy import stats

from jaxnmc.evaluate import choices, tasks
from jaxnmc.evaluate.likelihood import encode_pair
from tests.evaluate import small

ITEMS = (
  tasks.Item("a", "one two three", ("four", "a much longer one", "x"), 0),
  tasks.Item("b", "of a kind " * 4, ("five", "six"), 1),
  tasks.Item("c", "so", ("it goes", "it went", "it was", "it is"), 2),
)
TASK = tasks.Task("set", "set.jsonl", "plain", "0" * 64, ITEMS)


@pytest.mark.parametrize("count", [1, 7, 100])
def test_interval_is_wilsons(count):
  for right in range(0, count + 1, max(count // 7, 1)):
    low, high = choices.wilson(right, count)
    want = stats.binomtest(right, count).proportion_ci(method="wilson")
    assert low == pytest.approx(want.low, abs=1e-12)
    assert high == pytest.approx(want.high, abs=1e-12)
    assert 0 <= low <= right / count <= high <= 1


def test_picks():
  one = choices.Answer("a", 1, (-6.0, -4.0, -4.0), (12, 4, 4))
  assert (one.pick, one.pick_norm) == (1, 0)


def test_result_counts():
  answers = [
    choices.Answer("a", 0, (-3.0, -4.0, -9.0), (1, 4, 9)),
    choices.Answer("b", 1, (-2.0, -1.0), (1, 1)),
    choices.Answer("c", 2, (-1.0, -2.0, -3.0, -4.0), (1, 1, 1, 1)),
  ]
  found = choices.result(TASK, answers)
  assert (found.acc.right, found.acc_norm.right, found.acc.count) == (2, 1, 3)
  assert found.acc.value == pytest.approx(2 / 3)
  assert found.acc.interval == choices.wilson(2, 3)
  assert found.chance == pytest.approx((1 / 3 + 1 / 2 + 1 / 4) / 3)


def _oracle(kind: str, item: tasks.Item) -> list[float]:
  found = []
  for choice in item.choices:
    pair = encode_pair(small.TOKENIZER, item.question, f" {choice}")
    inputs = np.concatenate([[small.BOS], *pair])[:-1].astype(np.int32)
    log_p = small.log_p(kind, inputs)[len(pair.context) :]
    found.append(log_p[np.arange(len(log_p)), pair.continuation].sum())
  return found


@pytest.mark.parametrize("kind", ["recurrent", "stateless"])
def test_answers_are_numpys(kind):
  score = small.likelihood(kind)
  kept, seen = [], []
  answers = choices.answer(
    *(score, small.TOKENIZER, TASK),
    keep=kept.extend,
    progress=seen.append,
    block=2,
  )
  assert [one.id for one in answers] == ["a", "b", "c"]
  assert sorted(kept, key=lambda one: one.id) == answers
  assert sum(seen) == 3
  for one, item in zip(answers, ITEMS):
    assert one.log_p == pytest.approx(_oracle(kind, item), rel=1e-5)
    assert one.bytes == tuple(len(choice) for choice in item.choices)
    assert one.label == item.label

  # What is there is not asked again, and the rest comes out the same.
  made_up = choices.Answer("b", 1, (-1.0, -2.0), (4, 3))
  again, kept = [], []
  found = choices.answer(
    *(score, small.TOKENIZER, TASK),
    done={"b": made_up},
    keep=kept.extend,
    progress=again.append,
  )
  assert found == [answers[0], made_up, answers[2]]
  assert {one.id for one in kept} == {"a", "c"}
  assert again[0] == 1
  assert all(math.isfinite(p) for one in found for p in one.log_p)
