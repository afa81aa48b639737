"""Products with ternary matrices in two bits per weight, by native kernels."""

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.kernels import native
from jaxnmc.numerics.packed import BLOCK, MAX_IN, pack, row_bytes, unpack

__all__ = ["BLOCK", "MAX_IN", "pack", "product", "row_bytes", "unpack"]


def product(
  x: jax.Array,
  packed: jax.Array,
  layer: jax.Array,
  *,
  planes: int = 2,
  path: int = -1,
  many: int = -1,
) -> jax.Array:
  """x @ codes[layer].T by the native kernel, in exact integers.

  Args:
    x: int32[m, k], |x| <= 32639, or <= 127 with one plane.
    packed: uint8[layers, n, bytes] of `pack`; nothing of it is copied.
    layer: int32[], which matrix; not batched by `vmap`, nor is `packed`.
    planes: digits per activation, 1 or 2.
    path: index into `native.PATHS`; -1: the best that this machine has.
    many: 0: weights meet a few rows as they lie, 1: they are laid out once for
      all rows; -1: what is faster for this number of rows.

  Returns:
    int32[m, n].
  """
  call = jax.ffi.ffi_call(
    native.TERNARY,
    jax.ShapeDtypeStruct((x.shape[0], packed.shape[1]), jnp.int32),
    vmap_method="expand_dims",
  )
  return call(
    x,
    packed,
    jnp.reshape(layer, (1,)),
    path=np.int64(path),
    planes=np.int64(planes),
    many=np.int64(many),
  )
