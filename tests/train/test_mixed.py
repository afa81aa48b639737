"""Training with products in bfloat16: which types, which gradient, how good."""

import functools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from jaxnmc import _compat
from jaxnmc.models import matmulfree
from jaxnmc.numerics.ternary import ternarize
from jaxnmc.ops.reference import Reference
from jaxnmc.train import mixed, schedules
from jaxnmc.train import step as step_lib
from tests.train.small import CONFIG, FN


def _params(noise: int = 0):
  params = matmulfree.init_params(CONFIG, jax.random.key(0))
  if not noise:
    return params
  shake = lambda x: (
    x * (1 + 1e-4 * jax.random.normal(jax.random.key(noise), x.shape))
  )
  return jax.tree.map(shake, params)


def test_sums_of_the_activation_grid_are_exact():
  """8-bit codes and ternary codes are bfloat16 numbers; sums are float32."""
  rng = np.random.default_rng(0)
  x = rng.integers(-128, 128, (5, 3000))
  codes = rng.integers(-1, 2, (7, 3000))
  got = mixed.narrow_product(jnp.float32(x), jnp.float32(codes))
  assert got.dtype == jnp.float32
  np.testing.assert_array_equal(got, x @ codes.T)


def test_every_product_is_narrow_and_the_rest_is_not():
  def loss(params, ids):
    logits = FN(mixed.Mixed(), params, {"ids": ids}, None)[0].logits
    return step_lib.cross_entropy(logits, ids)

  ids = jnp.zeros((6, 2), jnp.int32)
  jaxpr = jax.make_jaxpr(jax.grad(loss))(_params(), ids)
  assert all(v.dtype == jnp.float32 for v in jaxpr.out_avals)
  products, narrow = 0, set()
  for inner in _compat.all_jaxprs(jaxpr):
    for eqn in inner.eqns:
      types = {v.aval.dtype for v in eqn.invars if hasattr(v.aval, "dtype")}
      if eqn.primitive.name == "dot_general":
        assert types == {np.dtype(jnp.bfloat16)}
        assert eqn.outvars[0].aval.dtype == jnp.float32
        products += 1
      elif jnp.bfloat16 in types:
        narrow.add(eqn.primitive.name)
  # i, f, g, o, gate with up, down, head; three products each.
  assert products == 3 * 7
  assert narrow <= {"transpose", "convert_element_type"}


@pytest.mark.parametrize("stored", [False, True])
def test_product_and_gradient_are_near_the_reference(stored):
  rng = np.random.default_rng(1)
  weight = jnp.float32(0.1 * rng.normal(size=(6, 40)))
  x = jnp.float32(rng.normal(size=(3, 2, 40)))
  held = ternarize(weight) if stored else None

  def out(make, weight, x):
    y = make().linear("weight", weight if held is None else held, x)
    return (y * jnp.arange(6.0)).sum(), y

  def both(make):
    run = functools.partial(out, make)
    grads, y = jax.grad(run, argnums=(0, 1), has_aux=True)(weight, x)
    return y, *grads

  for a, b in zip(both(mixed.Mixed), both(Reference), strict=True):
    assert a.dtype == jnp.float32
    scale = np.abs(b).max()
    np.testing.assert_allclose(a, b, atol=2**-7 * scale)


SCHEDULE = schedules.wsd(1e-2, 60, 5)
OPTIMIZER = step_lib.adamw(SCHEDULE)


@functools.cache
def _step(dtype):
  mesh = step_lib.make_mesh(1)
  return step_lib.make_step(FN, OPTIMIZER, SCHEDULE, mesh, batch=4, dtype=dtype)


def _curve(dtype, noise=0):
  whole = step_lib.shardings(step_lib.make_mesh(1))[0]
  state = jax.device_put(step_lib.init(_params(noise), OPTIMIZER), whole)
  # A text with something to learn: each id follows from the one before.
  text = (np.arange(4096) ** 2 % 97) % 17 + 3
  losses = []
  for k in range(60):
    at = (np.arange(13)[:, None] + 13 * np.arange(4) + 52 * k) % 4096
    state, metrics = _step(dtype)(state, text[at].astype(np.int32))
    losses.append(metrics.loss)
  return np.array(jax.device_get(losses))


def test_the_loss_curve_stays_within_the_noise():
  """No farther from float32 than float32 is from itself, a hair disturbed."""
  exact = _curve("float32")
  noise = [np.abs(_curve("float32", seed) - exact) for seed in (1, 2)]
  narrow = np.abs(_curve("bfloat16") - exact)
  assert exact[-1] < 0.8 * exact[0]
  assert narrow.max() > 0  # it is another computation
  assert narrow.mean() < 2 * max(n.mean() for n in noise)
