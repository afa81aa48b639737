"""A few hundred examples of new rows, and what becomes of the old ones.

Features are a frozen random layer of noisy inputs; the old rows are trained on
them in floats and rounded to 8 bits, the new ones start at 0.
"""

import functools

import numpy as np
import pytest
from jax import numpy as jnp

from jaxnmc.chip import learning
from jaxnmc.chip.costs.figures import Figure
from jaxnmc.errors import ConfigError
from jaxnmc.numerics.formats import Format

D, OLD, NEW = 64, 20, 4
ROWS = tuple(range(OLD, OLD + NEW))
FORMATS = learning.Formats(Format(16, 12), Format(8, 6), Format(16, 10))


@functools.cache
def data():
  """(head, hidden and targets: of new rows to learn, old to learn, both to
  test)."""
  rng = np.random.default_rng(0)
  centres = rng.normal(size=(OLD + NEW, 24))
  mixing = rng.normal(size=(24, D)) / 24**0.5

  def draw(rows, count):
    targets = rng.choice(rows, count)
    x = centres[targets] + 0.7 * rng.normal(size=(count, 24))
    hidden = np.maximum(x @ mixing, 0)
    return np.round(hidden * 2**12).astype(np.int32), targets

  old = range(OLD)
  x, y = draw(old, 1000)
  h, w = x / 2**12, np.zeros((OLD, D))
  for _ in range(200):
    z = h @ w.T
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    w -= 2.0 * (p - np.eye(OLD)[y]).T @ h / len(h)
  codes = np.zeros((OLD + NEW, D), int)
  codes[:OLD] = np.clip(np.round(w * 2**6), -127, 127)
  head = learning.Head.of(codes, FORMATS)
  return head, draw(ROWS, 300), draw(old, 300), draw(old, 500), draw(ROWS, 500)


def tuned(rule, rehearse=100, rows=ROWS, epochs=2):
  head, (x, y), (x_old, y_old), _, _ = data()
  x = np.concatenate([x, x_old[:rehearse]])
  y = np.concatenate([y, y_old[:rehearse]])
  return learning.tune(head, x, y, rule, rows=rows, epochs=epochs)


def scores(head):
  _, _, _, old, new = data()
  return learning.accuracy(head, *old), learning.accuracy(head, *new)


@pytest.mark.parametrize("error", ["softmax", "perceptron"])
def test_new_rows_are_learnt_and_old_ones_kept(error):
  start, before = scores(data()[0])
  rate = {"softmax": -7, "perceptron": -6}[error]
  head, log = tuned(learning.Delta(rate=rate, error=error))
  old, new = scores(head)
  assert new >= before + 0.20
  assert old >= start - 0.02
  assert start > 0.9
  totals = log.totals()
  assert totals["examples"] == 800
  assert 0 < totals["writes"] <= totals["updates"] <= 800 * NEW * D
  assert totals["randoms"] == totals["updates"]


def test_rounding_to_the_nearest_loses_small_changes():
  rate = -9
  _, random = tuned(learning.Delta(rate=rate))
  _, nearest = tuned(learning.Delta(rate=rate, rounding="nearest"))
  assert nearest.totals()["writes"] < random.totals()["writes"] / 4
  assert nearest.totals()["randoms"] == 0


def test_energy_is_counts_times_quoted_constants():
  _, log = tuned(learning.Delta(rate=-7))
  totals, figures = log.totals(), log.energy()
  assert all(isinstance(f, Figure) for f in figures.values())
  assert {f.label for f in figures.values()} == {"modelled"}
  n, written = totals["updates"], totals["writes"]
  value = lambda name: figures[name].value
  # 3.1 + 2 * 0.1 pJ; 8 bits of a word of 64 that takes 20 pJ; 6; 120 pJ.
  assert value("arithmetic_uj") == pytest.approx(n * 3.3e-6)
  assert value("memory_uj") == pytest.approx((n + written) * 2.5e-6)
  assert value("random_uj") == pytest.approx(n * 6e-6)
  assert value("loihi1_uj") == pytest.approx(n * 120e-6)
  assert value("loihi1_ms") == pytest.approx(n * 6.1e-6)
  assert value("loihi2_uj") is None
  with pytest.raises(ConfigError, match="weight_bits is 0"):
    learning.energy(totals, weight_bits=0)


def test_the_same_seed_learns_the_same():
  one, _ = tuned(learning.Delta(rate=-7, seed=1))
  again, _ = tuned(learning.Delta(rate=-7, seed=1))
  other, _ = tuned(learning.Delta(rate=-7, seed=2))
  np.testing.assert_array_equal(one.weight, again.weight)
  assert (np.asarray(one.weight) != np.asarray(other.weight)).any()
  assert one.weight.dtype == jnp.int8
