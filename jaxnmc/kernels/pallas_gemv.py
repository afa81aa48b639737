"""Few rows of activations times a packed ternary matrix, on an NVIDIA GPU.

Weights stay in two bits (the layout of `kernels.packed`: field i of a block's
bytes holds the weights 64 i to 64 i + 63) and are unpacked in registers.  Two
forms, the same integers:

    few rows   multiply-add of int32 on the ordinary cores: no digits, and a
               lane keeps one byte column of each field until the end
    more rows  both digit planes, 16 rows each, on the tensor cores (int8 in,
               int32 out, exact by definition)

All layers lie in one array and the layer is a number that the kernel reads, so
that a scan over layers copies no weights.
"""

import functools
from collections.abc import Callable

import jax
from jax import lax
from jax import numpy as jnp

from jaxnmc import _compat
from jaxnmc.kernels import pallas_launch
from jaxnmc.kernels.packed import BLOCK
from jaxnmc.kernels.ternary import digits

# Rows up to which a kernel is launched (a tile of the tensor cores), and up to
# which it is the one without digits.
FEW, FEWEST = 16, 2
_BYTES = BLOCK // 4
# Rows of weights per block; a block of one warp reads eight rows of 64 bytes
# as 16 bytes per thread.
_OUT = {"add": 8, "dot": 16}
_WARPS = {"add": 1, "dot": 2}
# Blocks of 256 weights up to which the loop over them is written out.
_WRITTEN = 16


def product(
  x: jax.Array, packed: jax.Array, layer: jax.Array, form: str | None = None
) -> jax.Array:
  """x @ codes[layer].T in exact integers.

  Args:
    x: int32[m, k], |x| <= 32639, m at most `FEW`.
    packed: uint8[layers, n, bytes] of `packed.pack`.
    layer: int32[], which matrix.
    form: "add" or "dot"; None: by the number of rows.

  Returns:
    int32[m, n].
  """
  m, k = x.shape
  form = form or ("add" if m <= FEWEST else "dot")
  wide = packed.shape[-1] * 4
  x = jnp.pad(x, ((0, 0), (0, wide - k)))
  if form == "add":
    planes = [x]
  else:
    fill = ((0, FEW - m), (0, 0))
    planes = [jnp.pad(p.astype(jnp.int8), fill) for p in digits(x)]
  out = _call(form, planes, packed, jnp.reshape(layer, (1,)))
  return out[:m, : packed.shape[1]]


def _call(form: str, planes, packed, layer) -> jax.Array:
  """int32[rows of the planes, n filled up to whole blocks]."""
  pl, _ = _compat.pallas()
  rows, wide = planes[0].shape
  n = packed.shape[1]
  each = _OUT[form]
  blocks = -(-n // each)
  kernel = functools.partial(_KERNELS[form], n, wide // BLOCK)
  run = pallas_launch.launch(
    kernel,
    (blocks,),
    [None] * (len(planes) + 1) + [pl.BlockSpec((1,), lambda i: (0,))],
    [pl.BlockSpec((rows, each), lambda i: (0, i))],
    [jax.ShapeDtypeStruct((rows, blocks * each), jnp.int32)],
    _WARPS[form],
  )
  return run(*planes, packed, layer)[0]


def _rows(n: int, each: int):
  """Which rows of weights a block has, int32[each, 1]."""
  pl, _ = _compat.pallas()
  row = pl.program_id(0) * each + jnp.arange(each, dtype=jnp.int32)
  # The last block may hang over: it reads the last row again, and these sums
  # are cut off.
  return jnp.minimum(row, n - 1)[:, None]


def _tile(packed_ref, layer, rows, block):
  """Bytes of one block of 256 weights: int32[each, 64] of 0 ... 255."""
  column = block * _BYTES + jnp.arange(_BYTES, dtype=jnp.int32)
  return packed_ref[layer, rows, column[None, :]].astype(jnp.int32)


def _blocks(count: int, step, start):
  """step(block, sums) over all blocks of 256 weights."""
  if count > _WRITTEN:
    return lax.fori_loop(0, count, step, start)
  for block in range(count):
    start = step(block, start)
  return start


def _add(n: int, count: int, x_ref, packed_ref, layer_ref, out_ref) -> None:
  """Sums on the ordinary cores."""
  pl, _ = _compat.pallas()
  layer, each, rows = layer_ref[0], _OUT["add"], out_ref.shape[0]
  mine = _rows(n, each)

  def step(block, sums):
    tile = _tile(packed_ref, layer, mine, block)
    sums = list(sums)
    for field in range(4):
      codes = ((tile >> (2 * field)) & 3) - 1
      at = block * BLOCK + field * _BYTES
      for r in range(rows):
        sums[r] += codes * x_ref[r, pl.ds(at, _BYTES)][None, :]
    return tuple(sums)

  zero = jnp.zeros((each, _BYTES), jnp.int32)
  sums = _blocks(count, step, (zero,) * rows)
  for r, lanes in enumerate(sums):
    out_ref[r, :] = jnp.sum(lanes, axis=1, dtype=jnp.int32)


def _dot(
  n: int, count: int, hi_ref, lo_ref, packed_ref, layer_ref, out_ref
) -> None:
  """Sums of both digit planes on the tensor cores."""
  pl, _ = _compat.pallas()
  layer, each = layer_ref[0], _OUT["dot"]
  mine = _rows(n, each)

  def step(block, sums):
    tile = _tile(packed_ref, layer, mine, block)
    hi, lo = sums
    for field in range(4):
      codes = (((tile >> (2 * field)) & 3) - 1).astype(jnp.int8)
      at = pl.ds(block * BLOCK + field * _BYTES, _BYTES)
      hi += _int8(hi_ref[:, at], codes)
      lo += _int8(lo_ref[:, at], codes)
    return hi, lo

  zero = jnp.zeros((FEW, each), jnp.int32)
  hi, lo = _blocks(count, step, (zero, zero))
  out_ref[...] = (hi << 8) + lo


def _int8(a, b):
  """int8[m, k] x int8[n, k] -> int32[m, n]."""
  return lax.dot_general(
    a, b.T, (((1,), (0,)), ((), ())), preferred_element_type=jnp.int32
  )


_KERNELS: dict[str, Callable] = {"add": _add, "dot": _dot}
