"""Ternary matrices of equal layers, and the product that is fastest for them.

The rule, measured in docs/performance.md:

    rows <= FEW and the native kernel is there  two bits per weight, packed: a
        token reads a quarter of the memory, and no layer is copied
    otherwise  int8 digit planes in one XLA product (`ternary.ternary_matmul`)

Both give the same integers.
"""

from collections.abc import Sequence

import jax
import numpy as np
from flax import struct
from jax import lax
from jax import numpy as jnp

from jaxnmc.kernels import native, packed
from jaxnmc.kernels.ternary import ternary_matmul

# Rows up to which the packed form wins; beyond, a layer's int8 weights are read
# once for all rows.
FEW = 4


@struct.dataclass
class Stack:
  """Matrices of one shape, one per layer.

  Attributes:
    codes: int8[layers, n, k].
    packed: uint8[layers, n, bytes] of `packed.pack`, or None.
  """

  codes: jax.Array
  packed: jax.Array | None


def stack(matrices: Sequence[np.ndarray]) -> Stack:
  """Puts matrices on the device, packed as well where that is of use.

  Args:
    matrices: int8[n, k] each.
  """
  codes = np.stack(matrices)
  ternary = -1 <= codes.min(initial=0) and codes.max(initial=0) <= 1
  small = None
  if ternary and codes.shape[-1] <= packed.MAX_IN and native.available():
    small = jnp.asarray(packed.pack(codes))
  return Stack(jnp.asarray(codes), small)


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
  if weights.packed is not None and x.shape[0] <= FEW:
    return packed.product(x, weights.packed, layer)
  codes = lax.dynamic_index_in_dim(weights.codes, layer, keepdims=False)
  return ternary_matmul(x, codes, bound)


def nbytes(weights: Stack, rows: int) -> int:
  """Bytes of all matrices in the form that so many rows are multiplied by."""
  small = weights.packed is not None and rows <= FEW
  return (weights.packed if small else weights.codes).nbytes
