"""Learning on the tiles of a placed network is the rule on the whole layer."""

import functools

import jax
import numpy as np
import pytest
from flax import struct
from jax import numpy as jnp

import jaxnmc as nmc
from jaxnmc.chip import learning
from jaxnmc.chip.learning import delta, generator, head, mismatch, tiles
from jaxnmc.errors import ConfigError, PlacementError
from jaxnmc.models import gpt
from jaxnmc.models.inputs import token_check
from tests.chip import mini
from tests.chip.learning.test_delta import draw_case, formats

VOCAB = 11
PROMPTS = np.random.default_rng(3).integers(0, VOCAB, (5, 4)).astype(np.int32)
TARGETS = [7, 2, 7, 10, 0]


@struct.dataclass
class Out:
  logits: jax.Array


def fn(ops, params, inputs, state=None):
  """A dense layer between table and head, whose neurons are on the chip."""
  x = ops.embed("embed", params["embed"]["weight"], inputs["ids"])
  with ops.layer(0):
    up = ops.dense("up", params["up"], x)
    x = ops.site("relu", ops.max(up, ops.zeros(up)))
  head = params["head"]
  return Out(ops.dense("head", head["weight"], x, head.get("bias"))), ()


fn.check_inputs = token_check(VOCAB)
READS = "layers.0.relu"


@functools.cache
def model(bias=True):
  draw = np.random.default_rng(0)
  matrix = lambda *shape: np.float32(draw.normal(size=shape))
  params = {
    "embed": {"weight": matrix(VOCAB, 4)},
    "up": matrix(6, 4),
    "head": {"weight": 0.5 * matrix(VOCAB, 6)},
  }
  params["head"]["weight"][[7, 10]] = 0  # rows that are new
  if bias:
    params["head"]["bias"] = matrix(VOCAB)
  plan = nmc.plan(nmc.calibrate(fn)(params, [PROMPTS]), nmc.quantize.W8A16)
  return fn, plan, nmc.quantize_params(params, plan)


@functools.cache
def placed(bias=True, size=4, where="chip"):
  fn, plan, qparams = model(bias)
  graph = nmc.record(fn, plan, qparams)
  hardware = nmc.chip.loihi2(chips=2, cores_per_chip=60)
  placement = nmc.place(graph, hardware, head=where)
  return mini.recut(placement, size) if size else placement


def hidden_of(ids):
  fn, plan, qparams = model()
  sites = jax.jit(nmc.fixed(fn, plan, taps=True))(qparams, {"ids": ids})[2]
  return np.asarray(sites[READS].q)[-1]


@pytest.mark.parametrize(
  ("error", "size", "rows"),
  [("softmax", 4, None), ("perceptron", 0, None), ("sigmoid", 3, [7, 0, 10])],
)
def test_tiles_learn_what_the_layer_learns(error, size, rows):
  fn, plan, qparams = model()
  rule = learning.Delta(rate=-3, error=error, seed=9)
  learner = learning.Learner(
    fn, plan, placed(size=size), qparams, rule, rows=rows
  )
  assert learner.tiles == (3 if size == 4 else 4 if size == 3 else VOCAB)
  start = learning.from_model(plan, qparams, hidden=READS)
  hidden = np.stack([hidden_of(ids) for ids in PROMPTS])
  want, log = learning.tune(
    start, hidden, TARGETS, rule, rows=rows, shuffle=False
  )
  for k, (ids, target) in enumerate(zip(PROMPTS, TARGETS)):
    winner, counts, _ = learner.learn(ids, target)
    np.testing.assert_array_equal(learner.hidden, hidden[k])
    assert (winner == target) == log.right[k]
    for name, value in counts.totals().items():
      assert value == getattr(log.counts, name)[k], name
  assert (np.asarray(want.weight) != np.asarray(start.weight)).any()
  assert (np.asarray(want.bias) != np.asarray(start.bias)).any()
  np.testing.assert_array_equal(learner.head.weight, want.weight)
  np.testing.assert_array_equal(learner.head.bias, want.bias)
  # The cores compute with what they learnt, and so does `fixed`.
  after = learning.into_model(qparams, learner.head)
  assert after.weights != qparams.weights
  out, _, counters = learner({"ids": PROMPTS[0]})
  fixed, _ = jax.jit(nmc.fixed(fn, plan))(after, {"ids": PROMPTS[0]})
  np.testing.assert_array_equal(out.logits.q, fixed.logits.q)
  before, _ = jax.jit(nmc.fixed(fn, plan))(qparams, {"ids": PROMPTS[0]})
  assert (before.logits.q != fixed.logits.q).any()
  # Walks are counted with the new weights, as in a placement of them.
  graph = nmc.record(fn, plan, after)
  again = nmc.place(graph, placed(size=0).hardware, head="chip")
  again = mini.recut(again, size) if size else again
  run = nmc.loihi(fn, plan, again, engine="stepped")
  _, _, found = run(after, {"ids": PROMPTS[0]})
  assert counters.to_json() == found.to_json()


def test_without_a_bias():
  fn, plan, qparams = model(False)
  rule = learning.Delta(rate=-3)
  learner = learning.Learner(fn, plan, placed(False), qparams, rule)
  learner.learn(PROMPTS[0], 7)
  start = learning.from_model(plan, qparams, hidden=READS)
  want, _ = learning.tune(start, learner.hidden[None], [7], rule)
  np.testing.assert_array_equal(learner.head.weight, want.weight)
  assert learner.messages == {"out": 6, "in": 9}


def test_columns_need_a_reduction_and_learn_the_same():
  """Inputs cut into two: sums meet, errors go back to both halves."""
  f = formats(bias=False)
  weight, _, hidden, targets = draw_case(f, 11, 0.2)
  rule = learning.Delta(rate=-3)
  layer = learning.Head.of(weight, f)
  want, _ = learning.tune(layer, hidden, targets, rule, shuffle=False)
  cuts = [jnp.arange(0, 3, dtype=jnp.int32), jnp.arange(3, 4, dtype=jnp.int32)]
  parts = [layer.weight[:, cut] for cut in cuts]
  rows = jnp.arange(len(weight), dtype=jnp.int32)
  key = generator.key(rule.seed)

  @jax.jit
  def step(n, parts, h, target):
    total = sum(head.sums(p, h[cut]) for p, cut in zip(parts, cuts))
    z = head.finish(f, total, None)
    told = mismatch.shared(rule.error, f.logits.frac, z, rows)
    e = mismatch.error(rule.error, f.logits.frac, 15, z, rows, target, told)
    x, draw = delta.pre(rule, f, h), (key, n)
    return [
      delta.update(rule, f, p, None, e, x[cut], draw, rows, cut)[0]
      for p, cut in zip(parts, cuts)
    ]

  targets = jnp.asarray(targets, jnp.int32)
  for n, (h, target) in enumerate(zip(jnp.asarray(hidden, jnp.int32), targets)):
    parts = step(jnp.int32(n), parts, h, target)
  np.testing.assert_array_equal(jnp.concatenate(parts, axis=1), want.weight)


def test_what_cannot_learn_is_refused():
  fn, plan, qparams = model()
  make = functools.partial(
    learning.Learner, fn, plan, qparams=qparams, rule=learning.Delta(rate=-3)
  )
  with pytest.raises(PlacementError, match="0 matrices on the chips.*head="):
    make(placement=placed(size=0, where="host"))
  with pytest.raises(ConfigError, match="rows of the layer, 0 to 10"):
    make(placement=placed(), rows=[11])
  learner = make(placement=placed())
  with pytest.raises(ConfigError, match="target is 11"):
    learner.learn(PROMPTS[0], 11)
  with pytest.raises(ConfigError, match="no dense layer"):
    learning.from_model(plan, qparams, hidden=READS, name="embed")
  assert tiles.Learner is learning.Learner


@pytest.mark.slow
def test_a_transformer_of_spikes_learns_on_its_cores():
  config = gpt.Config(
    vocab_size=VOCAB,
    hidden_size=8,
    num_layers=1,
    num_heads=2,
    max_position_embeddings=9,
    norm="layer",
    mlp="relu",
    positions="learned",
    tie_word_embeddings=False,
    norm_eps=1e-3,
    attention="ssa",
    ticks=1,
  )
  fn = gpt.make(config)
  params = gpt.init_params(config, jax.random.key(0))
  plan = nmc.plan(nmc.calibrate(fn)(params, [PROMPTS]), nmc.quantize.W8A16)
  qparams = nmc.quantize_params(params, plan)
  graph = nmc.record(fn, plan, qparams)
  hardware = nmc.chip.loihi2(chips=2, cores_per_chip=60)
  placement = nmc.place(graph, hardware, head="chip")
  rule = learning.Delta(rate=-3)
  learner = learning.Learner(fn, plan, placement, qparams, rule)
  for ids, target in zip(PROMPTS, TARGETS):
    learner.learn(ids, target)
  run = jax.jit(nmc.fixed(fn, plan, taps=True))
  sites = run(qparams, {"ids": PROMPTS})[2]
  hidden = np.asarray(sites["norm"].q)[:, -1]
  head = learning.from_model(plan, qparams, hidden="norm")
  want, _ = learning.tune(head, hidden, TARGETS, rule, shuffle=False)
  np.testing.assert_array_equal(learner.head.weight, want.weight)
