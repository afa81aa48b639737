"""Inverse square root in integers: a 24-entry table and five Newton steps.

The routine of the chip's norm neuron (Abreu et al. 2025, App. A.2.2), as the
public Lava model computes it.  For an integer 1 <= x < 2^24 it returns
y close to 2^18 / sqrt(x); with x = X * 2^12 and y = Y * 2^12 that is
Y = 1 / sqrt(X).

    m = 24 - bit_length(x);  b = x;  Y = table[m];  y = Y // 2
    five times:  b = ((b Y >> 13) Y) >> 13;  Y = 3 * 2^12 - b;  y = y Y >> 13

Any even number F of fraction bits uses the same integers: if the input has F,
the result has 18 - F/2.
"""

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from jaxnmc.numerics.wide import (
  Int,
  add_wide,
  mul_wide,
  round_wide,
)

INPUT_BITS = 24
STEPS = 5
# Largest and smallest result over the whole domain (a test walks it).
MAX_ROOT = 264045
MIN_ROOT = 63
# Seed for inputs of 24, 23, ... 1 bits; each entry is sqrt(2) times the last.
TABLE = np.array(
  [
    *(146, 206, 292, 412, 584, 826, 1168, 1652, 2336, 3304, 4674, 6610),
    *(9350, 13222, 18700, 26446, 37402, 52894, 74804, 105788, 149608),
    *(211578, 299218, 423158),
  ],
  np.int32,
)


def result_frac(input_frac: int) -> int:
  """Fraction bits of the root of a value with `input_frac` (even) bits."""
  return 18 - input_frac // 2


def inv_sqrt(x: jax.Array) -> jax.Array:
  """Integer inverse square root, about 2^18 / sqrt(x) (docs/numerics.md, 6.1).

  Args:
    x: int32[...], 1 <= x < 2^24.

  Returns:
    int32[...], MIN_ROOT to MAX_ROOT.
  """
  x = jnp.asarray(x, jnp.int32)
  m = jnp.clip(lax.clz(x) - (32 - INPUT_BITS), 0, len(TABLE) - 1)
  # Every product on the way is below 2^32 (a test walks the whole domain).
  seed = jnp.asarray(TABLE)[m].astype(jnp.uint32)

  def newton(_, carry):
    b, seed, y = carry
    b = (((b * seed) >> 13) * seed) >> 13
    seed = (3 << 12) - b
    return b, seed, (y * seed) >> 13

  # A loop, not five copies: otherwise XLA computes the root anew for every
  # feature that is scaled by it.
  start = (x.astype(jnp.uint32), seed, seed >> 1)
  _, _, y = lax.fori_loop(0, STEPS, newton, start)
  return y.astype(jnp.int32)


def mean_square(
  high: jax.Array, low: jax.Array, mult: Int, shift: Int, limit: Int
) -> jax.Array:
  """min(round((high * 2^15 + low) * mult / 2^shift), limit), exact.

  A sum of squares travels as two payloads, x^2 >> 15 and x^2 & 32767, to two
  accumulators; `mult` and `shift` hold 1/n and the binary points
  (docs/numerics.md, 6, step 3).

  Args:
    high: int32[...] sum of the high parts, >= 0.
    low: int32[...] sum of the low parts, >= 0.
    mult: multiplier, 2^15 to 2^16.
    shift: 16 to 62.
    limit: largest result.

  Returns:
    int32[...], 0 to limit.
  """
  high = high + (low >> 15)
  # (low & 32767) * mult < 2^31; its lowest 15 bits cannot change the result.
  rest = ((low & 32767).astype(jnp.uint32) * jnp.uint32(mult)) >> 15
  wide = add_wide(*mul_wide(high, mult), rest.astype(jnp.int32))
  return round_wide(*wide, shift - 15, 0, limit)


def inv_sqrt_float(x: jax.Array) -> jax.Array:
  """The same steps in floating point; equal to `inv_sqrt` in float64.

  Args:
    x: float[...] holding integers from 1 to 2^24 - 1.

  Returns:
    float[...] holding integers.
  """
  _, bits = jnp.frexp(x)
  m = jnp.clip(INPUT_BITS - bits, 0, len(TABLE) - 1)
  seed = jnp.asarray(TABLE, x.dtype)[m]
  shift = 2.0**-13
  b, y = x, jnp.floor(seed / 2)
  for _ in range(STEPS):
    b = jnp.floor(jnp.floor(b * seed * shift) * seed * shift)
    seed = (3 << 12) - b
    y = jnp.floor(y * seed * shift)
  return y
