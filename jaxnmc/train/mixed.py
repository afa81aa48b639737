"""Training with products in bfloat16: which part may be narrow, and why.

bfloat16 has the exponent of float32, so nothing overflows or vanishes and no
loss scaling is needed; it keeps 8 significant bits, a relative error of 2^-9.

    operands of a ternary product   narrow. Codes -1, 0, 1 are exact, and their
        scale multiplies the result in float32. Activations are on the 8-bit
        grid of the quantiser before; the rounding is at most half a step of it
        and differs from value to value, so sums of many average it out.
    operands of a dense product   narrow, both rounded; a weight changes by at
        most 2^-9 of itself, as with the weights of any training in bfloat16.
    cotangents in the same products  narrow: a relative error of 2^-9, small
        against the noise of a batch; the gradient itself stays in float32.
    sums of products   float32: thousands of terms would lose the small ones.
    latent weights, optimiser   float32: an update of 1e-3 of a weight is below
        the resolution of bfloat16 and would be lost at every step.
    norms   float32: a mean of squares, and a gain on everything after it.
    recurrence   float32: an error in the state stays there for many tokens,
        and gates close to 1 cannot be told from 1 in bfloat16.
    residual stream, element-wise work   float32: not where the time is.
    logits, loss   float32: differences of large numbers.
    products of two activations   float32, those of attention too: scores go
        into an exponential.

The trained parameters are those of float32 training; evaluation and export do
not change.
"""

import jax
from jax import numpy as jnp

from jaxnmc.errors import ConfigError
from jaxnmc.numerics.ste import ste
from jaxnmc.numerics.ternary import Ternary, scale_of, ternarize
from jaxnmc.ops.reference import Reference
from jaxnmc.train.products import narrow_dot

DTYPES = ("float32", "bfloat16")


@jax.custom_vjp
def narrow_product(x: jax.Array, codes: jax.Array) -> jax.Array:
  """x @ codes.T with operands rounded to bfloat16 and sums in float32.

  The two products of the gradient are computed in the same way; left to JAX
  they would mix types and run in float32.

  Args:
    x: float32[m, k].
    codes: float32[n, k].

  Returns:
    float32[m, n].
  """
  return narrow_dot(x.astype(jnp.bfloat16), codes.astype(jnp.bfloat16))


def _forward(x, codes):
  narrow = x.astype(jnp.bfloat16), codes.astype(jnp.bfloat16)
  return narrow_dot(*narrow), narrow


def _backward(narrow, cotangent):
  x, codes = narrow
  cotangent = cotangent.astype(jnp.bfloat16)
  return narrow_dot(cotangent, codes.T), narrow_dot(cotangent.T, x.T)


narrow_product.defvjp(_forward, _backward)


class Mixed(Reference):
  """The float interpreter with products in bfloat16.

  Element-wise values, states and results are float32, as in `Reference`.
  """

  def linear(self, name: str, weight, x):
    """Ternary product: float32[T, ..., in] -> float32[T, ..., out]."""
    self.guard(self.path(name))
    if isinstance(weight, Ternary):
      codes, scale = weight.codes.astype(jnp.float32), weight.scale
    else:
      # The latent's gradient is that of the values, scale * codes.
      scale = jax.lax.stop_gradient(scale_of(weight))
      exact = ternarize(weight).codes.astype(jnp.float32)
      codes = ste(exact, weight / scale)
    out = narrow_product(x.reshape(-1, x.shape[-1]), codes) * scale
    return out.reshape(*x.shape[:-1], codes.shape[0])

  def _dense_product(self, x, weight):
    out = narrow_product(x.reshape(-1, x.shape[-1]), weight)
    return out.reshape(*x.shape[:-1], weight.shape[0])


def interpreter(dtype: str) -> Reference:
  """The interpreter that trains with products of a type, of `DTYPES`.

  Raises:
    ConfigError: another type.
  """
  if dtype not in DTYPES:
    raise ConfigError(
      f"dtype: found {dtype!r}, allowed are {', '.join(DTYPES)}"
    )
  return Mixed() if dtype == "bfloat16" else Reference()
