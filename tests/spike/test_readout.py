"""Read-out of ticks into a token, against loops over Python's integers."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import numpy as jnp

from jaxnmc.errors import ConfigError, FormatError
from jaxnmc.spike import codes, readout
from jaxnmc.spike.neurons import IF, LIF, constant, trace
from tests.spike import rules

# Few shapes, so that programs are compiled once; values vary.
SHAPES = ((1, 2, 3), (4, 3, 5), (7, 2, 8))
CODES = ("unary", "signed_bitwise", "twos_complement")


def _first(values):
  """Lowest id of the largest."""
  return max(range(len(values)), key=lambda k: (values[k], -k))


def _sums(x, worth):
  """Weighted sum over ticks of x [T, V], in Python's integers."""
  rows = [[int(w) * int(v) for v in row] for w, row in zip(worth, x)]
  return [sum(column) for column in zip(*rows)]


def _each(function, x):
  """A rule for every position of x [T, B, V]: columns of its results."""
  rows = [function(x[:, b]) for b in range(x.shape[1])]
  return [list(column) for column in zip(*rows)]


@st.composite
def drives(draw, top=6):
  """(int32[T, B, V] with many equal values, seed)."""
  shape = draw(st.sampled_from(SHAPES))
  size = draw(st.integers(0, top))
  rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
  return rng.integers(-size, size + 1, shape).astype(np.int32)


def _worth(code, ticks):
  return codes.weights(code, ticks)


@given(drives(), st.sampled_from(CODES))
def test_potential_is_the_largest_sum(x, code):
  worth = _worth(code, len(x))
  read = readout.potential(x, worth)

  def rule(rows):
    sums = _sums(rows, worth)
    return _first(sums), sums.count(max(sums))

  token, tied = _each(rule, x)
  assert read.token.tolist() == token
  assert read.tied.tolist() == tied
  assert read.ticks.tolist() == [len(x)] * x.shape[1]
  floats = readout.potential(x.astype(np.float32), worth)
  assert floats.token.tolist() == token


@given(drives(), st.integers(1, 7), st.booleans())
def test_activity_is_the_most_spikes_then_the_potential(x, theta, leaky):
  neuron = LIF(tau=2.0) if leaky else IF()
  state, spikes, _ = rules.compiled(neuron, x, threshold=theta, charge=10**6)
  read = readout.activity(spikes, state.v)

  def rule(rows):
    found = []
    for column in rows.T.tolist():
      if leaky:
        s, v = rules.leak(column, theta, 0, 2048, True)
      else:
        s, v = rules.integrate(column, theta, 0)
      found.append((sum(s), v[-1]))
    most = max(s for s, _ in found)
    return _first(found), [s for s, _ in found].count(most)

  token, tied = _each(rule, x)
  assert read.token.tolist() == token
  assert read.tied.tolist() == tied


@given(drives(20), st.integers(1, 9))
def test_constant_drives_give_one_token_by_both(x, theta):
  ticks = 4
  same = np.asarray(constant(x[0], ticks))
  state, spikes, _ = rules.compiled(IF(), same, threshold=theta, charge=10**6)
  active = readout.activity(spikes, state.v)
  assert active.token.tolist() == readout.potential(same).token.tolist()


def test_uneven_drives_need_not():
  # Charged in the last tick, a neuron has no time left to send it all.
  x = np.array([[[5, 0]], [[0, 9]]], np.int32)
  state, spikes, _ = trace(IF(), x, threshold=2)
  assert spikes.sum(0).tolist() == [[2, 1]]
  assert readout.activity(spikes, state.v).token.tolist() == [0]
  assert readout.potential(x).token.tolist() == [1]


def _certain(rows, worth, low, high):
  """First tick after which no outcome of the rest changes the token."""
  ticks, width = rows.shape
  for t in range(1, ticks + 1):
    p = _sums(rows[:t], worth[:t]) if t else [0] * width
    rest = [int(w) for w in worth[t:]]
    least = [
      sum(min(w * low[k], w * high[k]) for w in rest) for k in range(width)
    ]
    most = [
      sum(max(w * low[k], w * high[k]) for w in rest) for k in range(width)
    ]
    best = _first(p)
    if all(
      (p[best] + least[best], -best) > (p[k] + most[k], -k)
      for k in range(width)
      if k != best
    ):
      return best, t
  raise AssertionError


# Bounds are constants of the program: each example is compiled anew.
@settings(max_examples=10)
@given(drives(), st.sampled_from(CODES), st.integers(0, 3), st.booleans())
def test_early_exit_is_the_rule_and_keeps_the_token(x, code, slack, own):
  ticks, _, width = x.shape
  worth = _worth(code, ticks)
  low, high = x.min((0, 1)) - slack, x.max((0, 1)) + slack
  if not own:
    low, high = low.min(), high.max()
  early = readout.potential_early(x, ticks, low, high, worth)
  np.testing.assert_array_equal(early.token, readout.potential(x, worth).token)
  lows = np.broadcast_to(low, width).tolist()
  highs = np.broadcast_to(high, width).tolist()
  token, used = _each(lambda rows: _certain(rows, worth, lows, highs), x)
  assert early.token.tolist() == token
  assert early.ticks.tolist() == used


@settings(max_examples=10)
@given(drives(), st.integers(1, 7), st.booleans(), st.booleans())
def test_early_exit_of_counts_keeps_the_token(x, theta, leaky, half):
  neuron = LIF(tau=2.0, half=half) if leaky else IF(half=half)
  ticks = len(x)
  state, spikes, _ = rules.compiled(neuron, x, threshold=theta, charge=10**6)
  early = readout.activity_early(neuron, x, ticks, theta)
  np.testing.assert_array_equal(
    early.token, readout.activity(spikes, state.v).token
  )

  def rule(trains):
    for t in range(1, ticks + 1):
      counts = sorted(trains[:t].sum(0).tolist())
      if t == ticks or counts[-1] - counts[-2] > ticks - t:
        return (t,)
    raise AssertionError

  (used,) = _each(rule, np.asarray(spikes))
  assert early.ticks.tolist() == used


def test_a_clear_winner_stops_the_loop():
  x = np.zeros((8, 3, 4), np.int32)
  x[0, :, 2] = 50
  seen = []

  def drive(t):
    jax.debug.callback(lambda t: seen.append(int(t)), t)
    return jnp.asarray(x)[t]

  read = jax.jit(lambda: readout.potential_early(drive, 8, 0, 7))()
  jax.effects_barrier()
  assert seen == [0, 1] or seen == [0]
  assert read.ticks.tolist() == [len(seen)] * 3
  saved = readout.saved(read, 8)
  assert (saved.positions, saved.whole) == (3, 24)
  assert saved.ticks == 24 - 3 * len(seen)
  assert saved.share == saved.ticks / 24


def test_bits_of_a_product_stop_early_within_bounds_of_the_rows():
  rng = np.random.default_rng(0)
  weight = rng.integers(-1, 2, (40, 16)).astype(np.int8)
  q = rng.integers(0, 1024, (32, 16)).astype(np.int32)
  for code in ("bitwise", "twos_complement"):
    trains = codes.encode(code, q, 11).astype(jnp.int32)
    x = np.asarray(trains) @ weight.T.astype(np.int32)
    low, high = readout.bounds(weight)
    assert (x >= low).all()
    assert (x <= high).all()
    read = readout.potential_early(x, 11, low, high, codes.weights(code, 11))
    wanted = [
      _first([sum(int(a) * int(b) for a, b in zip(row, w)) for w in weight])
      for row in q
    ]
    assert read.token.tolist() == wanted
    assert readout.saved(read, 11).ticks > 0


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.booleans())
def test_bounds_are_reached_and_never_passed(seed, most, signed):
  rng = np.random.default_rng(seed)
  weight = rng.integers(-5, 6, (3, 4))
  low, high = readout.bounds(weight, most, signed)
  span = range(-most if signed else 0, most + 1)
  every = np.array(np.meshgrid(*[span] * 4)).reshape(4, -1)
  found = weight @ every
  np.testing.assert_array_equal(found.min(1), low)
  np.testing.assert_array_equal(found.max(1), high)


def test_jit_vmap_and_a_function_give_the_same_and_no_float():
  rng = np.random.default_rng(1)
  x = rng.integers(-9, 10, (5, 6, 7)).astype(np.int32)
  whole = readout.potential_early(x, 5, -9, 9)
  early = lambda x: readout.potential_early(x, 5, -9, 9)
  counted = lambda x: readout.activity_early(IF(), x, 5, 3, charge=45)
  for read in (early, counted):
    plain = read(x)
    for other in (jax.jit(read), jax.vmap(read, 1)):
      jax.tree.map(np.testing.assert_array_equal, other(x), plain)
    assert "f32" not in str(jax.make_jaxpr(read)(x))
    assert "f64" not in str(jax.make_jaxpr(read)(x))
  by_tick = readout.potential_early(lambda t: jnp.asarray(x)[t], 5, -9, 9)
  jax.tree.map(np.testing.assert_array_equal, by_tick, whole)


def test_ties_among_many_neurons_are_what_counts_have():
  # 512 neurons and 5 possible counts: the membrane decides nearly always.
  rng = np.random.default_rng(2)
  x = rng.integers(0, 1000, (4, 20, 512)).astype(np.int32)
  state, spikes, _ = trace(IF(), x, threshold=500)
  active = readout.activity(spikes, state.v)
  assert readout.tie_rate(active) == 1.0
  assert readout.tie_rate(readout.potential(x)) < 0.2
  one = readout.Read(*(jnp.array(row) for row in ([3, 4], [1, 1], [2, 1])))
  assert readout.tie_rate(one) == 0.5


X = np.zeros((2, 1, 3), np.int32)


@pytest.mark.parametrize(
  ("call", "words"),
  [
    (lambda: readout.potential(X[:0]), "ticks is 0"),
    (lambda: readout.potential(X[:, 0, 0]), r"\[T, ..., V\]"),
    (lambda: readout.potential(X, [1]), "one for each of 2 ticks"),
    (lambda: readout.potential(X, [0.5, 1]), "whole numbers"),
    (lambda: jax.jit(readout.potential)(X), "give charge"),
    (lambda: readout.activity(X, X[0, 0]), r"\[1, 3\]"),
    (lambda: readout.bounds(X), r"\[V, D\]"),
    (lambda: readout.bounds(np.ones((2, 2))), "integers"),
    (lambda: readout.bounds(X[0], 0), "most is 0"),
    (lambda: readout.potential_early(X * 1.0, 2, 0, 1), "no bound"),
    (lambda: readout.potential_early(X, 3, 0, 1), "of 2 ticks"),
    (lambda: readout.potential_early(X, 2, 1, 0), "above high"),
    (lambda: readout.potential_early(X, 2, [0, 0], 1), "3 neurons"),
    (lambda: readout.potential_early(X + 2, 2, 0, 1), "allowed by its bounds"),
    (lambda: readout.potential_early(lambda t: t, 2, 0, 1), "neuron per token"),
    (lambda: readout.activity_early(None, X, 2), "IF and LIF"),
    (lambda: readout.activity_early(IF(), lambda t: X[0], 2), "give charge"),
    (lambda: readout.saved(readout.potential(X[:, :0]), 2), "empty"),
  ],
)
def test_what_cannot_be_read_is_refused(call, words):
  with pytest.raises(ConfigError, match=words):
    call()


def test_potentials_beyond_32_bits_are_refused():
  for call in (
    lambda: readout.potential(X + 2**30),
    lambda: readout.potential_early(X, 2, -(2**30), 2**30),
    lambda: readout.activity_early(IF(), lambda t: X[0], 2, charge=2**31),
  ):
    with pytest.raises(FormatError, match="32 bits"):
      call()
