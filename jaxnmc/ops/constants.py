"""Functions of a parameter that inference computes once, on the host.

A plan is plain data, so it names such a function instead of holding it.
"""

from collections.abc import Callable

import jax
from jax import numpy as jnp

from jaxnmc.errors import PlanError


def lower_bounds(raw: jax.Array) -> jax.Array:
  """Lower bounds of the forget gates, float[L, D] -> float[L, D] in [0, 1).

  P = softmax over layers; the bound of layer l is P_1 + ... + P_l, so zero at
  l = 0 (Zhu et al. 2024, "cummax").
  """
  share = jax.nn.softmax(raw, axis=0)
  return jnp.cumsum(share, axis=0) - share[:1]


def positive(log: jax.Array) -> jax.Array:
  """e^x: thresholds, learned as logarithms, stay above 0."""
  return jnp.exp(log)


CONSTANTS: dict[str, Callable[[jax.Array], jax.Array]] = {
  "lower_bounds": lower_bounds,
  "positive": positive,
}


def constant(name: str | None) -> Callable[[jax.Array], jax.Array]:
  """The function (array -> array) a plan calls `name`; None is the identity.

  Raises:
    PlanError: nobody has registered the name.
  """
  if name is None:
    return lambda x: x
  if name not in CONSTANTS:
    raise PlanError(
      f"unknown constant function {name!r}; known: {sorted(CONSTANTS)};"
      " register yours in jaxnmc.ops.constants.CONSTANTS"
    )
  return CONSTANTS[name]
