"""Sigmoid from a table: nodes for x >= 0, linear between, symmetric.

    k = round(x * 2^in_frac);  a = |k|;  j = a >> spacing;  r = a mod 2^spacing
    y = t[j] + ((t[j+1] - t[j]) r >> spacing);   constant beyond the last node
    sigmoid(-x) = 1 - sigmoid(x);   t[j] = floor(sigmoid(node j) * 2^out_frac)

Abreu et al. 2025 (App. A.2.1) give the input scale 2^6, eight entries, the
symmetry and the interpolation; spacing and output bits are this library's.
"""

import dataclasses
import functools
import math

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.errors import FormatError


@dataclasses.dataclass(frozen=True)
class SigmoidTable:
  """Shape of a sigmoid table; the default spans 0..8 with spacing 1.

  Attributes:
    in_frac: fraction bits of the input.
    spacing: log2 of the node distance in input codes (6: distance 1.0).
    segments: number of segments; nodes are segments + 1.
    out_frac: fraction bits of the output.

  Raises:
    FormatError: in_frac or spacing outside 0..15, segments outside 1..4096, or
      out_frac outside 1..15.
  """

  in_frac: int = 6
  spacing: int = 6
  segments: int = 8
  out_frac: int = 15

  def __post_init__(self):
    if not (
      0 <= self.in_frac <= 15
      and 0 <= self.spacing <= 15
      and 1 <= self.segments <= 4096
      and 1 <= self.out_frac <= 15
    ):
      raise FormatError(
        f"sigmoid table {self} is out of range: in_frac and spacing 0..15,"
        " segments 1..4096, out_frac 1..15"
      )

  @property
  def reach(self) -> int:
    """Input code at the last node."""
    return self.segments << self.spacing

  @functools.cached_property
  def nodes(self) -> np.ndarray:
    """Table entries, int32[segments + 1]."""
    step = 2.0 ** (self.spacing - self.in_frac)
    one = 1 << self.out_frac
    values = [
      math.floor(one / (1 + math.exp(-j * step)))
      for j in range(self.segments + 1)
    ]
    return np.array(values, np.int32)


# Up to this many segments a sum of clamped pieces beats a gather on CPU.
_MAX_PIECES = 16


def sigmoid(k: jax.Array, table: SigmoidTable) -> jax.Array:
  """Table sigmoid of int32 codes (docs/numerics.md, 7).

  Args:
    k: int32[...], input with `table.in_frac` fraction bits.
    table: the table.

  Returns:
    int32[...] from 0 to 2^out_frac, `table.out_frac` fraction bits.
  """
  nodes = table.nodes
  a = jnp.minimum(jnp.abs(jnp.maximum(k, -table.reach)), table.reach)
  if table.segments <= _MAX_PIECES:
    y = jnp.full_like(a, int(nodes[0]))
    for j in range(table.segments):
      inside = jnp.clip(a - (j << table.spacing), 0, 1 << table.spacing)
      y = y + ((inside * int(nodes[j + 1] - nodes[j])) >> table.spacing)
  else:
    piece = jnp.minimum(a >> table.spacing, table.segments - 1)
    r = a - (piece << table.spacing)
    low = jnp.asarray(nodes)[piece]
    high = jnp.asarray(nodes)[piece + 1]
    y = low + (((high - low) * r) >> table.spacing)
  return jnp.where(k < 0, (1 << table.out_frac) - y, y)


def sigmoid_float(
  k: jax.Array, table: SigmoidTable, floored: bool = True
) -> jax.Array:
  """The same table in floating point; equal to `sigmoid` when floored.

  Without the floor of the interpolation the result differs by less than one
  output code and has the slope of the segments as its gradient.

  Args:
    k: float[...] holding integers.
    table: the table.
    floored: round the interpolation as the chip does.

  Returns:
    float[...], scaled by 2^out_frac.
  """
  nodes = jnp.asarray(table.nodes, k.dtype)
  size = float(1 << table.spacing)
  a = jnp.minimum(jnp.abs(k), table.reach)
  j = jnp.minimum(jnp.floor(a / size), table.segments - 1).astype(jnp.int32)
  low, high = nodes[j], nodes[j + 1]
  rise = (high - low) * (a - j.astype(k.dtype) * size) / size
  y = low + (jnp.floor(rise) if floored else rise)
  return jnp.where(k < 0, (1 << table.out_frac) - y, y)
