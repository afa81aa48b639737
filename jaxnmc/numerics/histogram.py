"""Histograms of magnitudes, with bins of equal ratio and a fixed size.

A bin is an exponent of a float32 and the first bits behind it, so its index is
a shift of the number's own bits, and histograms of any two batches add up
exactly.  Bin 0 holds what is smaller than 2^-24, the last what is 2^24 or more.
"""

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

# A bin is at most 1/32 wider than the numbers in it.
_SUB_BITS = 5
_LOW, _HIGH = -24, 24
_MANTISSA_BITS, _BIAS = 23, 127
BINS = ((_HIGH - _LOW) << _SUB_BITS) + 2


def _edges() -> np.ndarray:
  octaves = np.arange(_LOW, _HIGH)[:, None]
  parts = np.arange(1 << _SUB_BITS) / (1 << _SUB_BITS)
  inner = (2.0**octaves * (1 + parts)).reshape(-1)
  return np.array([0.0, *inner, 2.0**_HIGH, np.inf])


# Bin i holds EDGES[i] <= |x| < EDGES[i + 1]; float64[BINS + 1].
EDGES = _edges()


def magnitude_counts(x: jax.Array) -> jax.Array:
  """How many values lie in each bin.

  Args:
    x: float[...].

  Returns:
    int32[BINS].
  """
  size = jnp.abs(x).astype(jnp.float32).reshape(-1)
  bits = lax.bitcast_convert_type(size, jnp.int32)
  first = (_BIAS + _LOW) << _SUB_BITS
  index = (bits >> (_MANTISSA_BITS - _SUB_BITS)) - first + 1
  index = jnp.clip(index, 0, BINS - 1)
  return jnp.zeros(BINS, jnp.int32).at[index].add(1)
