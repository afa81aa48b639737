"""The error p - y of every row, in integers (docs/learning.md, 3).

A row knows its own logit and whether it is the target.  What else an error
needs are a few numbers about all rows: `softmax` the largest logit and the
inverse of a sum, `perceptron` which row won, `sigmoid` nothing.  `shared` finds
them, `error` is what each row does with them; neither cares how rows are cut
into tiles, since maximum and sum of integers do not.
"""

import functools
import math
from typing import NamedTuple

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from jaxnmc.numerics.sigmoid import SigmoidTable, sigmoid
from jaxnmc.numerics.wide import mul_shr, round_shift

KINDS = ("softmax", "perceptron", "sigmoid")
SHARED = {"softmax": 2, "perceptron": 1, "sigmoid": 0}  # numbers sent to rows
ONE = 15  # fraction bits of p
_OCTAVE = 64  # table entries to a factor of two
_LOG2E = 47274  # log2(e) = 1.442695 as round(log2(e) 2^15)
_LEAST = -(2**31) + 1
_LAST = 2**31 - 1
MAX_ROWS = 65535  # their sum of 2^15 stays below 2^31
TABLE = SigmoidTable()


@functools.cache
def powers() -> np.ndarray:
  """floor(2^(15 - i/64)) for i from 0 to 63, by exact square roots."""
  values = []
  for i in range(_OCTAVE):
    value = 1 << (_OCTAVE * ONE - i)
    for _ in range(_OCTAVE.bit_length() - 1):
      value = math.isqrt(value)
    values.append(value)
  return np.array(values, np.int32)


def exponential(below: jax.Array, frac: int) -> jax.Array:
  """About 2^15 exp(-below 2^-frac), from the table.

  Args:
    below: int32[...], 0 or more.
    frac: its fraction bits.

  Returns:
    int32[...], 0 to 2^15.
  """
  # frac >= -6 keeps the shift in its range; logits have more bits than that.
  octaves = mul_shr(below, _LOG2E, frac + 9, 0, _OCTAVE * 16)
  entry = jnp.asarray(powers())[octaves & (_OCTAVE - 1)]
  return entry >> (octaves >> 6)


def inverse(total: jax.Array) -> jax.Array:
  """floor(2^45 / total), by 31 steps of subtracting and doubling.

  Args:
    total: int32[], 2^15 to 2^31 - 1.

  Returns:
    int32[], at most 2^30.
  """
  total = total.astype(jnp.uint32)

  def bit(_, carry):
    rest, quotient = carry
    rest, quotient = rest << 1, quotient << 1
    fits = rest >= total
    rest = jnp.where(fits, rest - total, rest)
    return rest, quotient + fits.astype(jnp.uint32)

  # Doubled before each comparison, so it starts at half of 2^15.
  first = jnp.uint32(1 << (ONE - 1)), jnp.uint32(0)
  _, quotient = lax.fori_loop(jnp.int32(0), jnp.int32(31), bit, first)
  return quotient.astype(jnp.int32)


class Shared(NamedTuple):
  """What rows are told about all rows; None where they need not know.

  Attributes:
    top: int32[], the largest logit.
    inverse: int32[], 2^45 by the sum of exponentials.
    winner: int32[], the first row with the largest logit.
  """

  top: jax.Array | None
  inverse: jax.Array | None
  winner: jax.Array


def shared(kind: str, frac: int, z: jax.Array, ids, real=None) -> Shared:
  """The numbers of `Shared` from the logits of all rows.

  Args:
    kind: of `KINDS`.
    frac: fraction bits of the logits.
    z: int32[...], in tiles or not.
    ids: int32[...], the row of each.
    real: bool[...], where there is a row; None: everywhere.
  """
  if real is not None:
    z = jnp.where(real, z, _LEAST)
  top = jnp.max(z)
  winner = jnp.min(jnp.where(z == top, ids, _LAST))
  if kind != "softmax":
    return Shared(None, None, winner)
  # Padding is far below the top; kept from wrapping, its share is 0.
  far = jnp.maximum(z, top - (1 << 26))
  parts = exponential(top - far, frac)
  if real is not None:
    parts = jnp.where(real, parts, 0)
  return Shared(top, inverse(jnp.sum(parts, dtype=jnp.int32)), winner)


def error(
  kind: str, frac: int, out_frac: int, z: jax.Array, ids, target, told: Shared
) -> jax.Array:
  """p - y of some rows.

  Args:
    kind: of `KINDS`.
    frac: fraction bits of the logits.
    out_frac: fraction bits of the error, 1 to 15.
    z: int32[...], their logits.
    ids: int32[...], which rows they are.
    target: int32[], the row that is right.
    told: what `shared` found.

  Returns:
    int32[...], -2^out_frac to 2^out_frac.
  """
  y = (ids == target).astype(jnp.int32) << ONE
  if kind == "softmax":
    assert told.top is not None
    assert told.inverse is not None
    part = exponential(told.top - z, frac)
    p = mul_shr(part, told.inverse, 2 * ONE, 0, 1 << ONE)
  elif kind == "perceptron":
    p = (ids == told.winner).astype(jnp.int32) << ONE
  else:
    reach = TABLE.reach
    p = sigmoid(round_shift(z, frac - TABLE.in_frac, -reach, reach), TABLE)
  one = 1 << out_frac
  return round_shift(p - y, ONE - out_frac, -one, one)
