"""Formats that only a float simulation has: none at all, or a free scale.

A chip rescales by shifts, so its integers need one power of two per tensor
(`formats.Format`).  To ask what that costs, a site may be left in floating
point (`Float`), or take codes of any scale, one per tensor or per channel
(`Scaled`).
"""

import dataclasses
import math
from collections.abc import Sequence

import flax.struct
import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.errors import FormatError
from jaxnmc.numerics.formats import MAX_BITS, Format, symmetric_limit
from jaxnmc.numerics.ste import ste


@dataclasses.dataclass(frozen=True)
class Float:
  """Left as it was computed, in floating point."""

  def __str__(self) -> str:
    return "float"


@dataclasses.dataclass(frozen=True)
class Scaled:
  """Symmetric codes of a free scale: real value = q * scale.

  Attributes:
    bits: width, 2 to 24.
    scales: positive; one, or one per channel (last axis).

  Raises:
    FormatError: a width outside 2..24, no scale, or one that is not positive
      and finite.
  """

  bits: int
  scales: tuple[float, ...]

  def __post_init__(self):
    if not 2 <= self.bits <= MAX_BITS:
      raise FormatError(
        f"a number format has 2 to {MAX_BITS} bits; found {self.bits}"
      )
    bad = [s for s in self.scales if not (s > 0 and math.isfinite(s))]
    if bad or not self.scales:
      found = bad[0] if bad else "none"
      raise FormatError(f"scales must be positive and finite; found {found}")

  @property
  def high(self) -> int:
    """Largest code."""
    return symmetric_limit(self.bits)

  @property
  def low(self) -> int:
    """Smallest code."""
    return -self.high

  def __str__(self) -> str:
    few, most = min(self.scales), max(self.scales)
    if len(self.scales) == 1:
      return f"s{self.bits} x {few:.4g}"
    return f"s{self.bits} x {few:.4g}..{most:.4g} ({len(self.scales)} channels)"


@flax.struct.dataclass
class Grid:
  """A format as data: multiples of a step, so that one program serves all.

  Attributes:
    step: distance of two values, float[].
    low: smallest multiple, float[].
    high: largest multiple, float[].
  """

  step: jax.Array
  low: jax.Array
  high: jax.Array


SiteFormat = Format | Scaled | Float


def grids_of(formats: Sequence[Format]) -> Grid:
  """Several formats as data: float32[n] each; powers of two are exact."""
  rows = [(2.0**-f.frac, f.low, f.high) for f in formats]
  columns = np.array(rows, np.float32).reshape(-1, 3).T
  return Grid(*(jnp.asarray(c) for c in columns))


def rounded(x: jax.Array, fmt: SiteFormat | Grid, path: str) -> jax.Array:
  """The nearest value that a format has; halves towards plus infinity.

  Half-precision values are rounded in float32, so that codes stay exact.

  Args:
    x: float[..., n].
    fmt: the format.
    path: the site, for messages.

  Returns:
    float[..., n] of the dtype of x; the gradient goes straight through, and is
    zero where a value was clipped.

  Raises:
    FormatError: the format has scales for another number of channels.
  """
  if isinstance(fmt, Float):
    return x
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  step: float | jax.Array
  if isinstance(fmt, Format):
    step = 2.0**-fmt.frac
  elif isinstance(fmt, Grid):
    step = fmt.step.astype(wide.dtype)
  elif len(fmt.scales) == 1:
    step = fmt.scales[0]
  else:
    if len(fmt.scales) != x.shape[-1]:
      raise FormatError(
        f"{path}: the plan has scales for {len(fmt.scales)} channels, the"
        f" value {x.shape[-1]}; it was made for another model: calibrate this"
        " one"
      )
    step = jnp.asarray(np.array(fmt.scales), wide.dtype)
  codes = wide / step
  codes = jnp.clip(ste(jnp.floor(codes + 0.5), codes), fmt.low, fmt.high)
  return (codes * step).astype(x.dtype)
