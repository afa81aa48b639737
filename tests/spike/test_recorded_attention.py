"""Attention blocks of public libraries, rebuilt from weights: spikes exact."""

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.spike import attention, sdsa
from jaxnmc.spike.neurons import LIF, run, trace
from jaxnmc.spike.norms import fold_batch_norm
from jaxnmc.spike.ssa import SSA, attend

HARD = LIF(reset="hard")
BN = ("bn_g", "bn_b", "bn_mean", "bn_var")
jit_run = jax.jit(run, static_argnums=0)


def _linear(golden, name, x):
  """A linear layer and its BatchNorm, folded: x float[..., in]."""
  statistics = (golden[f"{name}_{key}"] for key in BN)
  weight, bias = fold_batch_norm(
    golden[f"{name}_w"], golden.get(f"{name}_b"), *statistics
  )
  return x.astype(jnp.float32) @ weight.T + bias


def test_causal_ssa(recorded):
  golden = recorded("causal_ssa")
  q, k, v = (golden[name] for name in "qkv")
  np.testing.assert_array_equal(attention.scores(q, k), golden["scores"])
  y = attention.quadratic(q, k, v)
  np.testing.assert_array_equal(y, golden["out_int"])
  np.testing.assert_array_equal(attention.prefix(q, k, v)[1], y)
  # The recorded neuron takes Y / 8 at threshold 1/2, in floats.
  config = SSA(head_size=8, context=12, scaling="constant")
  real, _ = attend(config, *(x.astype(np.float32) for x in (q, k, v)), 0.5)
  np.testing.assert_array_equal(real, golden["lif_spk"])
  # In integers: four ticks, four fraction bits.
  config = SSA(head_size=8, context=12, scaling="constant", frac=4)
  spikes, _ = attend(config, q, k, v, 8)
  np.testing.assert_array_equal(spikes, golden["lif_spk"])
  _, _, states = trace(LIF(threshold=0.5), golden["out_int"] / np.float32(8))
  np.testing.assert_allclose(states.v, golden["lif_v"], 1e-6, 1e-6)


def test_spikformer_block(recorded):
  golden = recorded("ssa_spikformer")
  x = jnp.asarray(golden["x"])
  spikes = {}
  for name in "qkv":
    _, spikes[name] = jit_run(HARD, _linear(golden, name, x))
    np.testing.assert_array_equal(spikes[name], golden[f"{name}_spk"])
  heads = [attention.split_heads(spikes[name], 4) for name in "qkv"]
  y = attention.merge_heads(attention.quadratic(*heads, causal=False))
  np.testing.assert_array_equal(0.125 * y, golden["attn_drive"])
  config = SSA(
    head_size=8,
    context=12,
    neuron=HARD,
    scaling="constant",
    causal=False,
  )
  out, state = attend(config, *heads, 0.5)
  assert state is None
  attn = attention.merge_heads(out)
  np.testing.assert_array_equal(attn, golden["attn_spk"])
  _, last = jit_run(HARD, _linear(golden, "proj", attn))
  np.testing.assert_array_equal(last, golden["y"])


def test_spikingjelly_block(recorded):
  golden = recorded("ssa_sj")
  tokens_last = lambda x: jnp.swapaxes(x, -1, -2)
  x = tokens_last(jnp.asarray(golden["x"]))
  _, qkv = jit_run(HARD, _linear(golden, "qkv", x))
  np.testing.assert_array_equal(tokens_last(qkv), golden["qkv_spk"])
  heads = [attention.split_heads(part, 4) for part in jnp.split(qkv, 3, -1)]
  drive = 0.125 * attention.linear(*heads)
  np.testing.assert_array_equal(tokens_last(drive), golden["attn_drive"])
  config = SSA(
    head_size=8, context=12, neuron=HARD, scaling="constant", causal=False
  )
  out, _ = attend(config, *heads, 0.5)
  np.testing.assert_array_equal(tokens_last(out), golden["attn_spk"])
  merged = attention.merge_heads(out)
  _, last = jit_run(HARD, _linear(golden, "proj", merged))
  np.testing.assert_array_equal(tokens_last(last), golden["y"])


def test_spike_driven_block(recorded):
  golden = recorded("sdsa")
  ticks, batch, channels, height, width = golden["x"].shape
  tokens = lambda x: jnp.moveaxis(
    jnp.asarray(x).reshape(ticks, batch, channels, height * width), 2, 3
  )
  x = tokens(golden["x"])
  _, first = jit_run(HARD, x)
  np.testing.assert_array_equal(first, tokens(golden["h_first_lif"]))
  heads = []
  for name in "qkv":
    _, spikes = jit_run(HARD, _linear(golden, name, first))
    np.testing.assert_array_equal(spikes, tokens(golden[f"h_{name}_lif"]))
    heads.append(attention.split_heads(spikes, 2))
  q, k, v = heads
  np.testing.assert_array_equal(k * v, golden["h_kv_before"])
  config = SSA(
    head_size=8, context=12, neuron=HARD, scaling="none", causal=False
  )
  y, state = sdsa.gate(config, q, k, v, 0.5)
  assert state is None
  np.testing.assert_array_equal(y, golden["h_x_after_qkv"])
  np.testing.assert_array_equal(y, q * golden["h_kv"])
  out = _linear(golden, "proj", attention.merge_heads(y)) + x
  np.testing.assert_allclose(out, tokens(golden["y"]), 1e-5, 1e-5)
