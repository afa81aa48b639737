"""Exact product of integer activations with small integer weights.

Sixteen-bit activations split into two balanced 8-bit digits,

    lo = ((x + 128) & 255) - 128,   hi = (x - lo) >> 8,   x = 256 hi + lo,

which needs |x| <= 32639.  Both digit planes go through one int8 x int8 ->
int32 matrix product, stacked: the CPU library path has a cliff at one row, and
int8 products are exact on every back end by definition.
"""

import jax
from jax import lax
from jax import numpy as jnp

# Largest activation that splits into two balanced digits, and into one.
MAX_TWO_PLANES = 32639
MAX_ONE_PLANE = 127


def _dot(x: jax.Array, codes: jax.Array) -> jax.Array:
  """int8[m, k] x int8[n, k] -> int32[m, n]."""
  return lax.dot_general(
    x, codes, (((1,), (1,)), ((), ())), preferred_element_type=jnp.int32
  )


def digits(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(hi, lo) int32[...] with x = 256 hi + lo, both in -128..127."""
  lo = ((x + 128) & 255) - 128
  return (x - lo) >> 8, lo


def ternary_matmul(x: jax.Array, codes: jax.Array, bound: int) -> jax.Array:
  """x @ codes.T in exact integers (docs/numerics.md, 4).

  Args:
    x: int32[..., k], |x| <= bound.
    codes: int8[n, k] weights (ternary or 8-bit).
    bound: static bound of |x|, at most 32639.

  Returns:
    int32[..., n]; the caller vouches that the sums fit (their bound is
    max |x| times the largest row L1 norm).
  """
  rows = x.reshape(-1, x.shape[-1])
  m = rows.shape[0]
  if bound <= MAX_ONE_PLANE:
    plane = rows.astype(jnp.int8)
    # Two rows at least: one row leaves the library's fast path.
    padded = jnp.concatenate([plane, plane]) if m == 1 else plane
    out = _dot(padded, codes)[:m]
  else:
    hi, lo = digit_sums(rows, codes)
    out = (hi << 8) + lo
  return out.reshape(*x.shape[:-1], codes.shape[0])


def digit_sums(
  rows: jax.Array, codes: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Sums of the two digit planes: rows @ codes.T = 256 hi + lo.

  Both fit int32 for k < 2^17 8-bit weights, whether their sum does or not.

  Args:
    rows: int32[m, k], |x| <= 32639.
    codes: int8[n, k].

  Returns:
    (hi, lo), int32[m, n].
  """
  planes = jnp.concatenate(digits(rows)).astype(jnp.int8)
  sums = _dot(planes, codes)
  return sums[: len(rows)], sums[len(rows) :]


def batched_ternary_matmul(x: jax.Array, codes: jax.Array) -> jax.Array:
  """Products of P vectors with P matrices in exact integers.

  Args:
    x: int32[P, k], |x| <= 32639 (two planes).
    codes: int8[P, n, k].

  Returns:
    int32[P, n].
  """
  hi, lo = batched_digit_sums(x, codes)
  return (hi << 8) + lo


def batched_digit_sums(
  x: jax.Array, codes: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """`digit_sums` of P vectors with P matrices: (hi, lo), int32[P, n].

  Args:
    x: int32[P, k], |x| <= 32639.
    codes: int8[P, n, k].
  """
  planes = jnp.stack(digits(x), axis=1).astype(jnp.int8)
  sums = lax.dot_general(
    planes,
    codes,
    (((2,), (2,)), ((0,), (0,))),
    preferred_element_type=jnp.int32,
  )
  return sums[:, 0], sums[:, 1]
