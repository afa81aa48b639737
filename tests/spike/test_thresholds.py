"""Thresholds from calibration sets, against plain searches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnmc.errors import ConfigError
from jaxnmc.spike import thresholds

SEED = st.integers(0, 2**31)


def _cost(z, lam, ticks):
  return np.mean(np.maximum(z - lam, 0) ** 2) + lam**2 / (12 * ticks**2)


@given(SEED, st.integers(1, 32))
def test_least_error_is_the_least_of_512(seed, ticks):
  z = np.random.default_rng(seed).standard_t(3, 300)
  grid = z.max() * np.arange(1, 513) / 512
  costs = [_cost(np.maximum(z, 0), lam, ticks) for lam in grid]
  got = float(thresholds.least_error(z, ticks))
  assert _cost(np.maximum(z, 0), got, ticks) <= min(costs) * (1 + 1e-9)
  assert np.isclose(grid, got, rtol=1e-12).any()


def test_more_ticks_allow_a_larger_threshold():
  z = np.random.default_rng(0).exponential(size=5000)
  found = [float(thresholds.least_error(z, t)) for t in (1, 4, 16, 64)]
  assert found == sorted(found)
  assert found[0] < found[-1] <= z.max()


def test_maximum_and_percentile():
  z = np.arange(-100, 1001.0).reshape(-1, 1)
  assert thresholds.maximum(z) == 1000
  assert thresholds.percentile(z, 100) == 1000
  # Values below 0 count as 0: the lowest 100 ranks.
  assert thresholds.percentile(z, 99) == pytest.approx(1000 - 11, abs=1e-9)
  assert thresholds.maximum(-z, signed=True) == 1000
  assert thresholds.maximum(-z) == 100


def test_channels():
  rng = np.random.default_rng(1)
  z = rng.exponential(size=(7, 200, 3)) * np.array([1.0, 10.0, 0.1])
  for choose in (
    thresholds.maximum,
    lambda z, **k: thresholds.percentile(z, 99, **k),
    lambda z, **k: thresholds.least_error(z, 8, **k),
  ):
    each = choose(z, per_channel=True)
    assert each.shape == (3,)
    alone = [float(choose(z[..., i])) for i in range(3)]
    np.testing.assert_allclose(each, alone, 1e-12)
    assert np.shape(choose(z)) == ()
  assert thresholds.maximum(z) == z.max()


def test_a_silent_channel_takes_the_threshold_of_all():
  z = np.stack([np.arange(100.0), -np.arange(100.0)], -1)
  np.testing.assert_array_equal(thresholds.maximum(z, per_channel=True), 99)
  got = thresholds.least_error(z, 4, per_channel=True)
  assert got[1] == thresholds.least_error(z, 4) > 0


def test_clipping_error():
  z = np.array([-5.0, 1.0, 3.0, 4.0])
  assert thresholds.clipping_error(z, 2.0) == (1 + 4) / 4
  assert thresholds.clipping_error(z, 2.0, signed=True) == (9 + 1 + 4) / 4


def test_a_set_just_large_enough():
  z = np.arange(1.0, 1001)
  assert thresholds.percentile(z, 99.9) < 1000
  assert thresholds.percentile(z[:100], 99) > 98
  with pytest.raises(
    ConfigError, match=r"has 999 values; percentile 99.9 needs at least 1000"
  ):
    thresholds.percentile(z[:999], 99.9)
  with pytest.raises(ConfigError, match="has 500 values per channel"):
    thresholds.percentile(z.reshape(-1, 2), 99.9, per_channel=True)


@pytest.mark.parametrize(
  ("do", "words"),
  [
    (lambda: thresholds.maximum([]), "the calibration set is empty"),
    (lambda: thresholds.maximum([1.0, np.inf]), "holds inf"),
    (lambda: thresholds.least_error([np.nan], 4), "holds nan"),
    (lambda: thresholds.maximum([-1.0, 0.0]), "no value .* is above 0"),
    (lambda: thresholds.percentile([1.0] * 9, 0), "percentile is 0"),
    (lambda: thresholds.percentile([1.0] * 9, 100.5), "percentile is 100.5"),
    (
      lambda: thresholds.percentile([0.0] * 99 + [1.0], 50),
      "the one asked for is 0",
    ),
    (lambda: thresholds.least_error([1.0], 0), "ticks is 0"),
    (lambda: thresholds.clipping_error([1.0], -1), "threshold is -1"),
  ],
)
def test_refused(do, words):
  with pytest.raises(ConfigError, match=words):
    do()
