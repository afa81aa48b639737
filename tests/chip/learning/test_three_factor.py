"""Rules of three factors: Python's integers, the delta rule, STDP."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from jax import numpy as jnp

from jaxnmc.chip import learning
from jaxnmc.chip.learning import delta, mismatch, stdp, three_factor
from jaxnmc.chip.learning.three_factor import Term, ThreeFactor, Trace
from jaxnmc.errors import ConfigError, FormatError
from tests.chip.learning import oracle
from tests.chip.learning.test_delta import draw_case, formats

R, C, T = 3, 4, 7
RULES = {
  "all factors": ThreeFactor(
    terms=(
      Term(("x1", "y0", "r"), 3),
      Term(("y1", "x0"), -5),
      Term(("w", "r"), -1),
      Term(("w", "x1", "y1"), 2),
    ),
    shift=9,
    pre=Trace(3900, 5, 100),
    post=Trace(2000, -3, 90),
    pre_top=9,
    post_top=9,
    third_top=9,
    weight_bits=6,
  ),
  "nearest": ThreeFactor(
    terms=(Term(("x1", "y0"), 3), Term(("y1", "x0"), -3)),
    shift=3,
    pre=Trace(4096, 1, 127),
    post=Trace(3000, 7, 60),
    pre_top=9,
    post_top=9,
    third_top=9,
    rounding="nearest",
  ),
  "no shift": ThreeFactor(
    terms=(Term(("x0", "r")),), shift=0, pre_top=9, post_top=9, third_top=9
  ),
}


@functools.partial(jax.jit, static_argnums=0)
def run(rule, state, inputs):
  return lax.scan(lambda s, x: three_factor.step(rule, s, x), state, inputs)


@pytest.mark.parametrize("name", RULES)
@given(data=st.integers(0, 2**20), seed=st.integers(0, 2**33))
def test_the_rule_is_that_of_the_page(name, data, seed):
  rule = RULES[name]
  rng = np.random.default_rng(data)
  high = 2 ** (rule.weight_bits - 1) - 1
  weight = rng.integers(-high, high + 1, (R, C))
  x0, y0, third = (
    rng.integers(-9, 10, (T, n)).astype(np.int32) for n in (C, R, R)
  )
  # The seed is data.
  state = three_factor.init(dataclasses.replace(rule, seed=seed), weight)
  state, counts = run(rule, state, (x0, y0, third))
  w = [[int(v) for v in row] for row in weight]
  pre, post, seen = [0] * C, [0] * R, []
  fields = dataclasses.asdict(dataclasses.replace(rule, seed=seed))
  for n in range(T):
    rows = ([int(v) for v in part[n]] for part in (x0, y0, third))
    pre, post, count = oracle.three_factor_step(w, pre, post, *rows, n, fields)
    seen.append(count)
  np.testing.assert_array_equal(state.weight, w)
  np.testing.assert_array_equal(state.pre, pre)
  np.testing.assert_array_equal(state.post, post)
  for key in seen[0]:
    found = getattr(counts, key)
    np.testing.assert_array_equal(found, [c[key] for c in seen], key)


@pytest.mark.parametrize("kind", mismatch.KINDS)
@pytest.mark.parametrize("rounding", delta.ROUNDINGS)
def test_the_delta_rule_in_this_form_is_the_delta_rule(kind, rounding):
  f = formats(bias=False)
  weight, _, hidden, targets = draw_case(f, 8, 0.2)
  rule = learning.Delta(rate=-2, error=kind, rounding=rounding, seed=5)
  head = learning.Head.of(weight, f)
  want, log = learning.tune(head, hidden, targets, rule, shuffle=False)
  general = three_factor.delta(rule, f)
  state = three_factor.init(general, weight)
  ids = jnp.arange(len(weight), dtype=jnp.int32)
  go = jax.jit(functools.partial(three_factor.step, general))
  idle = jnp.zeros(len(weight), jnp.int32)

  @jax.jit
  def error_of(now, h, target):
    z = learning.logits(now, h)
    frac = f.logits.frac
    told = mismatch.shared(kind, frac, z, ids)
    return mismatch.error(kind, frac, 15, z, ids, target, told)

  updates = []
  for h, target in zip(jnp.asarray(hidden, jnp.int32), targets):
    now = head.replace(weight=state.weight)
    e = error_of(now, h, jnp.int32(target))
    state, counts = go(state, (delta.pre(rule, f, h), idle, e))
    updates.append(int(counts.updates))
  assert (np.asarray(want.weight) != weight).any()
  np.testing.assert_array_equal(state.weight, want.weight)
  np.testing.assert_array_equal(log.counts.updates, updates)


def pairing(gap, **options):
  """Change of a weight by a pair of spikes, post `gap` steps after pre."""
  rule = stdp.pair(**options)
  steps = 2 + abs(gap)
  pre, post = np.zeros((2, steps, 1), np.int32)
  pre[max(0, -gap)] = 1
  post[max(0, gap)] = 1
  third = np.zeros((steps, 1), np.int32)
  state, _ = run(rule, three_factor.init(rule, [[0]]), (pre, post, third))
  return int(state.weight[0, 0])


def test_stdp_has_its_window():
  options = {"tau_plus": 4.0, "tau_minus": 8.0, "shift": 2, "minus": 2}
  options |= {"rounding": "nearest", "impulse": 64}
  assert pairing(0, **options) == 0
  for gap in (1, 2, 4, 8):
    # 4 * 64 / 2^2 = 64 codes and 32 codes at no distance.
    up, down = pairing(gap, **options), pairing(-gap, **options)
    assert abs(up - 64 * np.exp(-gap / 4)) < 1 + gap
    assert abs(down + 32 * np.exp(-gap / 8)) < 1 + gap
  ups = [pairing(gap, **options) for gap in (1, 2, 3, 5, 8)]
  assert ups == sorted(ups, reverse=True)
  assert len(set(ups)) == 5


def test_stdp_finds_the_input_that_comes_first():
  """Of 8 inputs one fires a step before the neuron, the others at random."""
  rule = stdp.pair(shift=5, plus=3, minus=3, tau_plus=3.0, tau_minus=3.0)
  rng = np.random.default_rng(0)
  post = (rng.random((400, 1)) < 0.1).astype(np.int32)
  pre = (rng.random((400, 8)) < 0.1).astype(np.int32)
  pre[:-1, 5] = post[1:, 0]
  state = three_factor.init(rule, np.zeros((1, 8), int))
  state, counts = run(rule, state, (pre, post, np.zeros_like(post)))
  weight = np.asarray(state.weight[0])
  assert weight.argmax() == 5
  assert weight[5] == 127
  assert np.delete(weight, 5).max() < 64
  assert counts.totals()["saturations"] > 0


def test_a_partition_learns_the_same():
  rule = RULES["all factors"]
  rng = np.random.default_rng(1)
  weight = rng.integers(-31, 32, (R, C))
  x0, y0, third = (
    rng.integers(-9, 10, (T, n)).astype(np.int32) for n in (C, R, R)
  )
  whole, _ = run(rule, three_factor.init(rule, weight), (x0, y0, third))
  rows, columns = jnp.array([2, 0], jnp.int32), jnp.array([1, 3], jnp.int32)
  part = three_factor.init(rule, weight[np.ix_(rows, columns)])
  inputs = (x0[:, columns], y0[:, rows], third[:, rows])
  part, _ = lax.scan(
    lambda s, x: three_factor.step(rule, s, x, rows, columns), part, inputs
  )
  want = np.asarray(whole.weight)[np.ix_(rows, columns)]
  np.testing.assert_array_equal(part.weight, want)


def test_bad_rules_are_refused():
  one = (Term(("x0", "r")),)
  for error, text, fields in (
    (ConfigError, "terms is empty", {"terms": ()}),
    (ConfigError, "factors .*'z'", {"terms": (Term(("z",)),)}),
    (ConfigError, "shift is 31", {"shift": 31}),
    (ConfigError, "rounding is 'up'", {"rounding": "up"}),
    (ConfigError, "pre.keep is 5000", {"pre": Trace(5000)}),
    (ConfigError, "third_top is -1", {"third_top": -1}),
    (FormatError, "take smaller scales", {"terms": (Term(("x0",), 2**30),)}),
  ):
    with pytest.raises(error, match=text):
      ThreeFactor(**({"terms": one, "shift": 3} | fields))
  with pytest.raises(ConfigError, match="tau is 0"):
    Trace.of_time(0)
