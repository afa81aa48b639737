"""Where XLA is to compute a value once and keep it."""

import jax
from jax import lax
from jax import numpy as jnp


def settle(x: jax.Array, number: jax.Array) -> jax.Array:
  """x, computed once and kept.

  XLA on CPU repeats a chain of element-wise instructions in every reader of its
  result; along neurons that read their own potential that grows with a power of
  the ticks.  A branch that is taken as far as the data say ends the chain; a
  barrier does not.  Other platforms bound what they repeat, and a branch would
  wait for the host there.

  Args:
    x: float[...] or int32[...].
    number: any scalar of the data; the same for all of a batch, or `vmap`
      computes both branches.

  Returns:
    x.
  """
  return lax.platform_dependent(x, number, cpu=_branch, default=lambda x, _: x)


def _branch(x: jax.Array, number: jax.Array) -> jax.Array:
  """x, by a condition that always holds but that no compiler can know to."""
  if jnp.issubdtype(number.dtype, jnp.floating):
    never = -jnp.inf
  else:
    never = jnp.iinfo(number.dtype).min
  return lax.cond(number != never, lambda v: v, jnp.zeros_like, x)
