"""Training under a plan: the loss is that of the plan, and falls."""

import chex
import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax import numpy as jnp

from jaxnmc import quantize
from jaxnmc.errors import ConfigError
from jaxnmc.models import matmulfree
from jaxnmc.numerics.fx import real
from jaxnmc.numerics.ternary import latent, ternarize
from jaxnmc.ops import transform
from jaxnmc.train import schedules
from jaxnmc.train import step as step_lib
from tests.train.small import CONFIG, FN

IDS = np.random.default_rng(1).integers(3, 20, (13, 4), np.int32)


@pytest.fixture(scope="module")
def params():
  return matmulfree.init_params(CONFIG, jax.random.key(0))


def make_plan(params, preset):
  stats = quantize.calibrate(FN)(params, [{"ids": IDS.T}])
  return quantize.plan(stats, preset)


def start(params, plan):
  """(step function, its first state)."""
  schedule = schedules.make("wsd", 1e-2, 40, 1)
  optimizer = step_lib.adamw(schedule)
  mesh = step_lib.make_mesh(1)
  step = step_lib.make_step(FN, optimizer, schedule, mesh, batch=4, plan=plan)
  # The step donates what it is given.
  return step, step_lib.init(jax.tree.map(jnp.array, params), optimizer)


@pytest.mark.parametrize(
  ("preset", "share"),
  # Logits of 8 bits cannot leave the range they had before training.
  [(quantize.W8A8, 0.95), (quantize.W8, 0.7)],
)
def test_the_loss_is_the_plans_and_falls(params, preset, share):
  plan = make_plan(params, preset)
  step, state = start(params, plan)
  out, _ = transform.fake_quant(FN, plan)(params, {"ids": IDS[:-1].T})
  wanted = step_lib.cross_entropy(real(out.logits), IDS[1:].T)
  losses = []
  for _ in range(30):
    state, metrics = step(state, jnp.asarray(IDS))
    losses.append(float(metrics.loss))
  assert losses[0] == pytest.approx(float(wanted), rel=1e-5)
  # The same four windows again and again: they are learned by heart.
  assert losses[-1] < share * losses[0]


def test_every_parameter_learns(params):
  """Gradients go through the roundings of every site and parameter."""
  step, state = start(params, make_plan(params, quantize.W8A8))
  for _ in range(3):
    state, _ = step(state, jnp.asarray(IDS))
  chex.assert_tree_all_finite(state.params)
  moved = jax.tree.map(lambda a, b: np.any(a != b), state.params, params)
  # A model of one layer has no use for lower bounds, in float neither.
  assert not moved.pop("lower_bounds")
  assert all(jax.tree.leaves(moved))


def test_narrow_products_do_not_go_with_a_plan(params):
  plan = make_plan(params, quantize.W8A8)
  with pytest.raises(ConfigError, match="roundings need float32"):
    step_lib.make_step(
      *(FN, None, None, step_lib.make_mesh(1)),
      batch=4,
      dtype="bfloat16",
      plan=plan,
    )


shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)
weights = hnp.arrays(
  np.float32, shapes, elements=st.floats(-4, 4, width=16, allow_nan=False)
)


@given(weights)
def test_latents_of_a_ternary_matrix_are_that_matrix(weight):
  made = ternarize(jnp.asarray(weight))
  again = ternarize(latent(made))
  np.testing.assert_array_equal(again.codes, made.codes)
  if np.any(made.codes):
    np.testing.assert_allclose(again.scale, made.scale, rtol=1e-6)
