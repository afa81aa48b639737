"""The tutorial's names: what they compute, by Python's integers."""

import functools
import types

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from jaxnmc import edge
from jaxnmc.errors import ConfigError, TokenError
from jaxnmc.io.tokenizer import ByteTokenizer
from jaxnmc.report import stats

T, B, S, D = 4, 2, 5, 16
SPIKES = (np.random.default_rng(0).random((T, B, S, D)) < 0.4).astype(np.int32)
CONFIG = types.SimpleNamespace(
  hidden_size=D, num_attention_heads=2, intermediate_size=32
)


def by_hand(weight, spikes, threshold=128, keep=3686):
  """v <- decay v + W s, integers, products cut toward zero."""
  out = np.zeros((*spikes.shape[:-1], len(weight)), int)
  for place in np.ndindex(*spikes.shape[1:-1]):
    for n, row in enumerate(weight):
      v = 0
      for t in range(len(spikes)):
        kept = abs(v) * keep >> 12
        v = (kept if v >= 0 else -kept) + int(row @ spikes[(t, *place)])
        out[(t, *place, n)] = v >= threshold
        v -= threshold * int(v >= threshold)
  return out


@functools.cache
def block():
  made = edge.SpikingTransformerBlock(CONFIG, ticks=T)
  return made, made.init(jax.random.key(0))


def test_linear_is_its_equation():
  layer = edge.SpikingLinear(D, 6)
  assert (layer.threshold, layer.decay, layer.ticks) == (128, 0.9, 4)
  params = layer.init(jax.random.key(1))
  assert params["weight"].dtype == jnp.int8
  found = np.asarray(jax.jit(layer)(params, SPIKES))
  want = by_hand(np.asarray(params["weight"], int), SPIKES)
  np.testing.assert_array_equal(found, want)
  assert 0.05 < found.mean() < 0.95
  assert found.dtype == np.int32


def test_a_block_spikes_and_is_causal():
  made, params = block()
  run = jax.jit(made)
  found = np.asarray(run(params, SPIKES))
  assert found.shape == SPIKES.shape
  assert set(np.unique(found)) == {0, 1}
  changed = SPIKES.copy()
  changed[:, :, 3] = 1 - changed[:, :, 3]
  other = np.asarray(run(params, changed))
  np.testing.assert_array_equal(other[:, :, :3], found[:, :, :3])
  assert (other[:, :, 3:] != found[:, :, 3:]).any()


def test_a_block_is_attention_then_feed_forward():
  made, params = block()
  middle = jax.jit(made.attn)(params["attn"], SPIKES)
  want = jax.jit(made.ffn)(params["ffn"], middle)
  np.testing.assert_array_equal(jax.jit(made)(params, SPIKES), want)
  up, down = (
    np.asarray(params["ffn"][n]["weight"], int) for n in ("up", "down")
  )
  by = by_hand(down, by_hand(up, np.asarray(middle)))
  np.testing.assert_array_equal(want, by)


def test_float_weights_train():
  layer = edge.SpikingLinear(D, 6)
  params = layer.init(jax.random.key(1), jnp.float32)
  loss = lambda p: jnp.mean(layer(p, SPIKES))
  slope = jax.jit(jax.grad(loss))(params)["weight"]
  assert float(abs(slope).max()) > 0


def test_most_active_neurons_are_text():
  tokenizer = ByteTokenizer()
  ids = [int(i) for i in tokenizer.encode("warm")]
  spikes = np.zeros((T, len(ids), tokenizer.vocab_size), np.int8)
  spikes[0] = 1  # everybody fires once
  for place, token in enumerate(ids):
    spikes[:3, place, token] = 1
  assert edge.decode_spikes_to_tokens(spikes, tokenizer) == "warm"
  both = np.stack([spikes, spikes[:, ::-1]], 1)
  assert edge.decode_spikes_to_tokens(both, tokenizer) == ["warm", "mraw"]


def test_potentials_decide_between_equal_counts():
  tokenizer = ByteTokenizer()
  a, b = (int(tokenizer.encode(x)[0]) for x in "ab")
  spikes = np.zeros((2, 1, tokenizer.vocab_size), np.int8)
  spikes[:, 0, [a, b]] = 1
  assert edge.decode_spikes_to_tokens(spikes, tokenizer) == "a"
  v = np.zeros((1, tokenizer.vocab_size), np.int32)
  v[0, b] = 7
  assert edge.decode_spikes_to_tokens(spikes, tokenizer, v) == "b"


def test_histogram_of_layers():
  (row,) = edge.get_spike_histogram({"up": SPIKES})
  counts = SPIKES.sum(0)
  assert row["times"] == [int((counts == k).sum()) for k in range(T + 1)]
  assert (row["layer"], row["ticks"]) == ("up", T)
  assert edge.get_stats is stats.stats


@pytest.mark.parametrize(
  ("call", "words"),
  [
    (lambda: edge.SpikingLinear(0, 3), "in_features is 0"),
    (lambda: edge.SpikingLinear(2, 3, decay=1.0), "decay is 1.0"),
    (lambda: edge.SpikingMultiHeadAttention(8, 3), "divisible by num_heads"),
    (lambda: edge.SpikingTransformerBlock(object()).attn, "has no hidden_size"),
    (
      lambda: edge.SpikingLinear(D, 3, ticks=8)({}, SPIKES),
      "with 8 ticks and 16 features",
    ),
    (
      lambda: edge.decode_spikes_to_tokens(np.zeros((2, 2)), None),
      "found spikes of shape",
    ),
  ],
)
def test_what_cannot_be_is_refused(call, words):
  with pytest.raises(ConfigError, match=words):
    call()


def test_more_tokens_than_the_context():
  made, params = edge.SpikingMultiHeadAttention(D, 2, context=3), block()[1]
  with pytest.raises(TokenError):
    made(params["attn"], SPIKES)
