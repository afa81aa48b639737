"""The instruction set: what a neuron or synapse can do with integers.

`Quantized` (the interpreter) turns a model into these instructions and decides
every format; an ALU says what they do: exact int32 here, floats that hold the
same integers in `alu_float`, nodes of a graph in `record`.  Operands that are
data come first, everything static by keyword.  A static number may also be an
int32 array that broadcasts: both engines of `loihi` run one program on all
layers that are alike, each layer with its own shifts.
"""

from typing import Any

import jax
from jax import numpy as jnp

from jaxnmc.kernels.ternary import ternary_matmul
from jaxnmc.numerics import rsqrt, sigmoid, wide
from jaxnmc.numerics.packed import Packed
from jaxnmc.numerics.sigmoid import SigmoidTable
from jaxnmc.numerics.weights import QDense, QMatrix
from jaxnmc.ops.memory import recall
from jaxnmc.ops.settle import settle
from jaxnmc.ops.windows import recall_windows

Int = int | jax.Array  # a static number
Value = Any  # an operand: int32 or float array, or node of a graph


class IntAlu:
  """Exact int32 arithmetic; bounds are the interpreter's business.

  Operands are int32[..., n], features last, that broadcast; so are results
  where nothing else is said.  Equations: docs/numerics.md, 2 (rounding), 4
  (products), 6 (roots) and 7 (sigmoid).
  """

  exact = True

  # --- data

  def param(self, array) -> Value:
    """A stored parameter of any integer type as an operand."""
    return jnp.asarray(array).astype(jnp.int32)

  def zeros_like(self, x: Value) -> Value:
    """Zeros for one step of x: [T, ...] -> [...]."""
    return jnp.zeros(x.shape[1:], x.dtype)

  def mark(self, x: Value, path: str, cast: bool) -> Value:
    """Names a value that may travel; `cast` says that it is a message."""
    del path, cast
    return x

  def settle(self, x: Value, const: Value) -> Value:
    """x, computed once (`jaxnmc.ops.settle`)."""
    return settle(x, jnp.ravel(const)[0])

  # --- element-wise

  def add(self, a, b):
    """a + b."""
    return a + b

  def sub(self, a, b):
    """a - b."""
    return a - b

  def mul(self, a, b):
    """a * b."""
    return a * b

  def add_const(self, a, *, value: Int):
    """a + value."""
    return a + value

  def rsub_const(self, a, *, value: Int):
    """value - a."""
    return value - a

  def min(self, a, b):
    """Smaller of a and b."""
    return jnp.minimum(a, b)

  def max(self, a, b):
    """Larger of a and b."""
    return jnp.maximum(a, b)

  def ge(self, a, b):
    """1 where a >= b, else 0."""
    return (a >= b).astype(jnp.int32)

  def select(self, cond, a, b):
    """a where cond is not zero, else b."""
    return jnp.where(cond != 0, a, b)

  def shl(self, a, *, bits: Int):
    """a * 2^bits; the bound has been checked."""
    return a if isinstance(bits, int) and bits == 0 else a << bits

  def shr(self, a, *, bits: Int):
    """floor(a / 2^bits)."""
    return a >> bits

  def low_bits(self, a, *, bits: int):
    """a mod 2^bits, for a >= 0."""
    return a & ((1 << bits) - 1)

  def clip(self, a, *, low: Int, high: Int):
    """a clipped to [low, high]."""
    return jnp.clip(a, jnp.int32(low), jnp.int32(high))

  def round_shift(
    self, a, *, shift: Int, low: Int, high: Int, least: int | None = None
  ):
    """clip(round(a / 2^shift), low, high).

    `least` is a static lower bound of a shift that is data.

    Raises:
      FormatError: a static left shift by more than 30 bits.
    """
    if least is not None and least >= 1:
      return wide.round_right(a, shift, low, high)
    return wide.round_shift(a, shift, low, high)

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
    """clip(round(a b / 2^shift), low, high).

    `form` is what the interpreter knows of the operands: "scale" (b is a
    16-bit mantissa), "root" (b is an inverse root, a a 16 by 8 bit product)
    or "any"; `least` is a static lower bound of a shift that is data.  They
    change the work, not the result.  The shift is 1 to 62.
    """
    if isinstance(shift, int):
      least = shift
    if form == "scale" and least is not None and least >= 17:
      return wide.mul_shr_scale(a, b, shift, low, high)
    if form == "root" and least is not None and least >= 10:
      return wide.mul_shr_root(a, b, shift, low, high)
    return wide.mul_shr(a, b, shift, low, high)

  def sigmoid(self, a, *, table: SigmoidTable):
    """Table sigmoid; see `numerics.sigmoid.sigmoid`."""
    return sigmoid.sigmoid(a, table)

  def mean_square(self, high, low, *, mult: Int, shift: Int, limit: Int):
    """Mean from a two-payload sum of squares; see `rsqrt.mean_square`."""
    return rsqrt.mean_square(high, low, mult, shift, limit)

  def inv_sqrt(self, a):
    """Integer inverse square root, 1 <= a < 2^24; see `rsqrt.inv_sqrt`."""
    return rsqrt.inv_sqrt(a)

  # --- synapses

  def gather_rows(self, table, ids):
    """Rows of a table [V, n] for ids int32[...]: [..., n] (host)."""
    return jnp.take(table, ids, axis=0, mode="clip").astype(jnp.int32)

  def dense(self, x, weight: QMatrix | QDense, *, bound: int, parts: int = 1):
    """Matrix product: a tuple of `parts` row blocks, [..., out / parts].

    Args:
      x: [..., in], |x| <= bound.
      weight: codes int8[out, in]; what they stand for is left to the
        interpreter.
      bound: static bound of |x|, at most 32639.
      parts: number of blocks; divides out.

    Returns:
      The blocks, in order of rows.
    """
    codes = weight.codes
    # Inside a program a matrix is unpacked where it is used, and not kept.
    codes = codes.astype(jnp.int8) if isinstance(codes, Packed) else codes
    out = ternary_matmul(x, jnp.asarray(codes), bound)
    return tuple(jnp.split(out, parts, axis=-1))

  def sum(self, x):
    """Sum over features, [..., 1]."""
    return jnp.sum(x, axis=-1, keepdims=True, dtype=jnp.int32)

  def broadcast(self, x, *, width: int):
    """[..., 1] -> [..., width]."""
    return jnp.broadcast_to(x, (*x.shape[:-1], width))

  def matmul(self, a, b):
    """[..., n, k] @ [..., k, m]; the bound has been checked."""
    return jnp.matmul(a, b, preferred_element_type=jnp.int32)

  def recall(self, q, k, v, memory, *, heads: int):
    """Reads and writes a memory of sums: see `memory.recall`.

    Args:
      q: [T, ..., heads d], -1, 0 or 1.
      k: the same.
      v: the same.
      memory: [..., heads d d].
      heads: number of heads.

    Returns:
      (y [T, ..., heads d], the next memory).
    """
    return recall(q, k, v, memory, heads)

  def recall_windows(self, q, k, v, memory, past, *, heads, windows, mask):
    """`recall` with windows: see `windows.recall_windows`."""
    return recall_windows(q, k, v, memory, past, heads, windows, mask)

  def outer(self, a, b):
    """[..., n], [..., m] -> [..., n, m]."""
    return a[..., :, None] * b[..., None, :]
