"""The instruction set on floats that hold integers, with gradients.

In float64 every result equals the int32 one bit for bit, because no product on
the way needs more than 53 bits; in float32 it is close.  Floors and clips pass
the gradient straight through (clips only inside their range).
"""

import jax
from jax import numpy as jnp

from jaxnmc.numerics import rsqrt, sigmoid
from jaxnmc.numerics.sigmoid import SigmoidTable
from jaxnmc.numerics.ste import ste
from jaxnmc.ops.alu import Int, IntAlu
from jaxnmc.ops.reference import product


def _floor(x: jax.Array) -> jax.Array:
  return ste(jnp.floor(x), x)


class FloatAlu(IntAlu):
  """Float form of `IntAlu`, which says shapes and meanings; trainable.

  Args:
    dtype: float type of all operands and results.
  """

  exact = False

  def __init__(self, dtype) -> None:
    self.dtype = dtype

  def param(self, array):
    """A stored parameter as an operand."""
    return jnp.asarray(array).astype(self.dtype)

  def ge(self, a, b):
    """1 where a >= b, else 0."""
    return (a >= b).astype(self.dtype)

  def shl(self, a, *, bits: Int):
    """a * 2^bits."""
    return a * 2.0**bits

  def shr(self, a, *, bits: Int):
    """floor(a / 2^bits)."""
    return _floor(a * 2.0**-bits)

  def low_bits(self, a, *, bits: int):
    """a mod 2^bits, for a >= 0."""
    size = 2.0**bits
    return ste(a - jnp.floor(a / size) * size, jnp.zeros_like(a))

  def clip(self, a, *, low: Int, high: Int):
    """a clipped to [low, high]."""
    return jnp.clip(a, low, high)

  def round_shift(
    self, a, *, shift: Int, low: Int, high: Int, least: int | None = None
  ):
    """clip(round(a / 2^shift), low, high)."""
    del least
    return jnp.clip(_floor(a * 2.0**-shift + 0.5), low, high)

  def mul_shr(
    self,
    a,
    b,
    *,
    shift: Int,
    low: Int,
    high: Int,
    form: str = "any",
    least: int | None = None,
  ):
    """clip(round(a b / 2^shift), low, high)."""
    del form, least
    return self.round_shift(a * b, shift=shift, low=low, high=high)

  def sigmoid(self, a, *, table: SigmoidTable):
    """Table sigmoid; gradient of the segments."""
    smooth = sigmoid.sigmoid_float(a, table, floored=False)
    return ste(sigmoid.sigmoid_float(a, table), smooth)

  def mean_square(self, high, low, *, mult: Int, shift: Int, limit: Int):
    """Mean from a two-payload sum of squares."""
    carry = jnp.floor(low * 2.0**-15)
    rest = jnp.floor((low - carry * 2.0**15) * mult * 2.0**-15)
    total = (high + carry) * mult + rest
    value = jnp.floor(total * 2.0 ** (15 - shift) + 0.5)
    smooth = (high * 2.0**15 + low) * (mult * 2.0**-shift)
    return jnp.minimum(ste(value, smooth), limit)

  def inv_sqrt(self, a):
    """Integer inverse square root; gradient of 2^18 / sqrt(a)."""
    return ste(rsqrt.inv_sqrt_float(a), 2.0**18 / jnp.sqrt(a))

  def gather_rows(self, table, ids):
    """Rows of an embedding table."""
    return jnp.take(table, ids, axis=0)

  def dense(self, x, weight, *, bound: int, parts: int = 1):
    """Matrix product; with several parts, a tuple of row blocks."""
    del bound
    out = product(x, weight.codes)
    return tuple(jnp.split(out, parts, axis=-1))

  def sum(self, x):
    """Sum over features, [..., 1]."""
    return jnp.sum(x, axis=-1, keepdims=True)

  def matmul(self, a, b):
    """Product of two activations."""
    return jnp.matmul(a, b)
