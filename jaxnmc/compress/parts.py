"""Which slices of which parameters belong to a head, or to a unit.

A head: its rows of W_q, W_k and W_v with their biases, its columns of W_o and,
where it spikes, its thresholds.  Where query heads share a head of keys and
values, they go together.  A unit: its rows of W_up and W_gate with their
biases, its column of W_down, and its thresholds.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxnmc.errors import ConfigError
from jaxnmc.models.gpt_config import Config

Masks = Sequence[np.ndarray]  # bool[heads or units] of each layer


@dataclasses.dataclass(frozen=True)
class Part:
  """Slices of one parameter.

  Attributes:
    path: of the parameter inside of its layer.
    axis: along which its slices lie.
    size: of each slice along it.
    threshold: it says when a neuron fires, not what it computes.
  """

  path: tuple[str, ...]
  axis: int
  size: int = 1
  threshold: bool = False


def check(config: Any, what: str) -> None:
  """Refuses a model whose parts cannot be taken out one by one.

  Args:
    config: of any family.
    what: who needs it, for the message.

  Raises:
    ConfigError: it is no transformer, or its matrices are ternary.
  """
  if not isinstance(config, Config):
    raise ConfigError(
      f"{what}: found a config of type {type(config).__module__}."
      f"{type(config).__name__}, allowed is a transformer"
      " (jaxnmc.models.gpt.Config)"
    )
  if config.ternary:
    raise ConfigError(
      f"{what}: the matrices of this model are ternary (BitLinear), with a norm"
      " over all inputs and one scale, which change with any part that goes;"
      " give a model with dense ones ('ternary' false)"
    )


def heads(config: Config) -> tuple[Part, ...]:
  """Slices of a head of keys and values and its query heads.

  Args:
    config: of the layer (`Config.layer`).
  """
  size = config.head_size
  wide = config.num_heads // config.kv_heads * size
  rows = [("q", wide), ("k", size), ("v", size)]
  found = [
    Part(("attn", name, leaf), 0, width)
    for name, width in rows
    for leaf in ("weight", "bias")
  ]
  found.append(Part(("attn", "o", "weight"), 1, wide))
  found += [
    Part(("attn", "ssa", name), 0, size, True)
    for name in ("q", "k", "v", "out")
  ]
  return tuple(found)


def units() -> tuple[Part, ...]:
  """Slices of a feed-forward unit."""
  return (
    *(
      Part(("mlp", name, leaf), 0)
      for name in ("gate", "up")
      for leaf in ("weight", "bias")
    ),
    Part(("mlp", "down", "weight"), 1),
    Part(("mlp", "fire"), 1, threshold=True),
  )


def get(layer: Mapping, path: tuple[str, ...]) -> Any:
  """The parameter of a layer at a path, or None where there is none."""
  node: Any = layer
  for key in path:
    if key not in node:
      return None
    node = node[key]
  return node


def replace(layer: Mapping, path: tuple[str, ...], leaf: Any) -> dict:
  """A copy of a layer with another parameter at a path."""
  first, *rest = path
  if rest:
    leaf = replace(layer[first], tuple(rest), leaf)
  return {**layer, first: leaf}


def norms(layer: Mapping, parts: Sequence[Part], count: int) -> np.ndarray:
  """Joint L2 norms: of all slices that belong to the same head or unit.

  Thresholds are no part of them.

  Args:
    layer: float parameters.
    parts: of `heads` or `units`.
    count: heads or units of the layer.

  Returns:
    float64[count].
  """
  total = np.zeros(count)
  for part in parts:
    leaf = get(layer, part.path)
    if leaf is None or part.threshold:
      continue
    squares = np.asarray(jax.device_get(leaf), np.float64) ** 2
    others = tuple(a for a in range(squares.ndim) if a != part.axis)
    total += squares.sum(others).reshape(count, part.size).sum(1)
  return np.sqrt(total)
