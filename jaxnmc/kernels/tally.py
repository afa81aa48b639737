"""How many messages there are: numbers that are not zero, by stretch of a row.

The same for the weights that they meet: column c of a value's table says how
many weights a message of each neuron walks there.  All values of a layer are
tallied by one call of the native kernel, or by a few XLA instructions each.
"""

from collections.abc import Sequence

import jax
import numpy as np
from flax import struct
from jax import lax
from jax import numpy as jnp

from jaxnmc.kernels import native


@struct.dataclass
class Table:
  """What a number that is not zero adds to the columns, layer by layer.

  Attributes:
    codes: int8[layers, columns, width] of 0 to 127.
    whole: int32[layers, columns], the sums of a row without zeros.
  """

  codes: jax.Array
  whole: jax.Array

  @classmethod
  def of(cls, codes: np.ndarray | None) -> "Table | None":
    """Puts a table on the device; None without one."""
    if codes is None:
      return None
    whole = codes.sum(-1, dtype=np.int32)
    return cls(jnp.asarray(codes), jnp.asarray(whole))


def operands(tables: Sequence[Table | None]) -> list[jax.Array]:
  """Those of the native kernels."""
  return [x for t in tables if t is not None for x in (t.codes, t.whole)]


def columns(tables: Sequence[Table | None]) -> list[int]:
  """How many each has."""
  return [0 if table is None else table.codes.shape[-2] for table in tables]


def tally(
  values: Sequence[jax.Array],
  cuts: Sequence[np.ndarray],
  tables: Sequence[Table | None],
  layer: jax.Array | int = 0,
) -> jax.Array:
  """Counts of numbers that are not zero.

  Args:
    values: int32[T, width] each.
    cuts: of each value where stretches begin, and the end of the last one,
      int[stretches + 1] from 0 to its width.
    tables: of each value, or None; not batched by `vmap`.
    layer: int32[], which of the layers.

  Returns:
    int32[T, all columns]: value after value its stretches, then for each
    column the sum of its table over the numbers that are not zero.
  """
  if not values:
    return jnp.zeros((0,), jnp.int32)
  if native.available():
    return native_tally(values, cuts, tables, layer)
  return xla_tally(values, cuts, tables, layer)


def native_tally(values, cuts, tables, layer=0) -> jax.Array:
  """`tally` by the native kernel, which copies no table."""
  wide = columns(tables)
  pieces = [len(cut) - 1 for cut in cuts]
  call = jax.ffi.ffi_call(
    native.TALLY,
    jax.ShapeDtypeStruct((len(values[0]), sum(pieces) + sum(wide)), jnp.int32),
    vmap_method="expand_dims",
  )
  return call(
    *values,
    jnp.reshape(jnp.asarray(layer, jnp.int32), (1,)),
    *operands(tables),
    pieces=np.array(pieces, np.int64),
    edges=np.concatenate(cuts).astype(np.int64),
    columns=np.array(wide, np.int64),
  )


def xla_tally(values, cuts, tables, layer=0) -> jax.Array:
  """`tally` in XLA, on any device."""
  parts = []
  for x, cut, table in zip(values, cuts, tables, strict=True):
    sent = x != 0
    parts.append(_stretches(sent, cut))
    if table is not None:
      rows = sent.astype(jnp.int8)
      if len(rows) == 1:
        # One row leaves the fast path of int8 products on CPU.
        rows = jnp.concatenate([rows, jnp.zeros_like(rows)])
      sums = lax.dot_general(
        rows,
        lax.dynamic_index_in_dim(table.codes, layer, keepdims=False),
        (((1,), (1,)), ((), ())),
        preferred_element_type=jnp.int32,
      )
      parts.append(sums[: len(x)])
  return jnp.concatenate(parts, axis=-1)


def _stretches(sent: jax.Array, cut: np.ndarray) -> jax.Array:
  """Sums of bool[T, width] over stretches, int32[T, stretches]."""
  sizes = np.diff(cut)
  if (sizes[:-1] == sizes[0]).all() and sizes[-1] <= sizes[0]:
    spare = len(sizes) * int(sizes[0]) - int(cut[-1])
    tiled = jnp.pad(sent, ((0, 0), (0, spare)))
    tiled = tiled.reshape(len(sent), len(sizes), int(sizes[0]))
    return jnp.sum(tiled, axis=-1, dtype=jnp.int32)
  each = [
    jnp.sum(sent[:, a:b], axis=-1, keepdims=True, dtype=jnp.int32)
    for a, b in zip(cut[:-1].tolist(), cut[1:].tolist())
  ]
  return jnp.concatenate(each, axis=-1)
