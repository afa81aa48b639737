"""Theorem D: increments sum to the function of the sum."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import numpy as jnp

from jaxnmc.errors import ConfigError
from jaxnmc.ops.reference import layer_norm
from jaxnmc.spike import temporal

_product = jax.jit(temporal.product)
_differences = jax.jit(temporal.differences, static_argnums=0)
TICKS = st.sampled_from([1, 2, 6])


def _spikes(seed, ticks, *shape):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.integers(-1, 2, (ticks, *shape)), jnp.int32)


def test_recorded(recorded):
  golden = recorded("spikezip_ops")
  a, b = jnp.asarray(golden["a"]), jnp.asarray(golden["b"])
  turned = jnp.swapaxes(b, -1, -2)
  np.testing.assert_array_equal(temporal.product(a, turned), golden["prod_inc"])
  scores = lambda a, b: a.astype(jnp.int32) @ b.T.astype(jnp.int32)
  got = temporal.differences(scores, a, b)
  np.testing.assert_array_equal(got, golden["prod_inc"])
  size = a.shape[-1]
  soft = lambda s: jax.nn.softmax(s * size**-0.5, -1)
  got = temporal.differences(soft, jnp.asarray(golden["prod_inc"]))
  np.testing.assert_allclose(got, golden["softmax_inc"], 1e-5, 1e-6)
  norm = lambda x: layer_norm(
    x.astype(jnp.float32), golden["ln_w"], golden["ln_b"], 1e-5
  )
  got = temporal.differences(norm, a)
  np.testing.assert_allclose(got, golden["ln_inc"], 1e-5, 1e-5)


@given(st.integers(0, 2**31), TICKS)
def test_products_sum_exactly(seed, ticks):
  a, b = _spikes(seed, ticks, 5, 7), _spikes(seed + 1, ticks, 7, 4)
  increments = _product(a, b)
  whole = np.cumsum(a, 0) @ np.cumsum(b, 0)
  np.testing.assert_array_equal(np.cumsum(increments, 0), whole)


def _odd(a, b):
  """Of integers, so that sums are exact, and far from linear."""
  return (a * a * b + 5) % 7


@given(st.integers(0, 2**31), TICKS)
def test_any_function_sums(seed, ticks):
  a, b = _spikes(seed, ticks, 30), _spikes(seed + 1, ticks, 30)
  increments = _differences(_odd, a, b)
  total = _odd(np.sum(a, 0), np.sum(b, 0))
  np.testing.assert_array_equal(np.sum(increments, 0), total)


@pytest.mark.parametrize(
  "f", [jax.nn.softmax, jax.nn.gelu, lambda x: layer_norm(x, 2.0, 0.5, 1e-5)]
)
def test_functions_of_transformers_sum(f):
  x = _spikes(3, 6, 4, 8).astype(jnp.float32)
  increments = temporal.differences(f, x)
  np.testing.assert_allclose(
    np.cumsum(increments, 0), jax.vmap(f)(jnp.cumsum(x, 0)), 1e-4, 1e-5
  )


def test_step_by_step_is_all_at_once():
  x = _spikes(4, 5, 3)
  f = lambda x: x**3
  state, rows = None, []
  for row in x:
    state, y = temporal.step(f, state, row)
    rows.append(y)
  np.testing.assert_array_equal(rows, temporal.differences(f, x))


def test_refused():
  with pytest.raises(ConfigError, match="ticks is 0"):
    temporal.differences(jnp.sin, jnp.ones((0, 2)))
  with pytest.raises(ConfigError, match="ticks is 0"):
    temporal.differences(jnp.sin, jnp.ones(()))
  with pytest.raises(ConfigError, match=r"\[2, 3\] ticks"):
    temporal.product(jnp.ones((2, 1, 1)), jnp.ones((3, 1, 1)))
