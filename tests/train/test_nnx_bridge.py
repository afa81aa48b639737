"""The flax.nnx view: same numbers, trainable, parameters come back plain."""

import chex
import jax
import numpy as np
import optax
import pytest
from flax import nnx
from jax import numpy as jnp

from jaxnmc import quantize
from jaxnmc.numerics.ternary import Ternary
from jaxnmc.ops import transform
from jaxnmc.train.nnx_bridge import Frozen, NnxModel

V, D, T = 11, 8, 5


def fn(ops, params, inputs, state=None):
  """A small recurrent model with every kind of parameter."""
  x = ops.embed("embed", params["embed"], inputs["ids"])
  x = ops.norm("norm", x, params["norm"], 1e-3)
  u = ops.site("u", ops.linear("mix", params["mix"], x))
  rest = ops.site("rest", ops.sigmoid(u), unit=True)

  def body(ops, h, step):
    keep, new = step
    h = ops.site("h", ops.add(ops.mul(ops.one_minus(keep), h), new), align="v")
    return h, h

  v = ops.site("v", ops.mul(rest, u))
  init = ops.zeros(v) if state is None else state
  state, h = ops.scan("cell", body, init, (rest, v))
  y = ops.norm("out_norm", h, params["out_norm"], 1e-3)
  return ops.site("logits", ops.linear("head", params["head"], y)), state


def make_params(seed=0):
  rng = np.random.default_rng(seed)
  normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
  return {
    "embed": normal(V, D),
    "norm": np.ones(D, np.float32),
    "mix": normal(D, D),
    "out_norm": np.ones(D, np.float32),
    "head": normal(V, D),
  }


@pytest.fixture(scope="module")
def params():
  return make_params()


@pytest.fixture(scope="module")
def ids():
  return np.random.default_rng(1).integers(0, V, (4, T)).astype(np.int32)


@pytest.fixture(scope="module")
def plan(params, ids):
  stats = quantize.calibrate(fn)(params, [ids])
  return quantize.plan(stats, quantize.W8A16.replace(margin=0.5))


def test_leaves_are_params_by_path(params):
  model = NnxModel(fn, params)
  state = nnx.state(model, nnx.Param)
  assert set(state["leaves"]) == set(params)
  chex.assert_trees_all_equal(model.params, params)
  assert jax.tree.structure(model.params) == jax.tree.structure(params)


def test_ternary_codes_are_no_params(params):
  codes = np.sign(params["mix"]).astype(np.int8)
  params = {**params, "mix": Ternary(codes, np.float32(0.5))}
  model = NnxModel(fn, params)
  assert isinstance(model.leaves["mix.codes"], Frozen)
  assert isinstance(model.leaves["mix.scale"], nnx.Param)
  chex.assert_trees_all_equal(model.params, params)


def test_call_is_reference(params, ids):
  model = NnxModel(fn, params)
  got, state = model({"ids": ids})
  want, want_state = transform.reference(fn)(params, {"ids": ids})
  chex.assert_trees_all_equal((got, state), (want, want_state))
  first, carry = model({"ids": ids[:, :2]})
  second, last = model({"ids": ids[:, 2:]}, carry)
  both = jnp.concatenate([first, second], axis=1)
  chex.assert_trees_all_close((both, last), (want, want_state), atol=2e-6)


def test_call_with_plan_is_fake_quant(params, ids, plan):
  got = NnxModel(fn, params, plan)({"ids": ids})
  want = transform.fake_quant(fn, plan)(params, {"ids": ids})
  chex.assert_trees_all_equal(got, want)
  assert got[0].frac == plan.format("logits").frac


def _train(model, ids, steps):
  optimizer = nnx.Optimizer(model, optax.adam(3e-2), wrt=nnx.Param)

  def loss_fn(model):
    out, _ = model({"ids": ids})
    logits = out if isinstance(out, jax.Array) else out.to_float()
    loss = optax.softmax_cross_entropy_with_integer_labels(
      logits[:, :-1], ids[:, 1:]
    )
    return loss.mean()

  @nnx.jit
  def step(model, optimizer):
    loss, grads = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, grads)
    return loss

  return [float(step(model, optimizer)) for _ in range(steps)]


@pytest.mark.parametrize(
  "quantized",
  [pytest.param(False, marks=pytest.mark.slow, id="float"), True],
)
def test_nnx_optimizer_trains(params, ids, plan, quantized):
  model = NnxModel(fn, params, plan if quantized else None)
  losses = _train(model, ids, 12)
  assert losses[-1] < 0.75 * losses[0]
  trained = model.params
  moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), trained, params)
  assert all(jax.tree.leaves(moved))
  # The plain pytree is what every transform takes.
  qparams = quantize.quantize_params(trained, plan)
  out, _ = transform.fixed(fn, plan)(qparams, {"ids": ids})
  assert out.q.dtype == jnp.int32
