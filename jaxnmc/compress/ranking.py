"""Which of many go: those of the lowest scores, but never all of a layer."""

import math
from collections.abc import Sequence

import numpy as np

from jaxnmc.errors import ConfigError

LEAST = 1  # heads or units that every layer keeps


def count(what: str, share: float, total: int, layers: int) -> int:
  """How many of `total` a share is, rounded to the nearest (halves up).

  Args:
    what: "heads" or "units", for messages.
    share: 0 to below 1.
    total: how many there are.
    layers: over how many layers.

  Raises:
    ConfigError: a share that is none, or that leaves a layer without any.
  """
  if not 0 <= share < 1:  # also refuses NaN
    raise ConfigError(
      f"{what}: found a share of {share} to remove, allowed is 0 to below 1"
      " (0.4 removes 40 %)"
    )
  gone, most = math.floor(share * total + 0.5), total - LEAST * layers
  if gone > most:
    where = "each layer" if layers > 1 else "the layer"
    raise ConfigError(
      f"{what}: a share of {share} removes {gone:,} of {total:,} {what}, but"
      f" {where} keeps at least {LEAST}, so at most {most:,} may go; give a"
      f" share below {(most + 0.5) / total:.4g}"
    )
  return gone


def lowest(scores: Sequence[np.ndarray], gone: int) -> tuple[np.ndarray, ...]:
  """Which stay when the lowest of all layers go.

  The best of each layer stays, whatever the others have; of equal scores the
  first goes first.

  Args:
    scores: float[n] of each layer.
    gone: how many go, at most all but one per layer.

  Returns:
    bool[n] of each layer, True for what stays.
  """
  owner = np.repeat(np.arange(len(scores)), [len(x) for x in scores])
  flat = np.concatenate([np.asarray(x, np.float64) for x in scores])
  start = np.cumsum([0, *(len(x) for x in scores)])
  safe = np.zeros(len(flat), bool)
  for index, row in enumerate(scores):
    # The last of the best, as the first of equals goes first.
    best = len(row) - 1 - np.argmax(np.asarray(row)[::-1])
    safe[start[index] + best] = True
  order = np.argsort(flat, kind="stable")
  order = order[~safe[order]]
  stays = np.ones(len(flat), bool)
  stays[order[:gone]] = False
  return tuple(stays[owner == index] for index in range(len(scores)))
