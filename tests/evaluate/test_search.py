"""Bit allocation against an exhaustive search; the search on a known model."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnmc.evaluate import search
from jaxnmc.evaluate.closeness import Closeness, Figure
from jaxnmc.evaluate.search import Option

costs = st.integers(0, 20).map(float)
site = st.lists(st.tuples(costs, costs), min_size=1, max_size=4)


def named(sites):
  """Site -> options; the first is what it has, without harm."""
  return {
    f"s{k}": [Option(16 - i, c, h if i else 0.0) for i, (c, h) in enumerate(s)]
    for k, s in enumerate(sites)
  }


def totals(options, bits):
  """(cost, harm) of a choice."""
  of = {(s, o.bits): o for s, some in options.items() for o in some}
  picked = [of[s, b] for s, b in bits.items()]
  return sum(o.cost for o in picked), sum(o.harm for o in picked)


def every(options):
  """(cost, harm) of all choices there are."""
  for some in itertools.product(*options.values()):
    yield sum(o.cost for o in some), sum(o.harm for o in some)


@given(st.lists(site, min_size=1, max_size=4), costs)
def test_a_choice_is_the_best_at_its_price(sites, price):
  options = named(sites)
  cost, harm = totals(options, search.choose(options, price))
  best = min(c + price * h for c, h in every(options))
  assert cost + price * harm == pytest.approx(best)


@given(st.lists(site, min_size=1, max_size=4))
def test_prices_reach_the_whole_lower_hull(sites):
  """No choice lies below the line through two neighbours of the trace."""
  options = named(sites)
  found = search.prices(options)
  assert found == sorted(set(found), reverse=True)
  at = [float("inf"), *found]
  trace = [
    totals(options, search.choose(options, p * (1 - 1e-9)))
    for p in at
    if p != float("inf")
  ]
  for price in found:
    # The swap at this price is a tie: before and after are equally good.
    best = min(c + price * h for c, h in every(options))
    for factor in (1 + 1e-9, 1 - 1e-9):
      c, h = totals(options, search.choose(options, price * factor))
      assert c + price * h == pytest.approx(best)
  assert [h for _, h in trace] == sorted(h for _, h in trace)
  cheapest = min(c for c, _ in every(options))
  if trace and found[-1] > 0:
    assert trace[-1][0] == pytest.approx(cheapest)


def test_no_option_harms_less_than_what_a_site_has():
  """Measured divergences below zero are noise."""
  trials = Known({"a": 16})
  effect = search.Effect(
    *("a", 8, "s8.0", Figure(-1e-9, None), Figure(0.0, None), 2.0)
  )
  found = search.options(trials, [effect], {"a": 3.0}, {"a": 5.0})
  assert found == {"a": [Option(16, 15.0, 0.0), Option(8, 6.0, 0.0)]}
  silent = search.Effect(
    *("a", 8, "s8.0", Figure(0.0, None), Figure(0.0, None), None)
  )
  assert len(search.options(trials, [silent], {"a": 3.0}, {"a": 5.0})["a"]) == 1


class Known:
  """A model whose harm is known: its log-loss grows by the sum of harms."""

  class Plan:
    def __init__(self, bits):
      self.bits = bits

    def format(self, site):
      return Option(self.bits[site], 0.0, 0.0)

  def __init__(self, bits, harms=None, luck=0.0):
    self.plan, self.harms, self.luck = self.Plan(bits), harms or {}, luck
    self.seen = []

  def __call__(self, plan):
    import numpy as np

    kl = sum(self.harms.get((s, b), 0.0) for s, b in plan.bits.items())
    self.seen.append(plan.bits)
    nats = np.array([kl - self.luck])
    one = np.ones(1)
    close = Closeness(one, 0 * one, nats, one, np.array([kl]))
    return close, {s: b / 4 for s, b in plan.bits.items()}


@pytest.fixture
def plain(monkeypatch):
  """Plans that are their bits."""
  monkeypatch.setattr(
    search,
    "narrowed",
    lambda plan, stats, bits, calibration: Known.Plan(dict(bits)),
  )


def of_known(trials, joules):
  harms = trials.harms
  return {
    s: [Option(16, j * 4.0, 0.0)]
    + [Option(b, j * b / 4, harms[s, b]) for b in (8, 4)]
    for s, j in joules.items()
  }


JOULES = {"a": 1.0, "b": 3.0, "c": 0.5}
HARMS = {
  ("a", 8): 0.001,
  ("a", 4): 0.02,
  ("b", 8): 0.004,
  ("b", 4): 0.5,
  ("c", 8): 0.0,
  ("c", 4): 0.001,
}


@pytest.mark.parametrize("bound", [0.0, 0.0015, 0.006, 0.03, 10.0])
def test_the_search_takes_the_last_choice_within_the_bound(plain, bound):
  trials = Known(dict.fromkeys(JOULES, 16), HARMS)
  options = of_known(trials, JOULES)
  best, measured = search.search(trials, None, options, JOULES, bound)
  assert best in measured
  assert best.loss.value <= bound
  hull = [
    totals(options, search.choose(options, p * (1 - 1e-9)))
    for p in [float("inf"), *search.prices(options)]
  ]
  import math

  allowed = [c for c, h in hull if math.expm1(h) <= bound]
  assert best.joules == pytest.approx(min(allowed))
  assert len(trials.seen) <= 2 + len(hull).bit_length()


def test_no_choice_passes_by_luck_with_the_text(plain):
  """Perplexity that happens to fall does not buy divergence."""
  trials = Known(dict.fromkeys(JOULES, 16), HARMS, luck=1.0)
  best, _ = search.search(
    trials, None, of_known(trials, JOULES), JOULES, 0.0015
  )
  assert best.divergence.value <= 0.0015
