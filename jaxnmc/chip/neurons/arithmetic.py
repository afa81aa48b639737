"""The arithmetic that stock neurons share: 24-bit states in int32 words.

A state is 24 bits wide: magnitudes up to TOP = 2^23 - 1 (a wrapped current may
also be +-2^23).  `>>` is the floor shift.
"""

import jax
from jax import numpy as jnp

HALF = 2**23
TOP = HALF - 1
WORD = 2**31 - 1


def saturate(x: jax.Array) -> jax.Array:
  """int32[...] clipped to the symmetric 24-bit range, +-(2^23 - 1)."""
  return jnp.clip(x, jnp.int32(-TOP), jnp.int32(TOP))


def wrap_once(x: jax.Array) -> jax.Array:
  """One turn of the 24-bit circle for int32[...] beyond it.

  x - 2^24 above 2^23, x + 2^24 at or below -2^23, else x: +2^23 itself stays,
  and what is more than one turn away is not brought back.
  """
  low = jnp.where(x <= -HALF, x + 2 * HALF, x)
  return jnp.where(x > HALF, x - 2 * HALF, low)


def outside(x: jax.Array, vth: int) -> jax.Array:
  """|x| > vth for int32[...] and vth >= 0, also at -2^31: bool[...]."""
  return (x > vth) | (x < -vth)


def reaches(x: jax.Array, vth: int) -> jax.Array:
  """|x| >= vth for int32[...] and vth >= 0, also at -2^31: bool[...]."""
  return (x >= vth) | (x <= -vth)
