"""Parameters as integers: what a chip's memory would hold."""

import jax
import numpy as np
from flax import struct

from jaxnmc.numerics.packed import Packed

# Made on the host, used on a device.
Stored = jax.Array | np.ndarray


@struct.dataclass
class QMatrix:
  """Integer matrix: real value = codes * mult * 2^-exp.

  Attributes:
    codes: int8[out, in], or the same ternary codes `Packed`.
    mult: int32[], 2^15 to 2^16, the scale's mantissa.
    exp: the scale's exponent.
    l1: largest row L1 norm, the static bound of a product with |x| <= 1.
  """

  codes: Stored | Packed
  mult: Stored
  exp: int = struct.field(pytree_node=False)
  l1: int = struct.field(pytree_node=False)

  @property
  def shape(self) -> tuple[int, ...]:
    """[out, in]."""
    return tuple(self.codes.shape)


@struct.dataclass
class QDense:
  """Integer matrix with a binary point: real value = codes * 2^-frac.

  Attributes:
    codes: int8[out, in], -127 to 127.
    frac: fraction bits.
    l1: largest row L1 norm, the static bound of a product with |x| <= 1.
  """

  codes: Stored
  frac: int = struct.field(pytree_node=False)
  l1: int = struct.field(pytree_node=False)

  @property
  def shape(self) -> tuple[int, ...]:
    """[out, in]."""
    return tuple(self.codes.shape)


@struct.dataclass
class QVector:
  """Integer array with a binary point: real value = q * 2^-frac.

  Used for norm gains (int8), embedding tables (int16) and constants (int32).

  Attributes:
    q: int8, int16 or int32[...].
    frac: fraction bits.
    low: smallest code.
    high: largest code.
    l1: largest row L1 norm of a table of at most 8 bits, which may be the
      matrix of a head, too; else None.
  """

  q: Stored
  frac: int = struct.field(pytree_node=False)
  low: int = struct.field(pytree_node=False)
  high: int = struct.field(pytree_node=False)
  l1: int | None = struct.field(pytree_node=False, default=None)

  @property
  def bound(self) -> int:
    """Largest magnitude of a code."""
    return max(-self.low, self.high)

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape of the codes."""
    return tuple(self.q.shape)
