"""Spiking attention in integers: its forms, causality, bounds."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import numpy as jnp

from jaxnmc.spike import attention, sdsa
from jaxnmc.spike.neurons import IF, run
from jaxnmc.spike.ssa import SSA, attend
from tests.spike import rules

SEED = st.integers(0, 2**31)
prefix = jax.jit(attention.prefix, static_argnames="decay")
quadratic = jax.jit(attention.quadratic)
jit_attend = jax.jit(attend, static_argnums=0)
jit_gate = jax.jit(sdsa.gate, static_argnums=0)


def _by_hand(q, k, v, decay=None):
  """Y of one tick and head in Python's integers."""
  tokens, size = q.shape
  memory = [[0] * size for _ in range(size)]
  out = []
  for i in range(tokens):
    for a in range(size):
      for b in range(size):
        old = memory[a][b]
        left = old if decay is None else old - (old >> decay)
        memory[a][b] = left + int(k[i, a]) * int(v[i, b])
    out.append(
      [
        sum(int(q[i, a]) * memory[a][b] for a in range(size))
        for b in range(size)
      ]
    )
  return out


@pytest.mark.parametrize("signed", [False, True])
@given(seed=SEED)
def test_quadratic_is_prefix(signed, seed):
  q, k, v = rules.spikes(seed, 2, 3, 7, 4, signed=signed)
  memory, y = prefix(q, k, v)
  assert y.dtype == jnp.int32
  np.testing.assert_array_equal(y, quadratic(q, k, v))
  np.testing.assert_array_equal(memory, np.einsum("...na,...nb->...ab", k, v))
  np.testing.assert_array_equal(y[1, 2], _by_hand(q[1, 2], k[1, 2], v[1, 2]))


@given(seed=SEED)
def test_decayed_memory(seed):
  q, k, v = rules.spikes(seed, 30, 4, rate=0.7)
  memory, y = prefix(q, k, v, decay=2)
  np.testing.assert_array_equal(y, _by_hand(q, k, v, 2))
  assert int(memory.max()) <= 4
  # Whole numbers in floats are the same numbers.
  floats = prefix(*(x.astype(np.float32) for x in (q, k, v)), decay=2)
  np.testing.assert_array_equal(floats[1], y)


def test_decayed_memory_attains_its_bound():
  ones = np.ones((40, 1), np.int32)
  memory, y = prefix(ones, ones, ones, decay=3)
  config = SSA(head_size=1, context=40, decay=3)
  assert int(memory[0, 0]) == config.memory_bound == 8
  assert int(y.max()) == config.drive_bound == 8
  assert SSA(head_size=1, context=5, decay=3).drive_bound == 5


@given(seed=SEED)
def test_no_token_sees_a_later_one(seed):
  q, k, v = rules.spikes(seed, 2, 8, 4)
  rng = np.random.default_rng(seed)
  j = int(rng.integers(8))
  others = [x.copy() for x in (q, k, v)]
  for x in others:
    x[:, j:] = rng.integers(0, 2, x[:, j:].shape)
  config = SSA(head_size=4, context=8, frac=2)
  for form in (
    quadratic,
    lambda *qkv: prefix(*qkv)[1],
    lambda *qkv: prefix(*qkv, decay=1)[1],
    lambda *qkv: jit_attend(config, *qkv, 2)[0],
    lambda *qkv: jit_gate(config, *qkv, 2)[0],
  ):
    a, b = form(q, k, v), form(*others)
    np.testing.assert_array_equal(a[:, :j], b[:, :j])


def test_ticks_do_not_mix():
  # A permutation of the ticks permutes the drive; the neuron has an order.
  q, k, v = rules.spikes(1, 4, 9, 6, rate=0.5)
  turn = np.array([2, 0, 3, 1])
  np.testing.assert_array_equal(
    quadratic(q[turn], k[turn], v[turn]), quadratic(q, k, v)[turn]
  )
  config = SSA(head_size=6, context=9, frac=4)
  a = attend(config, q, k, v, 8)[0]
  b = attend(config, q[turn], k[turn], v[turn], 8)[0]
  assert (np.asarray(a)[turn] != np.asarray(b)).any()


@pytest.mark.parametrize(("size", "tokens"), [(1, 1), (5, 1), (3, 40)])
def test_the_bound_is_attained(size, tokens):
  ones = np.ones((1, tokens, size), np.int32)
  _, y = attention.prefix(ones, ones, ones)
  config = SSA(head_size=size, context=tokens)
  assert int(jnp.max(y)) == config.drive_bound == tokens * size


def test_all_to_all():
  q, k, v = rules.spikes(2, 2, 7, 4, rate=0.6)
  wanted = attention.quadratic(q, k, v, causal=False)
  np.testing.assert_array_equal(attention.linear(q, k, v), wanted)
  np.testing.assert_array_equal(wanted, q @ np.swapaxes(k, 1, 2) @ v)
  # All see all seven, so one threshold does.
  config = SSA(head_size=4, context=7, neuron=IF(), causal=False)
  spikes, _ = attend(config, q, k, v, 1)
  np.testing.assert_array_equal(spikes, run(IF(), wanted, threshold=7)[1])
  assert 0 < np.mean(spikes) < 1


def test_heads_come_back():
  x = np.arange(24).reshape(2, 3, 4)
  split = attention.split_heads(jnp.asarray(x), 2)
  assert split.shape == (2, 2, 3, 2)
  np.testing.assert_array_equal(split[1, 0, 2], x[1, 2, :2])
  np.testing.assert_array_equal(attention.merge_heads(split), x)
