"""Matrices of equal layers, and the product that is fastest for them.

The rule, measured by tools/bench_int_mm.py (docs/performance.md):

    ternary, and the native kernel has vector instructions  packed, two bits per
        weight, for any number of rows: a token reads a quarter of the memory,
        no layer is copied, and nothing else lies on the device
    ternary, and the native kernel is plain C++  packed for up to FEW rows,
        int8 for more; both lie on the device
    on an NVIDIA GPU  by rows as well, see `pallas_product`; both lie there
    otherwise  int8 digit planes in one XLA product (`ternary.ternary_matmul`);
        so for codes of 8 bits, which have no kernel of their own

All give the same integers.
"""

from collections.abc import Sequence

import jax
import numpy as np
from flax import struct
from jax import lax

from jaxnmc.kernels import (
  memory,
  native,
  packed,
  pallas_gemv,
  pallas_launch,
  pallas_product,
)
from jaxnmc.kernels.ternary import MAX_ONE_PLANE, ternary_matmul
from jaxnmc.numerics.packed import Packed

# Rows up to which the packed form wins without vector instructions; beyond, the
# compiler's product has them and ours has not.
FEW = 4


@struct.dataclass
class Stack:
  """Matrices of one shape, one per layer.

  Attributes:
    codes: int8[n, k] of every layer, on a GPU int8[layers, n, k] in one; None
      where no product reads them.
    packed: uint8[layers, n, bytes] of `packed.pack`, or None.
  """

  codes: tuple[jax.Array, ...] | jax.Array | None
  packed: jax.Array | None


def stack(matrices: Sequence[np.ndarray | Packed]) -> Stack:
  """Puts matrices on the device in the forms that products will read.

  Args:
    matrices: int8[n, k] each, or the same packed.
  """
  small, gpu = None, pallas_launch.wanted()
  if (gpu or native.available()) and all(map(_ternary, matrices)):
    small = memory.put(_pack(matrices))
    if not gpu and native.path() != native.PATHS[0]:
      return Stack(None, small)
  shape = (len(matrices), *matrices[0].shape)
  codes = memory.empty(shape, np.int8)
  for to, matrix in zip(codes, matrices, strict=True):
    to[:] = np.asarray(matrix)
  if gpu or jax.default_backend() != "cpu":
    return Stack(memory.put(codes), small)
  return Stack(tuple(memory.put(matrix) for matrix in codes), small)


def _ternary(matrix: np.ndarray | Packed) -> bool:
  if isinstance(matrix, Packed):
    return True
  ends = matrix.min(initial=0), matrix.max(initial=0)
  return -1 <= ends[0] and ends[1] <= 1 and matrix.shape[-1] <= packed.MAX_IN


def _pack(matrices: Sequence[np.ndarray | Packed]) -> np.ndarray:
  """One after the other: nowhere is there a second int8 copy of them all."""
  n, k = matrices[0].shape
  out = memory.empty((len(matrices), n, packed.row_bytes(k)), np.uint8)
  for to, matrix in zip(out, matrices, strict=True):
    to[:] = matrix.data if isinstance(matrix, Packed) else packed.pack(matrix)
  return out


def product(weights: Stack, layer: jax.Array, x: jax.Array, bound: int):
  """x @ codes[layer].T in exact integers.

  Args:
    weights: all layers.
    layer: int32[], which.
    x: int32[m, k], |x| <= bound.
    bound: static bound of |x|, at most 32639.

  Returns:
    int32[m, n]; the caller vouches that the sums fit.
  """
  if pallas_launch.wanted():
    return pallas_product.product(
      weights.codes, weights.packed, layer, x, bound
    )
  if weights.packed is not None and _small(weights, x.shape[0]):
    planes = 1 if bound <= MAX_ONE_PLANE else 2
    return packed.product(x, weights.packed, layer, planes=planes)
  codes = weights.codes
  if not isinstance(codes, tuple):
    one = lax.dynamic_index_in_dim(codes, layer, keepdims=False)
    return ternary_matmul(x, one, bound)
  # A branch of each layer reads its matrix where it lies; an index into one
  # array of all would copy it first, which takes as long as the product.
  branches = [lambda x, one=one: ternary_matmul(x, one, bound) for one in codes]
  return lax.switch(layer, branches, x)


def nbytes(weights: Stack, rows: int) -> int:
  """Bytes of all matrices in the form that so many rows are multiplied by."""
  used = weights.packed if _small(weights, rows) else weights.codes
  return sum(x.nbytes for x in jax.tree.leaves(used))


def _small(weights: Stack, rows: int) -> bool:
  """Whether so many rows are multiplied by the packed form."""
  if weights.packed is None:
    return False
  few = pallas_gemv.FEW if pallas_launch.wanted() else FEW
  return weights.codes is None or rows <= few
