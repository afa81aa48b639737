"""A tiny model for machine tests: NumPy weights, one calibration."""

import functools

import jax
import numpy as np

import jaxnmc as nmc
from jaxnmc.models import matmulfree

TINY = matmulfree.Config(
  vocab_size=32,
  hidden_size=10,
  num_layers=2,
  intermediate_size=14,
  rms_norm_eps=1e-3,
  bitlinear_eps=1e-3,
)


@functools.cache
def tiny_model(norm: str, layers: int = TINY.num_layers):
  """(fn, params, plan, qparams) of a small random model."""
  config = matmulfree.Config(
    **{**TINY.__dict__, "norm": norm, "num_layers": layers}
  )
  draw = np.random.default_rng(7)
  shapes = jax.eval_shape(
    lambda: matmulfree.init_params(config, jax.random.key(0))
  )

  def fill(path, like):
    noise = draw.normal(size=like.shape).astype(np.float32)
    gain = len(like.shape) == 1
    return 1 + 0.3 * noise if gain else noise

  params = jax.tree_util.tree_map_with_path(fill, shapes)
  fn = matmulfree.make(config)
  ids = draw.integers(0, config.vocab_size, (4, 16)).astype(np.int32)
  stats = nmc.calibrate(fn)(params, [ids])
  plan = nmc.plan(stats, nmc.quantize.W8A16)
  return fn, params, plan, nmc.quantize_params(params, plan)
