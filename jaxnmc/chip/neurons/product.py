"""The product neuron: two inputs multiplied.

    out = (x1 x2) >> exp (floor), 0 unless |out| > vth

Source: the rule of lava-nc 0.10.0's fixed-point model, as docs/neurons.md
restates it.
"""

import dataclasses
from typing import ClassVar

import jax
from jax import numpy as jnp

from jaxnmc.chip.neurons import arithmetic, checks, graded
from jaxnmc.chip.neurons.stateless import NoState, Stateless
from jaxnmc.numerics import wide


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProdNeuron(Stateless):
  """Sends the shifted product of its two inputs where it is large enough.

  The product is exact in 64 bits; what does not fit a message of 32 bits after
  the shift saturates (`overflows`), where Lava's int32 arrays would wrap.

  Attributes:
    vth: threshold of the shifted product, 0 to 2^23 - 1.
    exp: bits to shift right, 0 to 46.

  Raises:
    ConfigError: a parameter is out of its range.
  """

  vth: int = 1
  exp: int = 0

  ports: ClassVar[tuple[str, ...]] = ("a_in1", "a_in2")

  def __post_init__(self):
    width = "the product of two 24-bit values has 46 bits"
    checks.settle(self, vth=graded.VTH, exp=checks.Limit(0, 46, width))

  def step(self, state: NoState, inputs) -> tuple[NoState, jax.Array]:
    """One time step.

    Args:
      state: none.
      inputs: (x1, x2), int32[n] each, any value.

    Returns:
      (state, message int32[n]).

    Raises:
      ConfigError: the inputs are not two int32[n].
    """
    x1, x2 = checks.ports(self, inputs)
    product = wide.shr_wide(*wide.mul_wide(x1, x2), self.exp)
    out = wide.clip_wide(*product, -arithmetic.WORD - 1, arithmetic.WORD)
    return state, jnp.where(arithmetic.outside(out, self.vth), out, 0)

  def overflows(self, state: NoState, inputs) -> jax.Array:
    """True where the shifted product leaves 32 bits: bool[n]."""
    x1, x2 = checks.ports(self, inputs)
    return graded.too_wide(x1, x2, self.exp)
