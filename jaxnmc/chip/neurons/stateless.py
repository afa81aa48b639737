"""What neurons without a state have in common."""

from typing import ClassVar

import jax
from flax import struct
from jax import numpy as jnp

from jaxnmc.chip.neurons import checks


@struct.dataclass
class NoState:
  """The state of a neuron that keeps nothing from step to step."""


class Stateless:
  """A neuron that keeps nothing; its `step` is a function of its inputs.

  One whose steps can be inexact says where in `overflows`; the others say so
  in `takes` (`jaxnmc.chip.neurons`).
  """

  ports: ClassVar[tuple[str, ...]] = ("a_in",)

  def init(self, n: int) -> NoState:
    """No state, whatever n is.

    Raises:
      ConfigError: n is no positive whole number.
    """
    checks.width(self, n)
    return NoState()

  def overflows(self, state: NoState, inputs) -> jax.Array:
    """Never: nothing is added.  bool[n]."""
    a = checks.ports(self, inputs)[0]
    return jnp.zeros(a.shape, bool)
