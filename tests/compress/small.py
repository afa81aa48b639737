"""Small transformers of random weights, and masks of their parts."""

import functools

import jax
import numpy as np

import jaxnmc as nmc
from jaxnmc.models import gpt

SIZES = {
  "vocab_size": 11,
  "hidden_size": 12,
  "num_layers": 2,
  "num_heads": 4,
  "intermediate_size": 10,
  "max_position_embeddings": 9,
  "norm_eps": 1e-3,
}
TINY = {
  "norm": "layer",
  "mlp": "relu",
  "positions": "learned",
  "bias": True,
  "tie_word_embeddings": False,
}
SSA = {"attention": "ssa", "ticks": 1, "mlp_ticks": 2}
CONFIGS = {
  "llama": gpt.Config(**SIZES, num_kv_heads=2, head_dim=4),
  "gpt2": gpt.Config(**SIZES, **{**TINY, "mlp": "gelu_tanh"}),
  "tiny": gpt.Config(**SIZES, **TINY),
  "spiking": gpt.Config(**SIZES, **TINY, **SSA),
  "windows": gpt.Config(
    **SIZES,
    **{**TINY, "mlp": "swiglu"},
    **SSA,
    windows=(2, None, 4, 3),
    signed=True,
  ),
}
IDS = np.random.default_rng(5).integers(0, 11, (2, 9)).astype(np.int32)
HEADS = [np.array(x, bool) for x in ([1, 0, 1, 1], [0, 0, 1, 0])]
UNITS = [
  np.array(x, bool) for x in ([0, 1] * 5, [1, 0, 0, 1, 1, 1, 0, 1, 1, 1])
]


def heads_of(name):
  """Masks of the heads of a config; of keys and values where shared."""
  if CONFIGS[name].kv_heads == 4:
    return HEADS
  return [np.array(x, bool) for x in ([1, 1], [0, 1])]


@functools.cache
def make_params(name, dtype="float64"):
  """Random parameters with low thresholds, so that much spikes."""
  draw = np.random.default_rng(3)
  start = {"gain": 1.0, "threshold": -1.5}
  spread = {"gain": 0.2, "bias": 0.3, "threshold": 0.2}

  def fill(row):
    noise = draw.normal(size=row.shape)
    if row.kind == "table of thresholds":
      return np.sort(0.5 * abs(noise) + 0.05, 0).astype(dtype)
    value = start.get(row.kind, 0.0) + spread.get(row.kind, 0.6) * noise
    return value.astype(dtype)

  rows = gpt.parameters(CONFIGS[name])
  return gpt.build({row.path: fill(row) for row in rows})


@functools.cache
def _runner(config):
  return jax.jit(nmc.reference(gpt.make(config)))


def in_float64(config, params, ids=IDS, state=None):
  """(logits, state) by `reference`, jitted, in float64."""
  with jax.enable_x64(True):
    wide = jax.tree.map(np.float64, params)
    out, state = _runner(config)(wide, {"ids": ids}, state)
    return np.asarray(out.logits), jax.device_get(state)
