"""fake_quant as something to train with: gradients, float32, a loss."""

import jax
import numpy as np
import optax
import pytest
from jax import numpy as jnp

from jaxnmc import quantize
from jaxnmc.models import matmulfree
from jaxnmc.ops import transform

# The plan's eps and the model's are equal, so that only roundings and the
# table are between fake_quant and the reference.
CONFIG = matmulfree.Config(
  vocab_size=16,
  hidden_size=24,
  num_layers=1,
  intermediate_size=32,
  rms_norm_eps=1e-3,
  bitlinear_eps=1e-3,
)
FN = matmulfree.make(CONFIG)
IDS = np.random.default_rng(0).integers(0, 16, (4, 8)).astype(np.int32)
# A fine table: its slope is the sigmoid's within a few parts in a thousand.
PRESET = quantize.W8A16.replace(
  table=quantize.SigmoidTable(in_frac=10, spacing=7, segments=64)
)


def loss_of(run):
  def loss(params):
    out, _ = run(params, {"ids": IDS})
    logits = out.logits
    logits = logits if isinstance(logits, jax.Array) else logits.to_float()
    nats = optax.softmax_cross_entropy_with_integer_labels(
      logits[:, :-1], IDS[:, 1:]
    )
    return nats.mean(), out.logits

  return loss


@pytest.fixture(scope="module")
def params():
  # Well scaled: every product has a standard deviation of about one.
  draw = np.random.default_rng(1)
  shapes = jax.eval_shape(
    lambda: matmulfree.init_params(CONFIG, jax.random.key(0))
  )

  def fill(leaf):
    noise = draw.normal(size=leaf.shape)
    if len(leaf.shape) == 1:
      return (1 + 0.1 * noise).astype(np.float32)
    return (noise / np.sqrt(leaf.shape[-1])).astype(np.float32)

  return jax.tree.map(fill, shapes)


@pytest.fixture(scope="module")
def plan(params):
  stats = quantize.calibrate(FN)(params, [IDS])
  return quantize.plan(stats, PRESET)


@pytest.fixture(scope="module")
def fake_grad(plan):
  loss = loss_of(transform.fake_quant(FN, plan))
  return jax.jit(jax.value_and_grad(loss, has_aux=True))


def cosine(a, b):
  a, b = np.ravel(a), np.ravel(b)
  return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-30))


@pytest.mark.slow
def test_gradients_agree_with_the_reference(params, fake_grad):
  (value, _), fake = fake_grad(params)
  loss = loss_of(transform.reference(FN))
  (want, _), real = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
  assert float(value) == pytest.approx(float(want), rel=0.05)
  for (path, a), b in zip(
    jax.tree_util.tree_leaves_with_path(fake), jax.tree.leaves(real)
  ):
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    assert np.isfinite(a).all(), name
    if name == "lower_bounds":  # one layer: its bound is constant
      assert not np.asarray(a).any()
      continue
    assert cosine(a, b) > 0.9, (name, cosine(a, b))
    ratio = np.linalg.norm(a) / np.linalg.norm(b)
    assert 0.8 < ratio < 1.25, (name, ratio)


def test_float32_is_close_to_fixed(params, plan, fake_grad):
  qparams = quantize.quantize_params(params, plan)
  fixed, _ = jax.jit(transform.fixed(FN, plan))(qparams, {"ids": IDS})
  (_, fake), _ = fake_grad(params)
  a, b = np.asarray(fake.q, float), np.asarray(fixed.logits.q, float)
  assert fake.q.dtype == np.float32
  assert np.linalg.norm(a - b) < 0.02 * np.linalg.norm(b)
  assert (a == np.round(a)).all()
  assert (a.argmax(-1) == b.argmax(-1)).mean() > 0.9


def test_training_with_the_plan_lowers_the_loss(params, fake_grad):
  optimizer = optax.adam(3e-2)
  state = optimizer.init(params)

  @jax.jit
  def apply(params, state, grads):
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  losses, now = [], params
  for _ in range(8):
    (value, _), grads = fake_grad(now)
    losses.append(float(value))
    now, state = apply(now, state, grads)
  assert losses[-1] < 0.6 * losses[0], losses


def test_surrogate_gradient_is_the_slope_of_the_smooth_function():
  # Where nothing clips, the gradient of a site chain is that of the function
  # without roundings: finite differences over many codes see the same slope.
  def fn(ops, params, inputs, state=None):
    x = ops.embed("embed", params["embed"], inputs["ids"])
    x = ops.norm("n", x, params["gain"], 1e-3)
    return ops.site("y", ops.mul(x, ops.sigmoid(x))), state

  draw = np.random.default_rng(2)
  params = {"embed": draw.normal(size=(4, 8)), "gain": 1 + draw.random(8)}
  ids = np.arange(4, dtype=np.int32)
  stats = quantize.calibrate(fn)(params, [ids])
  plan = quantize.plan(stats, PRESET.replace(weight_bits=16, margin=0.5))
  weight = draw.normal(size=(4, 8))
  with jax.enable_x64(True):
    run = transform.fake_quant(fn, plan)

    @jax.jit
    def loss(params):
      return jnp.sum(weight * run(params, {"ids": ids})[0].to_float(float))

    grads = jax.jit(jax.grad(loss))(params)
    for _ in range(4):
      direction = jax.tree.map(lambda x: draw.normal(size=x.shape), params)
      ahead = jax.tree.map(lambda x, d: x + 0.05 * d, params, direction)
      behind = jax.tree.map(lambda x, d: x - 0.05 * d, params, direction)
      slope = float(loss(ahead) - loss(behind)) / 0.1
      got = sum(
        float(np.vdot(g, d))
        for g, d in zip(jax.tree.leaves(grads), jax.tree.leaves(direction))
      )
      assert got == pytest.approx(slope, rel=0.03, abs=0.05)


def test_clipped_values_get_no_gradient():
  def fn(ops, params, inputs, state=None):
    x = ops.embed("embed", params["embed"], inputs["ids"])
    return ops.site("y", x), state

  params = {"embed": np.array([[0.25, 3.0, -7.0, 1.5]], np.float32)}
  ids = np.array([0], np.int32)
  plan = quantize.plan(quantize.calibrate(fn)(params, [ids]), PRESET)
  plan = plan.with_formats({"y": quantize.Format(8, 6)})
  run = transform.fake_quant(fn, plan)
  grads = jax.grad(lambda p: run(p, {"ids": ids})[0].to_float().sum())(params)
  np.testing.assert_array_equal(grads["embed"], [[1, 0, 0, 1]])


def test_vmap_over_models():
  def fn(ops, params, inputs, state=None):
    x = ops.embed("embed", params["embed"], inputs["ids"])
    x = ops.norm("n", x, params["gain"], 1e-3)
    return ops.site("y", ops.linear("w", params["w"], x)), state

  draw = np.random.default_rng(4)
  params = {
    "embed": draw.normal(size=(4, 6)).astype(np.float32),
    "gain": np.ones(6, np.float32),
    "w": draw.normal(size=(5, 6)).astype(np.float32),
  }
  ids = np.arange(4, dtype=np.int32)
  plan = quantize.plan(quantize.calibrate(fn)(params, [ids]), quantize.W8A16)
  run = transform.fake_quant(fn, plan)
  grad = jax.grad(lambda p: jnp.sum(run(p, {"ids": ids})[0].to_float() ** 2))
  scaled = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x]), params)
  both = jax.jit(jax.vmap(grad))(scaled)
  for i in range(2):
    one = jax.jit(grad)(jax.tree.map(lambda x, i=i: x[i], scaled))
    for a, b in zip(jax.tree.leaves(both), jax.tree.leaves(one)):
      np.testing.assert_allclose(
        a[i], b, rtol=1e-4, atol=1e-4 * float(abs(b).max())
      )
