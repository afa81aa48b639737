"""Ternary matrices in two bits per weight, and products with them.

A row is cut in blocks of 256 weights of 64 bytes; byte j of a block holds
w + 1 of the weights j, j + 64, j + 128 and j + 192, the first in its lowest
bits.  Rows are filled up with zeros (code 1).
"""

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.kernels import native

BLOCK = 256
# A sum of one digit plane stays in 32 bits up to here (few.cc).
MAX_IN = 1 << 16


def row_bytes(k: int) -> int:
  """Bytes of a packed row of k weights."""
  return 64 * -(-k // BLOCK)


def pack(codes: np.ndarray) -> np.ndarray:
  """int8[..., n, k] of -1, 0, 1 as uint8[..., n, 64 * ceil(k / 256)].

  Raises:
    ValueError: another code, or a row that is too long.
  """
  codes = np.asarray(codes)
  k = codes.shape[-1]
  if k > MAX_IN or codes.min(initial=0) < -1 or codes.max(initial=0) > 1:
    raise ValueError(
      f"packed rows hold -1, 0 and 1, at most {MAX_IN} of them; found"
      f" {codes.min(initial=0)} to {codes.max(initial=0)}, {k} of them"
    )
  spare = -k % BLOCK
  pad = [(0, 0)] * (codes.ndim - 1) + [(0, spare)]
  fields = np.pad((codes + 1).astype(np.uint8), pad, constant_values=1)
  fields = fields.reshape(*codes.shape[:-1], -1, 4, 64)
  packed = np.zeros((*fields.shape[:-2], 64), np.uint8)
  for i in range(4):
    packed |= fields[..., i, :] << (2 * i)
  return packed.reshape(*codes.shape[:-1], -1)


def unpack(packed: jax.Array, k: int) -> jax.Array:
  """The codes again, int8[..., n, k]."""
  shape = packed.shape[:-1]
  fields = packed.reshape(*shape, -1, 1, 64)
  shifts = jnp.array([0, 2, 4, 6], jnp.uint8).reshape(4, 1)
  codes = ((fields >> shifts) & jnp.uint8(3)).astype(jnp.int8) - jnp.int8(1)
  return codes.reshape(*shape, -1)[..., :k]


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
