"""Exact products wider than 32 bits, without 64-bit integers.

JAX has int64 only when the x64 flag is on, and the chip's accumulators have 32
bits.  A 64-bit value is a pair (hi int32, lo uint32) = hi * 2^32 + lo.

Rounding is one rule everywhere: `round(x / 2^s) = floor(x / 2^s + 1/2)`, halves
up.  `>>` on int32 is the floor shift.
"""

import jax
from jax import numpy as jnp

from jaxnmc.errors import FormatError

Int = int | jax.Array

MAX_SHIFT = 62
MAX_LEFT = 30  # of a shift to the left
_LOW = 0xFFFF


def _i32(x) -> jax.Array:
  return jnp.asarray(x, jnp.int32)


def mul_wide(a: Int, b: Int) -> tuple[jax.Array, jax.Array]:
  """Exact signed product of two int32 values as (hi int32, lo uint32).

  Sixteen-bit limbs; no intermediate leaves int32 (Knuth's algorithm M in the
  signed form: the cross sums stay below 2^31 for every pair of inputs).

  Args:
    a: int32[...].
    b: int32[...], broadcastable with `a`.

  Returns:
    (hi, lo) with hi * 2^32 + lo = a * b.
  """
  a, b = jnp.broadcast_arrays(_i32(a), _i32(b))
  a_hi, a_lo = a >> 16, a & _LOW
  b_hi, b_lo = b >> 16, b & _LOW
  low = a_lo.astype(jnp.uint32) * b_lo.astype(jnp.uint32)
  cross = a_hi * b_lo + (low >> 16).astype(jnp.int32)
  cross2 = a_lo * b_hi + (cross & _LOW)
  hi = a_hi * b_hi + (cross >> 16) + (cross2 >> 16)
  lo = a.astype(jnp.uint32) * b.astype(jnp.uint32)
  return hi, lo


def add_wide(
  hi: jax.Array, lo: jax.Array, b: Int
) -> tuple[jax.Array, jax.Array]:
  """(hi, lo) + b; exact while the sum fits 64 bits.

  Args:
    hi: int32[...].
    lo: uint32[...].
    b: int32[...] or uint32[...], >= 0.

  Returns:
    (hi int32, lo uint32).
  """
  b = jnp.asarray(b).astype(jnp.uint32)
  total = lo + b
  return hi + (total < lo).astype(jnp.int32), total


def shr_wide(
  hi: jax.Array, lo: jax.Array, shift: Int
) -> tuple[jax.Array, jax.Array]:
  """Floor of (hi, lo) / 2^shift as (hi, lo), for 0 <= shift <= 63.

  Args:
    hi: int32[...].
    lo: uint32[...].
    shift: int, or int32 array that broadcasts.

  Returns:
    (hi int32, lo uint32).
  """
  if isinstance(shift, int):
    if shift >= 32:
      return hi >> 31, (hi >> min(shift - 32, 31)).astype(jnp.uint32)
    if shift == 0:
      return hi, lo
    carried = hi.astype(jnp.uint32) << (32 - shift)
    return hi >> shift, carried | (lo >> shift)
  hi, lo, shift = jnp.broadcast_arrays(hi, lo, _i32(shift))
  small = jnp.clip(shift, 0, 31)
  # A shift of 32 is undefined in XLA on some back ends, hence two steps.
  carried = (hi.astype(jnp.uint32) << 1) << (31 - small).astype(jnp.uint32)
  lo_small = carried | (lo >> small.astype(jnp.uint32))
  big = jnp.clip(shift - 32, 0, 31)
  lo_big = (hi >> big).astype(jnp.uint32)
  wide = shift >= 32
  return (
    jnp.where(wide, hi >> 31, hi >> small),
    jnp.where(wide, lo_big, lo_small),
  )


def clip_wide(hi: jax.Array, lo: jax.Array, low: Int, high: Int) -> jax.Array:
  """(hi int32, lo uint32) clipped to [low, high] inside int32: int32[...]."""
  low, high = _i32(low), _i32(high)
  value = lo.astype(jnp.int32)
  fits = hi == (value >> 31)
  return jnp.where(
    fits, jnp.clip(value, low, high), jnp.where(hi < 0, low, high)
  )


def round_wide(
  hi: jax.Array, lo: jax.Array, shift: Int, low: Int, high: Int
) -> jax.Array:
  """clip(floor((hi, lo) / 2^shift + 1/2), low, high) for 1 <= shift <= 63.

  Uses floor(x / 2^s + 1/2) = (t >> 1) + (t & 1) with t = floor(x / 2^(s-1)),
  which cannot overflow.

  Args:
    hi: int32[...].
    lo: uint32[...].
    shift: int, or int32 array that broadcasts.
    low: smallest result, inside int32.
    high: largest result, inside int32.

  Returns:
    int32[...].
  """
  shift = shift - 1 if isinstance(shift, int) else _i32(shift) - 1
  hi, lo = shr_wide(hi, lo, shift)
  half_hi, half_lo = shr_wide(hi, lo, 1)
  return clip_wide(*add_wide(half_hi, half_lo, lo & 1), low, high)


def mul_shr(a: Int, b: Int, shift: Int, low: Int, high: Int) -> jax.Array:
  """clip(round(a * b / 2^shift), low, high), exact (docs/numerics.md, 2).

  Halves round up.  This is the one multiply-and-shift of the library: norms,
  table scales and matrix scales all go through it.

  Args:
    a: int32[...].
    b: int32[...] that broadcasts.
    shift: int or int32[...], 1 to 62.
    low: smallest result, inside int32.
    high: largest result, inside int32.

  Returns:
    int32[...].
  """
  return round_wide(*mul_wide(a, b), shift, low, high)


def _halve(t: jax.Array, low: Int, high: Int) -> jax.Array:
  """clip(floor(t / 2 + 1/2), low, high) without overflow."""
  return jnp.clip((t >> 1) + (t & 1), _i32(low), _i32(high))


def _less(shift: Int, bits: int) -> Int:
  """shift - bits, held to what a 32-bit shift may be."""
  if isinstance(shift, int):
    return min(shift - bits, 31)
  return jnp.minimum(shift - bits, 31)


def mul_shr_scale(a: Int, b: Int, shift: Int, low: Int, high: Int) -> jax.Array:
  """`mul_shr` for 0 <= b < 2^16 and shift >= 17, in a fifth of the work.

  With a = 2^16 h + l, floor(a b / 2^16) = h b + (l b >> 16) fits int32.
  Arguments and result as for `mul_shr`.
  """
  a, b = _i32(a), _i32(b)
  low_part = (a & _LOW).astype(jnp.uint32) * b.astype(jnp.uint32)
  top = (a >> 16) * b + (low_part >> 16).astype(jnp.int32)
  return _halve(top >> _less(shift, 17), low, high)


ROOT_SPLIT = 9


def mul_shr_root(a: Int, b: Int, shift: Int, low: Int, high: Int) -> jax.Array:
  """`mul_shr` for |a| <= 32639 * 127, 0 <= b <= 264045 and shift >= 10.

  The last multiply of a norm: b = 2^9 h + l splits so that
  floor(a b / 2^9) = a h + (a l >> 9) fits int32 (at most 2,138,900,000).
  Arguments and result as for `mul_shr`.
  """
  a, b = _i32(a), _i32(b)
  rest = a * (b & ((1 << ROOT_SPLIT) - 1))
  top = a * (b >> ROOT_SPLIT) + (rest >> ROOT_SPLIT)
  return _halve(top >> _less(shift, 1 + ROOT_SPLIT), low, high)


def round_right(a: Int, shift: Int, low: Int, high: Int) -> jax.Array:
  """`round_shift` for 1 <= shift, an int or an int32 array: int32[...]."""
  # Held to 31, a shift leaves 0 or -1, and half of either rounds to 0.
  return _halve(_i32(a) >> _less(shift, 1), low, high)


def round_shift(a: Int, shift: Int, low: Int, high: Int) -> jax.Array:
  """clip(round(a / 2^shift), low, high); a negative shift multiplies.

  Args:
    a: int32[...].
    shift: at least -30; an int, or an int32 array that broadcasts.
    low: smallest result.
    high: largest result.

  Returns:
    int32[...].

  Raises:
    FormatError: a static left shift by more than 30 bits.
  """
  a = _i32(a)
  if not isinstance(shift, int):
    left = jnp.clip(-shift, 0, MAX_LEFT)
    hi, lo = mul_wide(a, jnp.int32(1) << left)
    right = round_wide(hi, lo, jnp.clip(shift, 1, MAX_SHIFT), low, high)
    return jnp.where(shift > 0, right, clip_wide(hi, lo, low, high))
  if shift < -MAX_LEFT:
    raise FormatError(f"a left shift by {-shift} bits leaves 32-bit integers")
  if shift < 0:
    return clip_wide(*mul_wide(a, 1 << -shift), low, high)
  if shift == 0:
    return jnp.clip(a, _i32(low), _i32(high))
  return round_right(a, shift, low, high)
