"""Generation and samplers: laws that hold for any model and backend."""

import chex
import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st
from jax import numpy as jnp

from jaxnmc import _compat, errors
from jaxnmc import quantize as qz
from jaxnmc.models import generate, matmulfree, sampling
from jaxnmc.numerics.fx import Fx
from jaxnmc.ops import transform

CONFIG = matmulfree.Config(
  vocab_size=48, hidden_size=16, num_layers=1, intermediate_size=16
)


@pytest.fixture(scope="module")
def model():
  """(fn, float params, plan, qparams) of a tiny random model."""
  params = matmulfree.init_params(CONFIG, jax.random.key(0))
  params["embed"]["weight"] *= 20
  fn = matmulfree.make(CONFIG)
  ids = jax.random.randint(jax.random.key(1), (2, 12), 0, 48)
  plan = qz.plan(qz.calibrate(fn)(params, [ids]), qz.W8A16)
  return fn, params, plan, qz.quantize_params(params, plan)


@pytest.fixture(scope="module")
def fixed(model):
  """The generator of the integer backend, and what it was traced with."""
  fn, _, plan, qparams = model
  run = chex.assert_max_traces(transform.fixed(fn, plan), n=8)
  return generate.Generator(run, qparams, CONFIG.vocab_size)


def test_greedy_is_the_argmax_of_a_whole_run(model, fixed):
  fn, _, plan, qparams = model
  found = fixed([[1, 5, 7]], 6, keep_logits=True)
  assert found.steps == 6
  assert found.fed.shape == (1, 8)
  out, state = transform.fixed(fn, plan)(qparams, {"ids": found.fed})
  np.testing.assert_array_equal(
    np.argmax(out.logits.q, -1)[0, 2:], found.ids[0]
  )
  chex.assert_trees_all_equal(state, found.state)
  pieces = np.concatenate([part.q for part in found.logits], axis=1)
  np.testing.assert_array_equal(pieces, out.logits.q)


def test_one_program_per_decode_step(model):
  fn, params, _, _ = model
  # One trace for the prompt and one for all tokens after it.
  run = chex.assert_max_traces(transform.reference(fn), n=2)
  found = generate.generate(
    run, params, [[1, 2, 3, 4]], 9, vocab_size=CONFIG.vocab_size
  )
  assert found.steps == 9


def test_left_padding_changes_no_token(fixed):
  alone = [fixed([p], 5).ids[0] for p in ([1, 2, 3, 4], [1, 9])]
  both = fixed([[1, 2, 3, 4], [1, 9]], 5)
  for one, other in zip(alone, both.ids, strict=True):
    np.testing.assert_array_equal(one, other)
  np.testing.assert_array_equal(both.mask[:, :4], [[1, 1, 1, 1], [0, 0, 1, 1]])


def test_stops_at_the_end_token_and_streams(fixed):
  free = fixed([[1, 2]], 6)
  eos = int(free.ids[0][3])
  first = list(free.ids[0]).index(eos)
  seen = []
  found = fixed(
    [[1, 2]],
    6,
    eos_id=eos,
    callback=lambda ids, alive: seen.append((ids[0], alive[0])),
  )
  np.testing.assert_array_equal(found.ids[0], free.ids[0][:first])
  assert found.stopped == [True]
  assert [int(i) for i, alive in seen if alive] == found.ids[0].tolist()
  assert seen[-1][0] == eos
  assert not seen[-1][1]


def test_counters_and_backends_that_compile_themselves(model, fixed):
  fn, _, plan, qparams = model
  inner = jax.jit(transform.fixed(fn, plan))

  def run(params, inputs, state):
    return *inner(params, inputs, state), int(inputs["ids"].size)

  found = generate.generate(
    run, qparams, [[1, 2, 3]], 3, vocab_size=CONFIG.vocab_size, jit=False
  )
  assert found.counters == [3, 1, 1]
  np.testing.assert_array_equal(found.ids[0], fixed([[1, 2, 3]], 3).ids[0])


@pytest.mark.parametrize(
  ("prompts", "tokens", "text"),
  [
    ([], 1, "no prompt"),
    ([[]], 1, "prompt 0: no token ids"),
    ([[1], [48]], 1, "prompt 1: token id 48 is out of range.*0 to 47"),
    ([[-1]], 1, "token id -1"),
    ([[1.5]], 1, "flat sequence of integers"),
    ([[[1]]], 1, "flat sequence of integers"),
    ([[1]], 0, "number of tokens"),
  ],
)
def test_bad_prompts_are_refused(fixed, prompts, tokens, text):
  with pytest.raises(errors.TokenError, match=text):
    fixed(prompts, tokens)


@pytest.mark.parametrize(
  ("options", "text"),
  [
    ({"temperature": -1.0}, "temperature"),
    ({"temperature": float("nan")}, "temperature"),
    ({"temperature": float("inf")}, "temperature"),
    ({"top_k": -1}, "top_k"),
    ({"top_p": 0.0}, "top_p"),
    ({"top_p": 1.1}, "top_p"),
    ({"seed": 0.5}, "seed"),
  ],
)
def test_impossible_sampling_is_refused(options, text):
  with pytest.raises(errors.TokenError, match=text):
    sampling.sampler(**options)


def test_top_k_beyond_the_vocabulary_is_refused():
  pick = sampling.sampler(1.0, top_k=9)
  with pytest.raises(errors.TokenError, match="top_k = 9"):
    pick(jnp.zeros((1, 8)), jnp.int32(0))


def test_integer_sampler_refuses_floats():
  with pytest.raises(errors.TokenError, match="float sampler"):
    sampling.IntegerSample()(jnp.zeros((1, 8)), jnp.int32(0))


def _fx(codes, frac=4) -> Fx:
  high = 32639
  return Fx(jnp.asarray(codes, jnp.int32), frac=frac, low=-high, high=high)


def _draws(pick, logits, count: int) -> np.ndarray:
  steps = jnp.arange(count, dtype=jnp.int32)
  return np.asarray(jax.jit(jax.vmap(lambda s: pick(logits, s)))(steps))


@pytest.mark.parametrize("kind", [sampling.Sample, sampling.IntegerSample])
def test_frequencies_follow_the_softmax(kind):
  logits = _fx([[0, 16, 32, 40]])
  found = _draws(kind(temperature=0.8, seed=3), logits, 20_000)[:, 0]
  share = np.bincount(found, minlength=4) / len(found)
  want = jax.nn.softmax(logits.to_float()[0] / 0.8)
  np.testing.assert_allclose(share, want, atol=0.015)


@pytest.mark.parametrize("kind", [sampling.Sample, sampling.IntegerSample])
def test_top_k_and_top_p_cut(kind):
  logits = _fx([[0, 16, 32, 40], [40, 40, 40, 40]])
  one = _draws(kind(top_k=1), logits, 50)
  # Of equal logits the smallest id comes first.
  np.testing.assert_array_equal(one, np.tile([3, 0], (50, 1)))
  two = _draws(kind(top_k=2), logits, 300)
  assert set(two[:, 0]) == {2, 3}
  assert set(two[:, 1]) == {0, 1}
  nucleus = _draws(kind(top_p=0.5), logits, 300)
  assert set(nucleus[:, 0]) == {3}
  assert set(nucleus[:, 1]) == {0, 1}


@pytest.mark.parametrize("kind", [sampling.Sample, sampling.IntegerSample])
def test_seed_row_and_step_decide(kind):
  logits = _fx(np.zeros((3, 32)))
  found = _draws(kind(seed=1), logits, 40)
  np.testing.assert_array_equal(found, _draws(kind(seed=1), logits, 40))
  assert not np.array_equal(found, _draws(kind(seed=2), logits, 40))
  assert not np.array_equal(found[:, 0], found[:, 1])
  # A row draws the same bits in any batch.
  alone = _draws(kind(seed=1), _fx(np.zeros((1, 32))), 40)
  np.testing.assert_array_equal(found[:, 0], alone[:, 0])


def _oracle(sampler, codes, frac, word) -> int:
  """The integer sampler in Python's own integers, from its docstring."""
  size = len(codes)
  table = sampler.table(size).tolist()
  from jaxnmc.numerics.formats import mantissa

  mult, shift = mantissa(64 * np.log2(np.e) / sampler.temperature * 2.0**-frac)
  if shift < 1:
    mult, shift = 65535, 1
  order = sorted(range(size), key=lambda v: (-codes[v], v))
  weights = []
  for v in order:
    e = ((codes[order[0]] - codes[v]) * mult * 2 + 2**shift) >> (shift + 1)
    e = min(e, 64 * 31)
    weights.append(table[e % 64] >> (e // 64))
  weights[sampler.top_k or size :] = [0] * (size - (sampler.top_k or size))
  if sampler.top_p < 1:
    limit = max(round(sampler.top_p * 65536) * sum(weights) >> 16, 1)
    before = 0
    for k, w in enumerate(list(weights)):
      weights[k] = w if before < limit else 0
      before += w
  draw = (word >> 1) * sum(weights) >> 31
  total = 0
  for v, w in zip(order, weights, strict=True):
    total += w
    if total > draw:
      return v
  raise AssertionError("the draw lies beyond all weights")


@hypothesis.given(
  codes=st.lists(st.integers(-32639, 32639), min_size=5, max_size=5),
  frac=st.integers(-4, 20),
  temperature=st.floats(1e-6, 1e4),
  top=st.tuples(st.integers(0, 5), st.floats(1e-6, 1)),
  word=st.integers(0, 2**32 - 1),
)
@hypothesis.settings(max_examples=60)
def test_integer_sampler_is_its_definition(codes, frac, temperature, top, word):
  sampler = sampling.IntegerSample(temperature, *top)
  found = sampler._pick(_fx(codes, frac), jnp.uint32(word))
  assert int(found) == _oracle(sampler, codes, frac, word)


def test_integer_table_is_exact():
  table = sampling.IntegerSample().table(4096)
  assert table[0] == 1 << 18
  for i, value in enumerate(table.tolist()):
    assert value**64 <= 1 << (64 * 18 - i) < (value + 1) ** 64


@pytest.mark.parametrize(
  "sampler",
  [sampling.Greedy(), sampling.IntegerSample(0.7, 3, 0.9, 1)],
)
def test_exact_samplers_hold_no_float(sampler):
  jaxpr = jax.make_jaxpr(sampler)(_fx(np.zeros((2, 8))), jnp.int32(0))
  kinds = {
    str(v.aval)
    for inner in _compat.all_jaxprs(jaxpr)
    for eqn in inner.eqns
    for v in eqn.outvars
  }
  assert not [k for k in kinds if "float" in k]
