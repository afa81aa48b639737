"""Feed-forward units by joint norm, per layer or ranked over all.

The score of a unit is the L2 norm of its row of W_up (and W_gate) with the
biases, and of its column of W_down.
"""

import numpy as np

from jaxnmc.compress import parts, ranking
from jaxnmc.errors import ConfigError
from jaxnmc.models.gpt_config import Config

__all__ = ["RANKS", "keep", "scores"]

RANKS = ("layer", "global")


def scores(config: Config, params) -> tuple[np.ndarray, ...]:
  """The joint norm of each unit.

  Args:
    config: of a transformer with dense matrices.
    params: its float parameters.

  Returns:
    float64[units] of each layer.

  Raises:
    ConfigError: no transformer, or ternary matrices.
  """
  parts.check(config, "units")
  return tuple(
    parts.norms(layer, parts.units(), here.mlp_size)
    for here, layer in zip(config.layers, params["layers"], strict=True)
  )


def keep(
  config: Config, params, share: float, rank: str = "layer"
) -> tuple[np.ndarray, ...]:
  """Which units stay when a share of them goes.

  Args:
    config: of a transformer with dense matrices.
    params: its float parameters.
    share: 0 to below 1.
    rank: "layer" (the lowest of each layer go, so that equal layers stay equal)
      or "global" (the lowest of all; every layer keeps at least one).

  Returns:
    bool[units] of each layer; for `shrink.shrink`.

  Raises:
    ConfigError: no transformer, ternary matrices, no such share or rank, or a
      share that leaves a layer without units.
  """
  if rank not in RANKS:
    raise ConfigError(
      f"units: found rank {rank!r}, allowed are {' and '.join(RANKS)}"
    )
  found = scores(config, params)
  if rank == "global":
    total = sum(map(len, found))
    gone = ranking.count("units", share, total, len(found))
    return ranking.lowest(found, gone)
  each = (
    ranking.lowest([row], ranking.count("units", share, len(row), 1))
    for row in found
  )
  return tuple(kept for (kept,) in each)
