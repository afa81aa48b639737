"""Normalisation of spiking blocks: per token, or folded into the weights.

Batch statistics over the tokens of a sequence would show a token those after
it, so a causal model normalises each token by itself, or with constants.  The
constants of a trained BatchNorm are such, and vanish into the layer in front:

    W' = W g / sqrt(var + eps)      b' = (b - mean) g / sqrt(var + eps) + beta
"""

import jax
import numpy as np

from jaxnmc.errors import ConfigError
from jaxnmc.ops.reference import layer_norm, rms_norm

__all__ = ["fold_batch_norm", "token_norm"]


def token_norm(
  x: jax.Array, gain: jax.Array, bias: jax.Array | None = None, eps=1e-5
) -> jax.Array:
  """Normalises each token over its features, the last axis.

  Args:
    x: float[..., n], drives of spiking neurons.
    gain: float[n].
    bias: float[n], for LayerNorm; None for RMSNorm.
    eps: added to the variance or mean square.

  Returns:
    Shape and dtype of x; no token depends on another.
  """
  if bias is None:
    return rms_norm(x, gain, eps)
  return layer_norm(x, gain, bias, eps)


def fold_batch_norm(
  weight, bias, gain, offset, mean, variance, eps: float = 1e-5
) -> tuple[np.ndarray, np.ndarray]:
  """The weights of a linear layer with the BatchNorm after it.

  In float64, rounded once: each result is the nearest number of its type, or
  the one beside it.

  Args:
    weight: float[out, in].
    bias: float[out], or None for none.
    gain: g, float[out].
    offset: beta, float[out].
    mean: float[out], over the training set.
    variance: float[out], not negative.
    eps: added to the variance, above 0.

  Returns:
    (weight, bias): float[out, in] and float[out], in the type of the weight.

  Raises:
    ConfigError: shapes that do not match, or a variance below 0.
  """
  weight = np.asarray(weight)
  kind = weight.dtype
  bias = np.zeros(len(weight)) if bias is None else bias
  rows = [
    np.asarray(a, np.float64) for a in (bias, gain, offset, mean, variance)
  ]
  for name, row in zip(("bias", "gain", "offset", "mean", "variance"), rows):
    if row.shape != weight.shape[:1]:
      raise ConfigError(
        f"fold_batch_norm: the shape of {name} is {list(row.shape)}; allowed is"
        f" one per output, {list(weight.shape[:1])}"
      )
  bias, gain, offset, mean, variance = rows
  if not (variance >= 0).all() or not eps > 0:
    raise ConfigError(
      f"fold_batch_norm: the least variance is {variance.min():g} and eps"
      f" {eps:g}; allowed are variances from 0 and eps above 0"
    )
  factor = gain / np.sqrt(variance + eps)
  folded = weight.astype(np.float64) * factor[:, None]
  return folded.astype(kind), ((bias - mean) * factor + offset).astype(kind)
