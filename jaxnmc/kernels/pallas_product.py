"""The product with a ternary matrix on an NVIDIA GPU, by number of rows.

    rows <= pallas_gemv.FEW   two bits per weight, unpacked in registers
    more rows                 int8 digit planes in one XLA product, which the
        tensor cores multiply: XLA hands int8 x int8 -> int32 to cuBLAS or to
        Triton, whatever it measures as faster

The rule is worked out from sizes, not measured; `tools/gpu_check.py` measures
all forms.  A batch (`jax.vmap`) becomes rows, so that weights are read once
for all of it.

XLA pads both operands of an int8 product to multiples of 4 in every dimension,
which would copy the weights; widths of real models are such multiples.  The
rows of the activations are filled up here to a whole tile of 32.
"""

import functools

import jax
from jax import lax
from jax import numpy as jnp

from jaxnmc.kernels import packed, pallas_gemv, pallas_launch
from jaxnmc.kernels.ternary import MAX_ONE_PLANE, digits

_TILE = 32


def product(codes, small, layer, x: jax.Array, bound: int) -> jax.Array:
  """x @ codes[layer].T in exact integers.

  Args:
    codes: int8[layers, n, k], or None.
    small: uint8[layers, n, bytes] of `packed.pack`, or None; one of both is
      there.
    layer: int32[], which.
    x: int32[m, k], |x| <= bound.
    bound: static bound of |x|, at most 32639.

  Returns:
    int32[m, n]; the caller vouches that the sums fit.
  """

  @jax.custom_batching.custom_vmap
  def run(codes, small, layer, x):
    return _rows(codes, small, layer, x, bound)

  @run.def_vmap
  def batched(size, mapped, codes, small, layer, x):
    if any(jax.tree.leaves(mapped[:3])):
      axes = jax.tree.map(lambda flag: 0 if flag else None, tuple(mapped))
      each = functools.partial(_many, bound=bound)
      return jax.vmap(each, axes)(codes, small, layer, x), True
    rows = x.reshape(size * x.shape[1], x.shape[2])
    out = product(codes, small, layer, rows, bound)
    return out.reshape(size, x.shape[1], -1), True

  return run(codes, small, layer, x)


def _rows(codes, small, layer, x, bound: int) -> jax.Array:
  """`product`, by the number of rows."""
  many = functools.partial(_many, bound=bound)
  if small is None or not 0 < x.shape[0] <= pallas_gemv.FEW:
    return many(codes, small, layer, x)
  if not _compiles(small.shape, x.shape):
    return many(codes, small, layer, x)
  few = lambda codes, small, layer, x: pallas_gemv.product(x, small, layer)
  return pallas_launch.choose(few, many, codes, small, layer, x)


@functools.cache
def _compiles(small: tuple[int, ...], x: tuple[int, ...]) -> bool:
  """Whether the kernel for these shapes does; asked once per shape."""
  return pallas_launch.compiles(
    "product",
    pallas_gemv.product,
    jax.ShapeDtypeStruct(x, jnp.int32),
    jax.ShapeDtypeStruct(small, jnp.uint8),
    jax.ShapeDtypeStruct((), jnp.int32),
  )


def _many(codes, small, layer, x, bound: int) -> jax.Array:
  """The digit planes of many rows in one product."""
  pick = lambda stack: lax.dynamic_index_in_dim(stack, layer, keepdims=False)
  if codes is None:
    matrix = packed.unpack(pick(small), x.shape[1])
  else:
    matrix = pick(codes)
  planes = [x] if bound <= MAX_ONE_PLANE else list(digits(x))
  m, count = x.shape[0], len(planes)
  rows = jnp.concatenate(planes).astype(jnp.int8)
  rows = jnp.pad(rows, ((0, -(m * count) % _TILE), (0, 0)))
  sums = lax.dot_general(
    rows, matrix, (((1,), (1,)), ((), ())), preferred_element_type=jnp.int32
  )
  if count == 1:
    return sums[:m]
  return (sums[:m] << 8) + sums[m : 2 * m]
