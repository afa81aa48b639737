"""A value that is computed once is the same value, and its chain ends there."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import jaxnmc as nmc
from jaxnmc.models import gpt
from jaxnmc.ops.settle import settle

NUMBERS = [np.float32(n) for n in (0, -1, np.inf, np.nan)]
NUMBERS += [np.int32(n) for n in (0, -1, 2**31 - 1)]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_it_is_the_value(dtype, number):
  x = np.arange(-5, 7).reshape(3, 4).astype(dtype)
  found = jax.jit(settle)(x, number)
  assert found.dtype == dtype
  np.testing.assert_array_equal(found, x)


def branches(run, *args) -> int:
  """How many are left in what XLA makes of a jitted function."""
  if jax.default_backend() != "cpu":
    pytest.skip("only XLA on CPU is given a branch")
  return run.lower(*args).compile().as_text().count(" conditional(")


def test_gradients_pass():
  x = np.float32([1.0, -2.0, 3.0])
  slope = jax.jit(jax.grad(lambda x: jnp.sum(settle(x, jnp.float32(1)) ** 2)))(
    x
  )
  np.testing.assert_array_equal(slope, 2 * x)


def test_a_batch_still_has_the_branch():
  """As a select both sides would be computed, in one chain again."""
  run = jax.jit(jax.vmap(settle, in_axes=(0, None)))
  assert branches(run, np.ones((4, 2), np.float32), np.float32(1)) == 1


SIZES = {
  "vocab_size": 5,
  "hidden_size": 8,
  "num_layers": 1,
  "num_heads": 2,
  "max_position_embeddings": 8,
  "norm": "layer",
  "norm_eps": 1e-3,
  "mlp": "relu",
  "positions": "none",
  "attention": "ssa",
  "tie_word_embeddings": False,
}


@pytest.mark.parametrize("ticks", [1, 2, 4, 5])
def test_every_second_tick_of_a_neuron_is_settled(ticks):
  """In floats and integers; on cores there is no such instruction."""
  config = gpt.Config(**SIZES, ticks=ticks)
  params = gpt.init_params(config, jax.random.key(0))
  fn, inputs = gpt.make(config), {"ids": np.zeros(3, np.int32)}
  plan = nmc.plan(
    nmc.calibrate(fn)(params, [{"ids": np.zeros((1, 3), np.int32)}]),
    nmc.quantize.W8A16,
  )
  qparams = nmc.quantize_params(params, plan)
  count = lambda run, given: branches(
    jax.jit(lambda p: run(p, inputs)[0]), given
  )
  # Neurons of q, k, v and of the output.
  assert count(nmc.reference(fn), params) == 4 * (ticks // 2)
  assert count(nmc.fixed(fn, plan), qparams) == 4 * (ticks // 2)
  kinds = {node.op for node in nmc.record(fn, plan, qparams).nodes}
  assert "settle" not in kinds
