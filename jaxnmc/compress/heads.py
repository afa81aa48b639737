"""Attention heads by joint norm, ranked over all layers.

The score of a head is the L2 norm of everything that it has: its rows of W_q,
W_k and W_v with their biases and its columns of W_o.  Norms of W_q, W_k and W_v
one by one would remove other rows from each, and no head.
"""

import numpy as np

from jaxnmc.compress import parts, ranking
from jaxnmc.models.gpt_config import Config

__all__ = ["keep", "scores"]


def scores(config: Config, params) -> tuple[np.ndarray, ...]:
  """The joint norm of each head.

  Args:
    config: of a transformer with dense matrices.
    params: its float parameters.

  Returns:
    float64[heads] of each layer; where query heads share a head of keys and
    values, one for each of these, of all that share it.

  Raises:
    ConfigError: no transformer, or ternary matrices.
  """
  parts.check(config, "heads")
  return tuple(
    parts.norms(layer, parts.heads(here), here.kv_heads)
    for here, layer in zip(config.layers, params["layers"], strict=True)
  )


def keep(config: Config, params, share: float) -> tuple[np.ndarray, ...]:
  """Which heads stay when a share of all heads goes.

  The lowest scores of all layers go, so that layers may keep different numbers;
  every layer keeps at least one.  0.4 of 32 removes 13.

  Args:
    config: of a transformer with dense matrices.
    params: its float parameters.
    share: 0 to below 1.

  Returns:
    bool[heads] of each layer, as `scores`; for `shrink.shrink`.

  Raises:
    ConfigError: no transformer, ternary matrices, no such share, or one that
      leaves a layer without heads.
  """
  found = scores(config, params)
  total = sum(map(len, found))
  gone = ranking.count("heads", share, total, config.num_layers)
  return ranking.lowest(found, gone)
