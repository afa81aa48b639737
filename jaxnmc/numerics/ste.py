"""Straight-through estimator: an exact value with somebody else's gradient.

The usual `y + stop_gradient(v - y)` returns `v` only up to one float rounding,
which breaks `fake_quant == fixed` in float64.  Here the value is returned as
it is and only the tangent comes from the surrogate.
"""

import jax


@jax.custom_jvp
def ste(value: jax.Array, surrogate: jax.Array) -> jax.Array:
  """Returns `value` exactly; differentiates as `surrogate`.

  Args:
    value: float[...]; what the forward pass returns.
    surrogate: float[...] of the same shape; where the gradient flows.

  Returns:
    float[...], equal to `value` bit for bit.
  """
  del surrogate
  return value


@ste.defjvp
def _ste_jvp(primals, tangents):
  value, surrogate = primals
  _, dsurrogate = tangents
  return ste(value, surrogate), dsurrogate
