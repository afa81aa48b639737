"""Where XLA is to compute a value once and keep it."""

import jax
from jax import lax
from jax import numpy as jnp


def settle(x: jax.Array, sign: jax.Array) -> jax.Array:
  """x, computed once and kept.

  XLA on CPU repeats a chain of element-wise instructions in every reader of its
  result; along neurons that read their own potential that grows with a power of
  the ticks.  A branch that is taken as far as the data say ends the chain; a
  barrier does not.

  Args:
    x: float[...] or int32[...].
    sign: any number that is not below 0, which the compiler cannot know; the
      same for all of a batch, or `vmap` computes both branches.

  Returns:
    x.
  """
  holds = jnp.logical_not(sign < 0)  # also of a number that is none
  return lax.cond(holds, lambda v: v, jnp.zeros_like, x)
