"""The transformer: NumPy's numbers, memory, causality, gradients, learning."""

import functools
import math

import jax
import numpy as np
import optax
import pytest
from jax import numpy as jnp

from jaxnmc.errors import ConfigError, PlanError, TokenError
from jaxnmc.models import generate, gpt
from jaxnmc.ops import transform
from jaxnmc.train import mixed
from tests.models import gpt_numpy

SIZES = {
  "vocab_size": 11,
  "hidden_size": 12,
  "num_layers": 2,
  "num_heads": 3,
  "intermediate_size": 10,
  "max_position_embeddings": 9,
}
GPT2 = {
  "norm": "layer",
  "mlp": "gelu_tanh",
  "positions": "learned",
  "bias": True,
}
CONFIGS = {
  "llama": gpt.Config(**SIZES),
  "gpt2": gpt.Config(**SIZES, **GPT2),
  "shared heads": gpt.Config(
    **{**SIZES, "num_heads": 4, "head_dim": 6},
    num_kv_heads=2,
    rotary_pairs="neighbours",
    rope_theta=100.0,
    tie_word_embeddings=False,
  ),
  "exact gelu": gpt.Config(**SIZES, mlp="gelu", norm="layer"),
  "relu": gpt.Config(
    **{**SIZES, **GPT2, "mlp": "relu"},
    tie_word_embeddings=False,
    head_bias=True,
  ),
  "ternary": gpt.Config(**SIZES, ternary=True, tie_word_embeddings=False),
  "no block norms": gpt.Config(
    **SIZES, ternary=True, block_norms=False, bitlinear_eps=1e-12
  ),
  "ternary gpt2": gpt.Config(**SIZES, **{**GPT2, "bias": False}, ternary=True),
}
IDS = np.random.default_rng(5).integers(0, 11, (3, 9)).astype(np.int32)


@functools.cache
def make_params(name):
  """Random parameters, every one of them away from its first value."""
  draw = np.random.default_rng(11)
  rows = gpt.parameters(CONFIGS[name])
  start = {"gain": 1.0}
  leaves = {
    row.path: start.get(row.kind, 0.0) + 0.4 * draw.normal(size=row.shape)
    for row in rows
  }
  return gpt.build(leaves)


@functools.cache
def runner(name):
  """`run(ids, state=None, **inputs)` in float64, jitted."""
  run = jax.jit(transform.reference(gpt.make(CONFIGS[name])))

  def call(ids, state=None, **inputs):
    with jax.enable_x64(True):
      out, state = run(make_params(name), {"ids": ids, **inputs}, state)
      return np.asarray(out.logits), jax.device_get(state)

  return call


@pytest.mark.parametrize("name", CONFIGS)
def test_float64_equals_numpy(name):
  found, state = runner(name)(IDS)
  assert found.dtype == np.float64
  want = [gpt_numpy.logits(CONFIGS[name], make_params(name), i) for i in IDS]
  np.testing.assert_allclose(found, want, rtol=0, atol=1e-10)
  assert np.std(want) > 0.1
  np.testing.assert_array_equal(state["position"], [9] * 3)


@pytest.mark.parametrize("name", ["shared heads", "ternary gpt2"])
def test_a_prompt_then_tokens_is_the_whole_at_once(name):
  run = runner(name)
  whole, last = run(IDS)
  for cut in (1, 5):
    found, state = run(IDS[:, :cut])
    np.testing.assert_allclose(found, whole[:, :cut], rtol=0, atol=1e-10)
    for t in range(cut, 9):
      found, state = run(IDS[:, t : t + 1], state)
      np.testing.assert_allclose(found[:, 0], whole[:, t], rtol=0, atol=1e-10)
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, atol=1e-10), state, last
    )


@pytest.mark.parametrize("name", ["llama"])
def test_an_empty_state_is_no_state(name):
  config = CONFIGS[name]
  state = gpt.init_state(config, (3,))
  found, _ = runner(name)(IDS, state)
  np.testing.assert_allclose(found, runner(name)(IDS)[0], rtol=0, atol=1e-10)
  shape = (3, 9, config.kv_heads * config.head_size)
  assert state["layers"][1]["k"].shape == shape
  assert gpt.init_state(config)["position"].shape == ()


@pytest.mark.parametrize("name", CONFIGS)
def test_a_later_token_changes_nothing_before(name):
  run = runner(name)
  whole, _ = run(IDS)
  for t in range(9):
    other = IDS.copy()
    other[:, t] = (other[:, t] + 5) % 11
    found, _ = run(other)
    np.testing.assert_array_equal(found[:, :t], whole[:, :t])
    assert (found[:, t] != whole[:, t]).any(axis=-1).all()


@pytest.mark.parametrize("name", ["gpt2"])
def test_padding_changes_nothing(name):
  """On the left, between and on the right; then more tokens follow."""
  run = runner(name)
  short = IDS[:1, :5]
  want, _ = run(short)
  places = np.array([2, 3, 5, 6, 7])
  ids, mask = np.full((1, 9), 7, np.int32), np.zeros((1, 9), np.int32)
  ids[0, places], mask[0, places] = short[0], 1
  found, state = run(ids, mask=mask)
  np.testing.assert_allclose(found[:, places], want, rtol=0, atol=1e-10)
  np.testing.assert_array_equal(state["position"], [5])
  whole, _ = run(IDS[:1])
  padded = np.array([[0, IDS[0, 5], 3]], np.int32)
  found, state = run(padded, state, mask=np.array([[0, 1, 0]], np.int32))
  np.testing.assert_allclose(found[0, 1], whole[0, 5], rtol=0, atol=1e-10)
  found, _ = run(IDS[:1, 6:], state)
  np.testing.assert_allclose(found, whole[:, 6:], rtol=0, atol=1e-10)


def test_batch_axes_between_are_those_in_front():
  """Training calls the model function itself, time first."""
  fn = gpt.make(CONFIGS["llama"])

  @jax.jit
  def run(params, ids, state=None):
    out, state = fn(transform.Reference(), params, {"ids": ids}, state)
    return out.logits, state

  with jax.enable_x64(True):
    params = make_params("llama")
    one, state = run(params, IDS[:, :4].T)
    two, state = run(params, IDS[:, 4:].T, state)
  whole, _ = runner("llama")(IDS)
  found = np.concatenate([one, two]).swapaxes(0, 1)
  np.testing.assert_allclose(found, whole, rtol=0, atol=1e-10)
  assert state["layers"][0]["k"].shape == (9, 3, 12)


@pytest.mark.parametrize("name", ["shared heads", "gpt2", "ternary"])
def test_gradients_are_finite_and_reach_every_parameter(name):
  config = CONFIGS[name]
  run = transform.reference(gpt.make(config))

  @jax.jit
  @jax.value_and_grad
  def grad(params):
    logits = run(params, {"ids": IDS})[0].logits[:, :-1]
    return optax.softmax_cross_entropy_with_integer_labels(
      logits, IDS[:, 1:]
    ).mean()

  with jax.enable_x64(True):
    params = make_params(name)
    slope = jax.device_get(grad(params)[1])
    if name == "gpt2":
      # Smooth everywhere, so that differences say the same.
      draw = lambda x: np.random.default_rng(x.size).normal(size=x.shape)
      way = jax.tree.map(draw, params)
      move = lambda t: jax.tree.map(lambda x, d: x + t * d, params, way)
      rise = float(grad(move(1e-5))[0]) - float(grad(move(-1e-5))[0])
      dots = jax.tree.map(lambda g, d: float((g * d).sum()), slope, way)
      assert sum(jax.tree.leaves(dots)) == pytest.approx(rise / 2e-5, rel=1e-6)
  for row in gpt.parameters(config):
    leaf = functools.reduce(
      lambda node, key: node[int(key) if key.isdigit() else key],
      row.path.split("."),
      slope,
    )
    assert np.isfinite(leaf).all(), row.path
    if row.path.endswith("attn.k.bias"):
      # Adds the same to every score of a query.
      np.testing.assert_allclose(leaf, 0, atol=1e-12)
    else:
      assert np.abs(leaf).max() > 1e-7, row.path


def test_bfloat16_products_are_close():
  fn = gpt.make(CONFIGS["gpt2"])
  params = jax.tree.map(jnp.float32, make_params("gpt2"))

  @jax.jit
  def run(params, ids):
    every = (transform.Reference(), mixed.Mixed())
    return [fn(ops, params, {"ids": ids})[0].logits for ops in every]

  wide, narrow = run(params, IDS.T)
  assert narrow.dtype == jnp.float32
  assert 0 < np.abs(narrow - wide).max() < 0.05 * np.std(wide)


@pytest.mark.parametrize("changes", [{}, GPT2])
def test_a_few_sequences_are_learned_by_heart(changes):
  config = gpt.Config(**{**SIZES, "hidden_size": 24}, **changes)
  fn = gpt.make(config)
  ids = IDS.T
  optimizer = optax.adam(1e-2)

  def loss(params):
    logits = fn(transform.Reference(), params, {"ids": ids[:-1]})[0].logits
    return optax.softmax_cross_entropy_with_integer_labels(
      logits, ids[1:]
    ).mean()

  @jax.jit
  def step(params, opt):
    value, grads = jax.value_and_grad(loss)(params)
    updates, opt = optimizer.update(grads, opt, params)
    return optax.apply_updates(params, updates), opt, value

  params = jax.jit(lambda: gpt.init_params(config, jax.random.key(0)))()
  opt, losses = optimizer.init(params), []
  for _ in range(150):
    params, opt, value = step(params, opt)
    losses.append(float(value))
  assert losses[0] == pytest.approx(math.log(11), abs=0.3)
  assert losses[-1] < 0.1


# --- too many tokens


def test_beyond_the_context_is_refused():
  config = CONFIGS["llama"]
  run = transform.reference(gpt.make(config))
  assert run.context == 9
  # Refused before anything is computed, so that these may be anything.
  params, long = {}, np.zeros((1, 10), np.int32)
  with pytest.raises(TokenError, match="10 tokens, .* at most 9"):
    run(params, {"ids": long})
  state = gpt.init_state(config, (1,))
  state["position"] = state["position"] + 6
  with pytest.raises(TokenError, match="10 tokens, .* at most 9"):
    run(params, {"ids": long[:, :4]}, state)
  with pytest.raises(TokenError, match="10 tokens"):
    gpt.make(config)(transform.Reference(), params, {"ids": long.T})
  # Padding takes no place.
  mask = np.ones((1, 10), np.int32)
  mask[0, 2] = 0
  check = gpt.make(config).check_inputs
  check({"ids": long, "mask": mask})
  mask[0, 2] = 1
  with pytest.raises(TokenError, match="10 tokens"):
    check({"ids": long, "mask": mask})


@pytest.mark.parametrize("name", ["llama"])
def test_beyond_the_context_is_never_silent(name):
  """Under jit the position is not known; the logits say it."""
  run = runner(name)
  whole, state = run(IDS)
  found, after = run(IDS[:, :2], state)
  assert np.isnan(found).all()
  for old, new in zip(state["layers"], after["layers"], strict=True):
    np.testing.assert_array_equal(old["k"], new["k"])
  _, state = run(IDS[:, :8])
  found, _ = run(IDS[:, 8:], state)
  np.testing.assert_allclose(found[:, 0], whole[:, 8], rtol=0, atol=1e-10)


def test_generation_is_the_argmax_of_the_whole():
  params = jax.tree.map(jnp.float32, make_params("llama"))
  run = transform.reference(gpt.make(CONFIGS["llama"]))
  prompts = [[1, 4, 2], [7], [3, 3, 3, 9, 8]]
  writer = generate.Generator(run, params, 11)
  found = writer(prompts, 5)
  for prompt, new in zip(prompts, found.ids, strict=True):
    row = list(prompt)
    for _ in range(5):
      last = gpt_numpy.logits(CONFIGS["llama"], make_params("llama"), row)[-1]
      row.append(int(last.argmax()))
    np.testing.assert_array_equal(new, row[len(prompt) :])
  with pytest.raises(TokenError, match="prompt 2 .* 10 tokens"):
    writer(prompts, 6)


def test_a_state_of_another_model_is_refused():
  other = gpt.Config(**{**SIZES, "max_position_embeddings": 8})
  run = jax.jit(transform.reference(gpt.make(CONFIGS["llama"])))
  params = jax.tree.map(jnp.float32, make_params("llama"))
  with pytest.raises(PlanError, match=r"k_memory.*\[8, 12\].*\[9, 12\]"):
    run(params, {"ids": IDS[0]}, gpt.init_state(other))


# --- the configuration


@pytest.mark.parametrize("name", CONFIGS)
def test_count_is_the_count_of_the_arrays(name):
  config = CONFIGS[name]
  params = jax.eval_shape(lambda: gpt.init_params(config, jax.random.key(0)))
  leaves = jax.tree.leaves(params)
  assert sum(math.prod(x.shape) for x in leaves) == config.num_params


@pytest.mark.parametrize(
  ("name", "count"),
  [
    ("gpt2", 124_439_808),
    ("gpt2-medium", 354_823_168),
    ("gpt2-large", 774_030_080),
  ],
)
def test_gpt2_has_the_published_sizes(name, count):
  config = gpt.PRESETS[name]
  assert config.num_params == count
  shapes = [row.shape for row in gpt.parameters(config)]
  assert sum(map(math.prod, shapes)) == count


def test_first_values():
  config = gpt.Config(
    **{**SIZES, **GPT2, "hidden_size": 96, "num_heads": 4},
    tie_word_embeddings=False,
  )
  params = jax.jit(lambda: gpt.init_params(config, jax.random.key(1)))()
  layer = params["layers"][1]
  std = lambda x: float(np.std(x))
  assert std(layer["attn"]["q"]["weight"]) == pytest.approx(0.02, rel=0.03)
  assert std(layer["attn"]["o"]["weight"]) == pytest.approx(0.01, rel=0.03)
  assert std(layer["mlp"]["down"]["weight"]) == pytest.approx(0.01, rel=0.06)
  assert (layer["attn_norm"]["gain"] == 1).all()
  assert not layer["attn"]["q"]["bias"].any()
  first = params["layers"][0]["attn"]["q"]["weight"]
  assert (first != layer["attn"]["q"]["weight"]).any()


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"vocab_size": 0}, "'vocab_size' must be a positive integer; found 0"),
    ({"num_heads": True}, "'num_heads' must be a positive integer; found True"),
    ({"num_layers": 10**6}, "'num_layers' must be at most 16384"),
    ({"head_dim": 0}, "'head_dim' must be a positive integer or null; found 0"),
    (
      {"num_heads": 5},
      r"'hidden_size' \(12\) must be divisible by 'num_heads'",
    ),
    (
      {"num_kv_heads": 2},
      r"'num_heads' \(3\) must be divisible by 'num_kv_hea",
    ),
    ({"num_heads": 4}, "needs an even width; found 3"),
    ({"norm": "batch"}, "'norm' must be one of rms, layer; found 'batch'"),
    (
      {"mlp": "elu"},
      "one of swiglu, gelu, gelu_tanh, relu; found 'elu'",
    ),
    ({"positions": None}, "'positions' must be one of rotary, learned"),
    ({"rotary_pairs": "odd"}, "'rotary_pairs' must be one of halves"),
    ({"bias": 1}, "'bias' must be true or false; found 1"),
    ({"ternary": True, "bias": True}, "'bias' must be false when 'ternary'"),
    ({"head_bias": True}, "'head_bias' must be false when 'tie_word_embed"),
    (
      {"ternary": True, "head_bias": True, "tie_word_embeddings": False},
      "'head_bias' must be false when 'ternary'",
    ),
    ({"block_norms": False}, "'block_norms' may be false only when 'ternary'"),
    ({"norm_eps": 0}, "'norm_eps' must lie between 0 and 1; found 0"),
    ({"rope_theta": float("nan")}, "'rope_theta' must be above 1"),
    ({"max_position_embeddings": -1}, "'max_position_embeddings' must be"),
  ],
)
def test_impossible_fields(changes, message):
  with pytest.raises(ConfigError, match=message):
    gpt.Config(**{**SIZES, **changes})


@pytest.mark.parametrize(
  ("mlp", "hidden", "inner"),
  [("gelu", 48, 192), ("swiglu", 192, 512), ("swiglu", 100, 288)],
)
def test_width_rule(mlp, hidden, inner):
  config = gpt.Config(hidden_size=hidden, num_heads=2, mlp=mlp)
  assert config.mlp_size == inner
