"""Theorems A, B and C on random integers, counted by Python's own."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import numpy as jnp

from jaxnmc.errors import ConfigError
from jaxnmc.spike import qcfs
from jaxnmc.spike.neurons import IF, State, constant, run
from jaxnmc.spike.signed import STBIF, settled
from tests.spike import rules

N = 200
SEED = st.integers(0, 2**31)
TICKS = st.sampled_from([1, 2, 5, 16])
WIDE = 1 << 30
clip = lambda n, low, high: max(low, min(n, high))


def _thetas(rng):
  theta = rng.integers(1, 60, N).astype(np.int32)
  return theta, rng.integers(0, theta).astype(np.int32)


@given(SEED, TICKS)
def test_a_constant_drive(seed, ticks):
  rng = np.random.default_rng(seed)
  theta, start = _thetas(rng)
  x = rng.integers(-70, 130, N).astype(np.int32)
  _, spikes, _ = rules.compiled(
    IF(), constant(x, ticks), State(jnp.asarray(start)), theta, charge=WIDE
  )
  wanted = [
    clip((v + ticks * d) // th, 0, ticks)
    for v, d, th in zip(start.tolist(), x.tolist(), theta.tolist())
  ]
  np.testing.assert_array_equal(np.sum(spikes, 0), wanted)
  got = qcfs.spike_count(jnp.asarray(x), ticks, theta, start)
  np.testing.assert_array_equal(got, wanted)


@given(SEED, TICKS)
def test_a_on_dyadic_floats_is_qcfs(seed, ticks):
  # Multiples of 1/8 of the step theta / T: every tie is among them.
  rng = np.random.default_rng(seed)
  lam = 2.0 ** rng.integers(-2, 3, N).astype(np.float32)
  x = (rng.integers(-16, 8 * 16 + 17, N) / (8 * 16) * lam).astype(np.float32)
  _, spikes, _ = rules.compiled(IF(half=True), constant(x, ticks), None, lam)
  rate = lam * np.mean(spikes, 0)
  np.testing.assert_array_equal(
    np.sum(spikes, 0), qcfs.spike_count(jnp.asarray(x), ticks, lam)
  )
  wanted = qcfs.qcfs(jnp.asarray(x), lam, ticks)
  np.testing.assert_allclose(rate, wanted, 1e-6, 0)


@given(SEED, TICKS)
def test_b_any_drive_both_ways(seed, ticks):
  rng = np.random.default_rng(seed)
  theta, start = _thetas(rng)
  x = rng.integers(-40, 70, (ticks, N)).astype(np.int32)
  state, spikes, _ = rules.compiled(
    IF(), x, State(jnp.asarray(start)), theta, charge=WIDE
  )
  spikes, last = np.asarray(spikes), np.asarray(state.v)
  count = spikes.sum(0)
  even = np.asarray(qcfs.is_even(last, count, ticks, theta))
  for i in range(N):
    wanted, v = rules.integrate(x[:, i].tolist(), int(theta[i]), int(start[i]))
    assert spikes[:, i].tolist() == wanted
    total = int(start[i]) + sum(x[:, i].tolist())
    says = clip(total // int(theta[i]), 0, ticks) == sum(wanted)
    assert says == even[i]
    assert v[-1] == last[i]


@given(SEED, TICKS)
def test_b_holds_for_drives_up_to_the_threshold(seed, ticks):
  rng = np.random.default_rng(seed)
  theta, start = _thetas(rng)
  x = rng.integers(0, theta + 1, (ticks, N)).astype(np.int32)
  state, spikes, _ = rules.compiled(
    IF(), x, State(jnp.asarray(start)), theta, charge=WIDE
  )
  count = np.sum(spikes, 0)
  assert np.asarray(qcfs.is_even(state.v, count, ticks, theta)).all()
  wanted = np.minimum((start + x.sum(0)) // theta, ticks)
  np.testing.assert_array_equal(count, wanted)


def test_b_says_where_a_drive_is_uneven():
  late = jnp.asarray([[0], [0], [5]], jnp.int32)
  state, spikes = run(IF(threshold=2), late)
  assert int(spikes.sum()) == 1  # 5 // 2 is 2
  assert not bool(qcfs.is_even(state.v, spikes.sum(0), 3, 2)[0])
  burst = jnp.asarray([[2], [2], [-4]], jnp.int32)
  state, spikes = run(IF(threshold=2), burst)
  assert int(spikes.sum()) == 2  # nothing is left of it
  assert not bool(qcfs.is_even(state.v, spikes.sum(0), 3, 2)[0])


@given(SEED)
def test_a_hard_reset_is_no_quantiser(seed):
  rng = np.random.default_rng(seed)
  x = jnp.asarray(rng.integers(1, 10, N), jnp.int32)
  _, spikes, _ = rules.compiled(
    IF(reset="hard"), constant(x, 16), None, jnp.int32(11), charge=WIDE
  )
  assert (np.sum(spikes, 0) != np.asarray(x) * 16 // 11).any()


@given(SEED, st.sampled_from([1, 4, 9]))
def test_c_signed_neurons_settle(seed, active):
  rng = np.random.default_rng(seed)
  low, high = -3, 5
  neuron = STBIF(low=low, high=high)
  theta = rng.integers(1, 40, N).astype(np.int32)
  x = rng.integers(-60, 80, (active, N)).astype(np.int32)
  quiet = np.zeros((neuron.settle + 3, N), np.int32)
  whole = np.concatenate([x, quiet])
  state, spikes, _ = rules.compiled(neuron, whole, None, theta, charge=WIDE)
  spikes = np.asarray(spikes)
  assert not spikes[active + neuron.settle :].any()
  for i in range(N):
    th, xs = int(theta[i]), whole[:, i].tolist()
    wanted, count = rules.signed(xs, th, low, high)
    assert spikes[:, i].tolist() == wanted
    assert count == clip((sum(xs) + th // 2) // th, low, high)
  got = settled(neuron, jnp.asarray(x.sum(0)), theta)
  np.testing.assert_array_equal(state.count, got)


def test_c_settle_bound_is_attained():
  # From the top count, a drive far below sends all of them back.
  neuron = STBIF(low=-3, high=5)
  x = np.array([[10]] * 5 + [[-200]] + [[0]] * 12, np.int32)
  _, spikes = run(neuron, x, threshold=10)
  counts = np.cumsum(spikes)
  assert counts[4] == 5
  # The tick of the drive itself sends the first of the eight.
  silent = np.flatnonzero(np.asarray(spikes)[:, 0])[-1]
  assert (counts[-1], silent) == (-3, 5 + neuron.settle - 1)


def test_c_at_the_ends_of_int32():
  neuron = STBIF(low=-8, high=7)
  total = np.array([2**31 - 1, -(2**31) + 1, 2**30], np.int32)
  theta = np.array([2**30, 2**30, 2**31 - 1], np.int32)
  wanted = [
    clip((t + th // 2) // th, -8, 7)
    for t, th in zip(total.tolist(), theta.tolist())
  ]
  np.testing.assert_array_equal(settled(neuron, total, theta), wanted)


_fire = jax.jit(lambda x, th: qcfs.accumulate_then_fire(x, th, charge=WIDE))


@given(SEED, TICKS)
def test_accumulate_then_fire_has_no_unevenness(seed, ticks):
  rng = np.random.default_rng(seed)
  theta, _ = _thetas(rng)
  x = rng.integers(-40, 70, (ticks, N)).astype(np.int32)
  count = np.sum(_fire(x, theta), 0)
  wanted = [
    clip((th // 2 + sum(xs)) // th, 0, ticks)
    for xs, th in zip(x.T.tolist(), theta.tolist())
  ]
  np.testing.assert_array_equal(count, wanted)


def test_accumulate_then_fire_refuses_a_leak_of_charge():
  with pytest.raises(ConfigError, match="allowed is IF with reset='soft'"):
    qcfs.accumulate_then_fire(jnp.ones((2, 2)), neuron=IF(reset="hard"))
  with pytest.raises(ConfigError, match="ticks is 0"):
    qcfs.accumulate_then_fire(jnp.ones((0, 2)))
