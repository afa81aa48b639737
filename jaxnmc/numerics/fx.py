"""A fixed-point value: integer codes and what is known about them.

    real value = q * 2^-frac                       (plain)
    real value = q * mult * 2^-(frac + exp)        (with a pending matrix scale)

Everything but the codes is static, so that overflow is found while a function
is traced.  A pending scale is folded into the next site and nowhere else.
"""

from typing import Any

import jax
from flax import struct
from jax import numpy as jnp


@struct.dataclass
class Fx:
  """Fixed-point value.

  Attributes:
    q: int32[...] codes (float[...] holding integers under `fake_quant`, a
      graph node under `record`).
    mult: pending multiplier int32[], or None.
    frac: fraction bits.
    low: no code is below this.
    high: no code is above this.
    exp: exponent of the pending multiplier.
    site: path of the site that made the value, or None between sites.
  """

  q: Any
  mult: Any = None
  frac: int = struct.field(pytree_node=False, default=0)
  low: int = struct.field(pytree_node=False, default=0)
  high: int = struct.field(pytree_node=False, default=0)
  exp: int = struct.field(pytree_node=False, default=0)
  site: str | None = struct.field(pytree_node=False, default=None)

  @property
  def bound(self) -> int:
    """Largest magnitude of a code."""
    return max(-self.low, self.high)

  @property
  def label(self) -> str:
    """Name and format, for messages."""
    name = self.site or "a value"
    return f"{name} .{self.frac} in [{self.low}, {self.high}]"

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape of the codes."""
    return tuple(self.q.shape)

  def to_float(self, dtype=jnp.float32) -> jax.Array:
    """The real values, `dtype`[...]; the only way out of the integers."""
    value = jnp.asarray(self.q).astype(dtype) * 2.0 ** -(self.frac + self.exp)
    return value if self.mult is None else value * self.mult.astype(dtype)


def is_fx(value) -> bool:
  """Whether a value is an `Fx`; for `is_leaf` of tree functions."""
  return isinstance(value, Fx)


def codes(value):
  """The codes of an `Fx`, int32[...]; any other value as it is."""
  return value.q if isinstance(value, Fx) else value


def real(value) -> jax.Array:
  """Real values of an `Fx`, or floats, as float32[...].

  For what sums over logits: half precision would be off.
  """
  if isinstance(value, Fx):
    return value.to_float(jnp.float32)
  return value.astype(jnp.float32)
