"""Masks by magnitude and N of M, and those that grow while training."""

import itertools

import hypothesis
import jax
import numpy as np
import optax
import pytest
from hypothesis import strategies as st
from jax import numpy as jnp

import jaxnmc as nmc
from jaxnmc.compress import masks
from jaxnmc.errors import ConfigError
from jaxnmc.io import tokenizer as tokenizers
from jaxnmc.models import families, gpt
from jaxnmc.numerics.fx import codes
from jaxnmc.train import checkpoints, evalrange, export, loop
from tests.compress.small import CONFIGS, IDS, make_params


def tree(weight):
  """Parameters with one matrix that masks are for, and some that stay."""
  leaf = {"weight": jnp.asarray(weight, jnp.float32), "bias": jnp.ones(3)}
  return {
    "embed": {"weight": jnp.ones((4, 4))},
    "layers": [{"attn": {"q": leaf}, "attn_norm": {"gain": jnp.ones(4)}}],
    "head": {"weight": jnp.ones((4, 4))},
  }


def matrix(params):
  return np.asarray(params["layers"][0]["attn"]["q"]["weight"])


@hypothesis.given(
  st.integers(1, 8), st.integers(0, 7), st.integers(1, 19), st.integers(0, 99)
)
def test_n_of_m_keeps_the_largest_of_every_group(m, less, width, seed):
  n = max(1, m - less)
  draw = np.random.default_rng(seed)
  weight = draw.integers(-4, 5, (3, width)).astype(np.float32)  # with ties
  mask = np.asarray(matrix(masks.n_of_m(tree(weight), n, m)))
  assert mask.shape == weight.shape
  for row, kept in zip(abs(weight), mask):
    for first in range(0, width, m):
      group, stays = row[first : first + m], kept[first : first + m]
      assert stays.sum() == min(n, len(group))
      assert group[~stays].max(initial=0) <= group[stays].min()


@hypothesis.given(st.floats(0, 0.9), st.integers(0, 99))
def test_magnitude_takes_the_smallest(sparsity, seed):
  weight = np.random.default_rng(seed).integers(-4, 5, (3, 5))
  mask = np.asarray(matrix(masks.magnitude(tree(weight), sparsity)))
  assert (~mask).sum() == int(sparsity * 15 + 0.5)
  size = abs(weight)
  assert size[~mask].max(initial=0) <= size[mask].min()


def test_only_matrices_of_layers_are_masked():
  params = tree(np.arange(12).reshape(3, 4) - 6)
  found = masks.apply(params, masks.magnitude(params, 0.5))
  assert masks.zeros(found) == {"layers.0.attn.q.weight": (6, 12)}
  assert masks.zeros(params) == {"layers.0.attn.q.weight": (1, 12)}
  for path in ("embed", "head"):
    assert (found[path]["weight"] == 1).all()
  assert (found["layers"][0]["attn"]["q"]["bias"] == 1).all()
  assert sorted(set(matrix(found).ravel())) == [-6, -5, -4, 0, 3, 4, 5]


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda p: masks.magnitude(p, 1.0), "sparsity: found 1.0, allowed"),
    (lambda p: masks.magnitude(p, -0.1), "sparsity: found -0.1, allowed"),
    (lambda p: masks.magnitude(p, 0.99), "removes all 12 weights .*3, 4"),
    (lambda p: masks.n_of_m(p, 0, 4), "mask: found 0:4, allowed"),
    (lambda p: masks.n_of_m(p, 5, 4), "mask: found 5:4, allowed"),
    (lambda p: masks.n_of_m(p, 2, 4.0), "mask: found 2:4.0, allowed"),
    (lambda p: masks.Gradual(final=1.5), "final: found 1.5"),
    (lambda p: masks.Gradual(final=0.2, initial=0.5), "initial: found 0.5, al"),
    (lambda p: masks.Gradual(final=0.5, begin=9, end=9), "found 9, 9, 100"),
    (lambda p: masks.Gradual(final=0.5, every=0), "found 0, 1000, 0"),
  ],
)
def test_impossible_masks(make, message):
  with pytest.raises(ConfigError, match=message) as error:
    make(tree(np.ones((3, 4))))
  assert "\n" not in str(error.value)


# --- integers


def test_integers_of_n_of_m_are_n_of_m():
  """Zero weights are zero codes, and a zero row is no part of a sum."""
  config, params = CONFIGS["spiking"], make_params("spiking", "float32")
  sparse = masks.apply(params, masks.n_of_m(params, 2, 4))
  fn = gpt.make(config)
  plan = nmc.plan(nmc.calibrate(fn)(sparse, [IDS]), nmc.quantize.W8A16)
  qparams = nmc.quantize_params(sparse, plan)
  for layer, kept in zip(qparams.tree["layers"], sparse["layers"]):
    for part, name in (("attn", "q"), ("attn", "o"), ("mlp", "up")):
      found = np.asarray(layer[part][name]["weight"].codes)
      assert not found[np.asarray(kept[part][name]["weight"]) == 0].any()
      for first in range(0, found.shape[1], 4):
        group = found[:, first : first + 4]
        assert ((group != 0).sum(1) <= 2).all()
  with jax.enable_x64(True):
    wide = jax.tree.map(np.float64, sparse)
    fake, _ = jax.jit(nmc.fake_quant(fn, plan))(wide, {"ids": IDS})
  out, _ = jax.jit(nmc.fixed(fn, plan))(qparams, {"ids": IDS})
  np.testing.assert_array_equal(codes(out.logits), codes(fake.logits))


# --- training


def test_the_schedule_is_the_formula():
  plan = masks.Gradual(final=0.8, begin=4, end=14, every=5, initial=0.2)
  for t, want in ((4, 0.2), (9, 0.8 - 0.6 * 0.5**3), (14, 0.8), (99, 0.8)):
    assert float(plan.sparsity(t)) == pytest.approx(want, abs=1e-6)
  assert plan.reached == 15


def steps(transform, weight, count, rate=0.1):
  """The matrix behind each step of SGD on a noisy gradient."""
  optimizer = optax.chain(optax.sgd(rate), transform)
  params = tree(weight)
  state, found = optimizer.init(params), []
  draw = np.random.default_rng(1)

  @jax.jit
  def step(params, state, noise):
    grads = jax.tree.map(lambda p: jnp.zeros_like(p), params)
    grads["layers"][0]["attn"]["q"]["weight"] = noise
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  for _ in range(count):
    noise = jnp.asarray(draw.normal(size=weight.shape), jnp.float32)
    params, state = step(params, state, noise)
    found.append(matrix(params))
  return found


def test_zeros_grow_as_the_schedule_says_and_stay():
  plan = masks.Gradual(final=0.75, begin=2, end=9, every=3)
  weight = np.random.default_rng(0).normal(size=(10, 8)).astype(np.float32)
  found = steps(plan.transform(), weight, 12)
  counts = [int((w == 0).sum()) for w in found]
  at = lambda t: int(np.floor(float(plan.sparsity(t)) * 80 + 0.5))
  # Masks change in steps 2, 5, 8 and, last, 9.
  want = [0, 0, *[at(2)] * 3, *[at(5)] * 3, at(8), *[60] * 3]
  assert counts == want
  for before, after in zip(found, found[1:]):
    assert not after[before == 0].any()
  # The smallest in front of a step go in it.
  size = abs(found[4])
  gone = (found[5] == 0) & (size > 0)
  assert size[gone].max() <= size[found[5] != 0].min()


def test_what_is_zero_stays_zero_and_the_rest_is_trained():
  weight = np.random.default_rng(0).normal(size=(10, 8)).astype(np.float32)
  weight[abs(weight) < 0.5] = 0
  found = steps(masks.Hold().transform(), weight, 3)
  free = steps(optax.identity(), weight, 3)
  for held, other in zip(found, free):
    np.testing.assert_array_equal(held == 0, weight == 0)
    # Up to a fused multiply-add.
    np.testing.assert_allclose(held, np.where(weight, other, 0), rtol=1e-6)


def test_updates_need_the_parameters():
  for plan in (masks.Hold(), masks.Gradual(final=0.5)):
    transform, params = plan.transform(), tree(np.ones((3, 4)))
    state = transform.init(params)
    with pytest.raises(ConfigError, match="without params, found None; pass"):
      transform.update(params, state)


CONFIG = gpt.Config(
  vocab_size=259,
  hidden_size=8,
  num_layers=1,
  num_heads=2,
  head_dim=2,
  intermediate_size=12,
  max_position_embeddings=16,
)
DOCS = [f"The {w} has {n} legs." for n in range(9) for w in ("cat", "ox")]


def train(folder, mask, steps=6, made=None):
  params = gpt.init_params(CONFIG, jax.random.key(0)) if made is None else made
  return loop.train(
    fn=gpt.make(CONFIG),
    init_params=lambda: params,
    model_config=families.to_json(CONFIG),
    tokenizer=tokenizers.ByteTokenizer(),
    documents=DOCS,
    held=DOCS[:1],
    recipe=loop.Recipe(steps=steps, batch=2, seq=16, warmup=2),
    rhythm=loop.Rhythm(
      checkpoint_every=3, log_every=3, eval_every=2, progress=False
    ),
    workdir=str(folder),
    mask=mask,
  )


def share(folder, name):
  params, _ = export.load(folder / name)
  found = masks.zeros(params).values()
  assert len(found) == 7
  return {round(a / b, 2) for a, b in found}


def test_the_loop_masks_resumes_and_keeps_the_best_of_what_is_masked(
  tmp_path, monkeypatch
):
  plan = masks.Gradual(final=0.5, begin=1, end=4, every=1)
  whole, cut = tmp_path / "whole", tmp_path / "cut"
  # Held-out text is scored in steps 2, 4 and 6, each time worse.
  worse = itertools.count(1.0)
  scored = lambda *_: {"bpb": next(worse), "perplexity": 1.0}
  monkeypatch.setattr(evalrange, "bits_per_byte", scored)
  for folder in (whole, cut):
    folder.mkdir()
  result = train(whole, plan)
  assert share(whole, "final.npz") == share(whole, "best.npz") == {0.5}
  # Masks are the last ones behind step 5.
  assert result["best_step"] == 6
  with pytest.raises(ConfigError, match="step 4, .* there are 3 steps; give"):
    train(cut, plan, steps=3)
  save = checkpoints.Checkpoints.save

  def stop(self, step, *rest):
    save(self, step, *rest)
    raise KeyboardInterrupt

  monkeypatch.setattr(checkpoints.Checkpoints, "save", stop)
  with pytest.raises(KeyboardInterrupt):
    train(cut, plan)  # behind step 3, in the middle of the schedule
  monkeypatch.setattr(checkpoints.Checkpoints, "save", save)
  assert train(cut, plan)["params_digest"] == result["params_digest"]


def test_the_loop_holds_zeros(tmp_path):
  params = gpt.init_params(CONFIG, jax.random.key(0))
  sparse = masks.apply(params, masks.n_of_m(params, 1, 4))
  train(tmp_path, masks.Hold(), made=sparse)
  after, _ = export.load(tmp_path / "final.npz")
  assert masks.zeros(after) == masks.zeros(sparse)
  moved = after["layers"][0]["attn"]["q"]["weight"]
  assert (moved != sparse["layers"][0]["attn"]["q"]["weight"]).any()
  # Another mask is another run.
  with pytest.raises(nmc.errors.UserError, match="mask"):
    train(tmp_path, None, made=sparse)
