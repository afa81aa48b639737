"""Ternary matrices in two bits per weight.

A row is cut in blocks of 256 weights of 64 bytes; byte j of a block holds
w + 1 of the weights j, j + 64, j + 128 and j + 192, the first in its lowest
bits.  Rows are filled up with zeros (code 1).  It is the order in which the
kernels read; files keep rows without blocks (`ternary.pack2`).
"""

import jax
import numpy as np
from flax import struct
from jax import numpy as jnp

BLOCK = 256
# A product's sum over one digit plane stays in 32 bits up to here.
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


def unpack(packed, k: int):
  """The codes again, int8[..., n, k]: of NumPy in NumPy, of JAX in JAX."""
  module = np if isinstance(packed, np.ndarray) else jnp
  shape = packed.shape[:-1]
  fields = packed.reshape(*shape, -1, 1, 64)
  shifts = module.array([0, 2, 4, 6], np.uint8).reshape(4, 1)
  codes = ((fields >> shifts) & np.uint8(3)).astype(np.int8) - np.int8(1)
  return codes.reshape(*shape, -1)[..., :k]


@struct.dataclass
class Packed:
  """Ternary codes int8[n, k] that are unpacked when somebody reads them.

  It stands where an array of codes may stand; `np.asarray` and `astype` give
  the codes.

  Attributes:
    data: uint8[n, row_bytes(k)] of `pack`.
    k: codes per row.
  """

  data: jax.Array | np.ndarray
  k: int = struct.field(pytree_node=False)

  dtype = np.dtype(np.int8)
  ndim = 2

  @classmethod
  def of(cls, codes: np.ndarray) -> "Packed":
    """Packs int8[n, k]; errors as of `pack`."""
    return cls(pack(codes), np.shape(codes)[-1])

  @property
  def shape(self) -> tuple[int, int]:
    """[n, k]."""
    return self.data.shape[0], self.k

  @property
  def size(self) -> int:
    """Number of codes."""
    return self.data.shape[0] * self.k

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    """The codes on the host."""
    del copy  # they are always new
    codes = unpack(np.asarray(self.data), self.k)
    return codes if dtype is None else codes.astype(dtype)

  def astype(self, dtype):
    """The codes in another type, where the data are."""
    return unpack(self.data, self.k).astype(dtype)

  def min(self) -> int:
    """Smallest code."""
    return int(np.asarray(self).min())

  def max(self) -> int:
    """Largest code."""
    return int(np.asarray(self).max())

  def split(self, parts: int) -> list["Packed"]:
    """Blocks of rows, without unpacking."""
    rows = np.split(np.asarray(self.data), parts)
    return [Packed(block, self.k) for block in rows]
