"""Reading memory once: the limit of every product with few rows."""

import jax
from jax import numpy as jnp

from jaxnmc.kernels import native


def read(x: jax.Array) -> jax.Array:
  """Reads uint8[n] by all threads.

  Args:
    x: uint8[n].

  Returns:
    uint32[]: the exclusive or of its 64-bit words (bytes at the end), halves
    joined; by XLA, where there are no native kernels, the sum of the bytes.
  """
  if not native.available():
    return jnp.sum(x, dtype=jnp.uint32)
  call = jax.ffi.ffi_call(native.READ, jax.ShapeDtypeStruct((), jnp.uint32))
  return call(x)
