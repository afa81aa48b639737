"""Thresholds under a budget: the search, on networks of a few lines."""

import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from jaxnmc.spike import IF, budget, run
from jaxnmc.spike.budget import BudgetError, Point, tune

# Site -> (spikes at a multiplier of 1, how much its divergence weighs).
SITES = {"a": (900.0, 1.0), "b": (500.0, 0.01), "c": (100.0, 0.3)}


def network(sites=SITES, ideal=1.0):
  """Spikes fall as 1 / m, divergence grows with the distance from `ideal`."""

  def measure(multipliers):
    spikes = sum(s / multipliers[k] for k, (s, _) in sites.items())
    away = {k: math.log(m / ideal) for k, m in multipliers.items()}
    worse = sum(w * away[k] ** 2 for k, (_, w) in sites.items())
    return Point(dict(multipliers), spikes, worse)

  return measure


def test_a_budget_that_is_met_keeps_all_thresholds_at_once():
  found = tune(network(), list(SITES), 1500, passes=0)
  assert found.uniform is found.start
  assert found.best is found.start
  assert found.measured == 1


@pytest.mark.parametrize("most", [1499, 700, 120, 30])
def test_one_multiplier_for_all_is_just_enough(most):
  found = tune(network(), list(SITES), most, passes=0)
  (m,) = set(found.uniform.multipliers.values())
  # 2^(1/256) is as near as so many halvings of an octave come.
  assert most / 2 ** (1 / 256) < found.uniform.spikes <= most
  assert m == pytest.approx(1500 / most, rel=3e-3)


def test_one_by_one_moves_what_is_cheap():
  """b costs almost nothing to silence, a much."""
  found = tune(network(), list(SITES), 1200, passes=8)
  best = found.best
  assert best.spikes <= 1200
  assert best.divergence < 0.35 * found.uniform.divergence
  assert best.multipliers["b"] > 1.5 * best.multipliers["a"]


def test_room_is_spent_on_lower_thresholds():
  found = tune(network(ideal=0.5), list(SITES), 10000, passes=6)
  assert found.uniform.multipliers["a"] == 1
  assert found.best.divergence < 0.1 * found.start.divergence
  assert found.best.spikes > found.start.spikes


def test_an_exchange_pays_for_what_goes_over_the_budget():
  """Better thresholds of a take more spikes than there are, so b gives some."""

  def measure(multipliers):
    a, b = multipliers["a"], multipliers["b"]
    far = abs(math.log(a / 0.5)) + 0.1 * abs(math.log(b))
    return Point(dict(multipliers), 100 / a + 100 / b, far)

  found = tune(measure, ["a", "b"], 200, passes=1)
  assert found.best.multipliers["a"] < 1 < found.best.multipliers["b"]
  assert found.best.spikes <= 200


@hypothesis.given(seed=st.integers(0, 10**6), share=st.floats(0.05, 1.2))
def test_what_comes_out_is_within_the_budget_whatever_the_network_is(
  seed, share
):
  """Spikes that jump up and down with thresholds, as those of a network may."""

  def measure(multipliers):
    key = [seed, *(int(1e6 * m) for m in multipliers.values())]
    noise = np.random.default_rng(key).uniform(0.5, 1.5, 2)
    spikes = sum(100 / m for m in multipliers.values()) * noise[0]
    return Point(dict(multipliers), spikes, noise[1])

  found = tune(measure, ["a", "b"], 200 * share)
  assert found.uniform.spikes <= 200 * share
  assert found.best.spikes <= 200 * share
  assert found.best.divergence <= found.uniform.divergence
  assert measure(found.best.multipliers) == found.best


def test_the_nearest_is_named_where_no_threshold_does():
  floor = lambda m: Point(dict(m), 40 + 10 / m["a"], 0.0)
  with pytest.raises(BudgetError, match=r"30 spikes.*up to 64.*nearest is 40"):
    tune(floor, ["a"], 30)
  assert tune(floor, ["a"], 41).best.spikes <= 41


@pytest.mark.parametrize("bad", [-1, math.nan, math.inf, "2M", None])
def test_what_is_no_budget_is_refused(bad):
  with pytest.raises(BudgetError, match="allowed is a number of spikes"):
    tune(network(), list(SITES), bad)


def test_every_point_is_measured_once_and_told():
  asked, told = [], []

  def measure(multipliers):
    asked.append(tuple(multipliers.values()))
    return network()(multipliers)

  found = tune(measure, list(SITES), 700, progress=told.append)
  assert len(asked) == len(set(asked)) == len(told) == found.measured


@hypothesis.given(
  drive=st.integers(-40, 200), low=st.integers(1, 90), more=st.integers(0, 90)
)
def test_spikes_of_a_neuron_never_grow_with_its_threshold(drive, low, more):
  """IF from rest under one drive: clip(floor(T x / theta), 0, T)."""
  sent = lambda theta: int(
    np.sum(run(IF(), np.full((8, 1), drive, np.int32), threshold=theta)[1])
  )
  assert sent(low) == min(max(8 * drive // low, 0), 8)
  assert sent(low + more) <= sent(low)


def test_spikes_of_a_network_may_grow_with_its_thresholds():
  """What fires less may have inhibited many others."""

  def network(theta):
    first = run(IF(), np.full((8, 1), 3, np.int32), threshold=theta)[1]
    drives = np.int32(9 - 9 * first) + np.zeros((8, 10), np.int32)
    behind = run(IF(), drives, threshold=theta)[1]
    return int(first.sum()), int(behind.sum())

  assert network(3) == (8, 0)
  assert network(4) == (6, 40)


def test_the_span_bounds_multipliers():
  found = tune(network(ideal=1e-9), list(SITES), 1e9, span=2.0, passes=6)
  assert min(found.best.multipliers.values()) >= 0.5
  assert budget.SPAN == 64
