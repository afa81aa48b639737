"""What formats cost a transformer, and what has no integers."""

import functools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from jaxnmc import quantize
from jaxnmc.errors import PlanError
from jaxnmc.models import gpt
from jaxnmc.models.families import FAMILIES
from jaxnmc.numerics.fx import Fx
from jaxnmc.numerics.weights import QDense, QVector
from jaxnmc.ops import transform
from jaxnmc.ops.record import record

SIZES = {
  "vocab_size": 11,
  "hidden_size": 12,
  "num_layers": 1,
  "num_heads": 3,
  "intermediate_size": 10,
  "max_position_embeddings": 9,
  # That of the chip's norms.
  "norm_eps": 1e-3,
  "bitlinear_eps": 1e-3,
}
CONFIGS = {
  "llama": gpt.Config(**SIZES),
  "gpt2": gpt.Config(
    **SIZES, norm="layer", mlp="gelu_tanh", positions="learned", bias=True
  ),
  "ternary": gpt.Config(
    **SIZES, ternary=True, tie_word_embeddings=False, positions="learned"
  ),
  "relu": gpt.Config(
    **SIZES, norm="layer", mlp="relu", tie_word_embeddings=False, head_bias=True
  ),
  "no block norms": gpt.Config(**SIZES, ternary=True, block_norms=False),
}
IDS = np.random.default_rng(5).integers(0, 11, (2, 9)).astype(np.int32)
WIDE = quantize.W8A16.replace(weight_bits=16)


@functools.cache
def case(name):
  """(fn, params, statistics)."""
  config = CONFIGS[name]
  fn = gpt.make(config)
  draw = np.random.default_rng(2)
  rows = gpt.parameters(config)
  value = lambda row: (row.kind == "gain") + 0.4 * draw.normal(size=row.shape)
  params = gpt.build({r.path: np.float32(value(r)) for r in rows})
  return fn, params, quantize.calibrate(fn)(params, [IDS])


@pytest.mark.parametrize("name", CONFIGS)
def test_calibration_sees_every_site_and_parameter(name):
  fn, params, stats = case(name)
  _, _, taps = jax.jit(transform.reference(fn, taps=True))(params, {"ids": IDS})
  for site, value in taps.items():
    if not site.endswith((".act.codes", ".act.scale")):
      table = {"embed": "embed", "positions": "positions"}.get(site)
      value = params[table]["weight"] if table else value
      assert stats.ranges[site] == pytest.approx(float(np.abs(value).max()))
  config = CONFIGS[name]
  assert set(stats.roles) == {row.path for row in gpt.parameters(config)}
  kinds = {row.path: row.kind for row in gpt.parameters(config)}
  parts = {"bias": "const"}
  for path, role in stats.roles.items():
    assert role.kind == parts.get(kinds[path], kinds[path]), path


@pytest.mark.parametrize("name", CONFIGS)
def test_fake_quant_of_fine_formats_is_the_reference(name):
  fn, params, stats = case(name)
  plan = quantize.plan(stats, WIDE)
  run = jax.jit(transform.fake_quant(fn, plan, taps=True))
  with jax.enable_x64(True):
    wide = jax.tree.map(np.float64, params)
    out, _, taps = run(wide, {"ids": IDS})
    assert out.logits.q.dtype == np.float64
    found = np.asarray(out.logits.to_float(jnp.float64))
  for path, value in taps.items():
    if isinstance(value, Fx):
      np.testing.assert_array_equal(value.q, np.round(value.q), path)
      assert np.abs(value.q).max() <= value.bound, path
  want = jax.jit(transform.reference(fn))(params, {"ids": IDS})[0].logits
  gap = np.abs(found - want)
  # Ternary: the plan leaves out the 8-bit activations of the reference; SwiGLU:
  # the sigmoid is the chip's table; norms have the chip's root.
  limits = {"llama": 0.05, "gpt2": 4e-3, "relu": 4e-3}
  limit = limits.get(name, 0.1)
  assert 0 < gap.max() < limit * np.std(want)


def test_fewer_bits_cost_more():
  fn, params, stats = case("gpt2")
  want = jax.jit(transform.reference(fn))(params, {"ids": IDS})[0].logits
  gaps = []
  for preset in (WIDE, quantize.W8A16, quantize.W8A8):
    plan = quantize.plan(stats, preset)
    out, _ = jax.jit(transform.fake_quant(fn, plan))(params, {"ids": IDS})
    gaps.append(float(np.abs(out.logits.to_float() - want).mean()))
  assert gaps[0] * 4 < gaps[1] < gaps[2]


def test_a_prompt_then_tokens_in_formats():
  """The memory holds codes; a state of zeros is no state."""
  fn, params, stats = case("llama")
  plan = quantize.plan(stats, quantize.W8A16)
  run = transform.fake_quant(fn, plan)
  step = jax.jit(run)
  with jax.enable_x64(True):
    params = jax.tree.map(np.float64, params)
    whole, _ = step(params, {"ids": IDS})
    out, state = step(params, {"ids": IDS[:, :4]})
    found = [out.logits.q]
    for t in range(4, 9):
      out, state = step(params, {"ids": IDS[:, t : t + 1]}, state)
      found.append(out.logits.q)
    gap = np.abs(np.concatenate(found, axis=1) - whole.logits.q)
    # Softmax in another order of sums may cross a rounding.
    assert gap.max() <= 1
    assert (gap == 0).mean() > 0.99
    zeros = gpt.init_state(CONFIGS["llama"], (2,))
    start = jax.jit(lambda p: run(p, {"ids": IDS[:, :4]}, zeros))
    again, _ = start(params)
    np.testing.assert_array_equal(again.logits.q, found[0])
    assert (
      state["layers"][0]["k"].frac == plan.format("layers.0.attn.k_turned").frac
    )


def test_a_float_state_and_one_of_another_plan_are_refused():
  fn, params, stats = case("llama")
  ids = {"ids": IDS[0, :2]}
  real = jax.jit(transform.reference(fn))(params, ids)[1]
  one = jax.jit(transform.fake_quant(fn, quantize.plan(stats, WIDE)))
  with pytest.raises(PlanError, match="k_memory: expected a fixed-point state"):
    one(params, ids, real)
  _, state = one(params, ids)
  two = jax.jit(transform.fake_quant(fn, quantize.plan(stats, quantize.W8A8)))
  with pytest.raises(PlanError, match="k_memory: .* another plan"):
    two(params, ids, state)


def test_plans_that_leave_sites_in_float():
  """The paper's rows: rounded parameters, rounded blocks, half precision."""
  fn, params, stats = case("gpt2")
  run = lambda preset: jax.jit(
    transform.fake_quant(fn, quantize.plan(stats, preset))
  )
  want, _ = jax.jit(transform.reference(fn))(params, {"ids": IDS})
  plain = quantize.PT.replace(eps=1e-3)
  whole, _ = run(plain)(params, {"ids": IDS})
  np.testing.assert_allclose(whole.logits, want.logits, atol=1e-5)
  gaps = {}
  for name in ("W8", "A8", "A16", "FP16"):
    preset = getattr(quantize, name).replace(eps=1e-3)
    step = run(preset)
    out, _ = step(params, {"ids": IDS[:, :6]})
    _, state = step(params, {"ids": IDS[:, :5]})
    last, state = step(params, {"ids": IDS[:, 5:6]}, state)
    size = float(np.std(want.logits))
    np.testing.assert_allclose(
      last.logits[:, 0], out.logits[:, 5], atol=0.02 * size
    )
    gaps[name] = np.abs(out.logits - want.logits[:, :6]).mean() / size
  assert 0 < gaps["A16"] < gaps["A8"] / 10
  assert 1e-4 < gaps["W8"] < 0.1
  assert 1e-4 < gaps["FP16"] < 0.01
  # Rounding twice changes nothing: weights are rounded where they are used.
  plan = quantize.plan(stats, quantize.W8.replace(eps=1e-3))
  fmt = plan.format("layers.0.mlp.up.weight")
  up = params["layers"][0]["mlp"]["up"]
  codes = np.clip(
    np.floor(up["weight"] * 2.0**fmt.frac + 0.5), fmt.low, fmt.high
  )
  layer = {**params["layers"][0], "mlp": {**params["layers"][0]["mlp"]}}
  layer["mlp"]["up"] = {**up, "weight": np.float32(codes * 2.0**-fmt.frac)}
  assert np.abs(layer["mlp"]["up"]["weight"] - up["weight"]).max() > 0
  step = jax.jit(transform.fake_quant(fn, plan))
  one, _ = step(params, {"ids": IDS})
  two, _ = step({**params, "layers": [layer]}, {"ids": IDS})
  np.testing.assert_array_equal(one.logits, two.logits)
  fine = jax.jit(transform.fake_quant(fn, quantize.plan(stats, WIDE)))
  _, state = fine(params, {"ids": IDS[:, :1]})
  with pytest.raises(PlanError, match="k_memory: expected a float state"):
    step(params, {"ids": IDS[:, :1]}, state)


def test_formats_are_trainable():
  fn, params, stats = case("gpt2")
  run = transform.fake_quant(fn, quantize.plan(stats, quantize.W8A8))

  @jax.jit
  @jax.grad
  def grad(params):
    logits = run(params, {"ids": IDS})[0].logits.to_float()
    return -jnp.mean(jax.nn.log_softmax(logits)[..., 3])

  for path, leaf in jax.tree_util.tree_leaves_with_path(grad(params)):
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    assert np.isfinite(leaf).all(), name
    if not name.endswith("attn.k.bias"):
      assert np.abs(leaf).max() > 0, name


@pytest.mark.parametrize(
  ("name", "says"),
  [
    ("llama", "layers.0.attn.q_turned: ops.rotate has no integer form .*embed"),
    ("relu", "layers.0.attn.q_turned: ops.rotate has no integer form .*embed"),
    ("gpt2", "layers.0.attn.k_memory: ops.remember has no .*ops.scan"),
    pytest.param(
      *("ternary", "layers.0.attn.k_memory: ops.remember has no .*ops.scan"),
      marks=pytest.mark.slow,
    ),
  ],
)
def test_integers_are_refused_by_op_and_site(name, says):
  fn, params, stats = case(name)
  plan = quantize.plan(stats, quantize.W8A16)
  qparams = quantize.quantize_params(params, plan)
  with pytest.raises(PlanError, match=says + ".*reference and fake_quant only"):
    transform.fixed(fn, plan)(qparams, {"ids": IDS})
  with pytest.raises(PlanError, match=says):
    record(fn, plan, qparams)


def test_parameters_are_rounded_where_they_are_used():
  """Those of `quantize_params` give the same, of any kind."""
  fn, params, stats = case("gpt2")
  plan = quantize.plan(stats, quantize.W8A16)
  tree = quantize.quantize_params(params, plan).tree
  up = tree["layers"][0]["mlp"]["up"]
  assert up["weight"].codes.dtype == np.int8
  assert plan.format("layers.0.mlp.up.weight").bits == 8
  assert up["bias"].frac == plan.format("layers.0.mlp.up.bias").frac
  codes = lambda v: v.codes if isinstance(v, QDense) else v.q
  real = lambda v: np.float64(codes(v)) * 2.0**-v.frac
  is_vector = lambda v: isinstance(v, QVector | QDense)
  with jax.enable_x64(True):
    kept = jax.tree.map(real, tree, is_leaf=is_vector)
    given = jax.tree.map(np.float64, params)
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(given), strict=True):
      assert 0 < np.abs(a - b).max() < 0.02
    run = jax.jit(transform.fake_quant(fn, plan))
    one, _ = run(given, {"ids": IDS})
    two, _ = run(kept, {"ids": IDS})
  np.testing.assert_array_equal(one.logits.q, two.logits.q)


def test_families_are_found_by_their_configs():
  assert set(FAMILIES) == {"matmulfree", "gpt"}
  for family in FAMILIES.values():
    assert family.make(family.config()).check_inputs is not None
