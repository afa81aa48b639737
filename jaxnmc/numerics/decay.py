"""Decay of an integer state: a product with a fraction, cut toward zero.

`tz(x, k)` = sign(x) (|x| >> k) is the shift that rounds toward zero; `>>` is
the floor shift and differs from it by one for most negative values.
"""

import jax
from jax import numpy as jnp


def scale(x: jax.Array, factor: int, bits: int) -> jax.Array:
  """tz(x * factor, bits), exact in int32.

  With |x| = h 2^bits + l, floor(|x| f / 2^bits) = h f + (l f >> bits), where
  neither product leaves 31 bits.

  Args:
    x: int32[...], |x| < 2^31.
    factor: |factor| <= 2^bits.
    bits: 1 to 15.

  Returns:
    int32[...], no larger than x in magnitude.
  """
  if factor == 1 << bits:
    return x  # no decay: spares the slowest part of a LIF step
  size, f = jnp.abs(x), abs(factor)
  rest = size & ((1 << bits) - 1)
  out = (size >> bits) * f + ((rest * f) >> bits)
  negative = x < 0 if factor >= 0 else x > 0
  return jnp.where(negative, -out, out)
