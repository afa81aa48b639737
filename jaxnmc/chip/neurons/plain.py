"""A leaky integrator that only tells its voltage, and a bare threshold.

    LeakyIntegrator:  u and v as in LIF, without a threshold; sends v
    Threshold:        s = a > vth; no state

Neither is in Lava; they are what NIR calls CubaLI, LI or I, and Threshold.
"""

import dataclasses
from typing import ClassVar

import jax
from jax import numpy as jnp

from jaxnmc.chip.neurons import arithmetic, checks, lif
from jaxnmc.chip.neurons.stateless import NoState, Stateless


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeakyIntegrator(lif._Leaky):
  """Sends its voltage in every step and never fires.

  Attributes:
    du: as in `LIF`.
    dv: as in `LIF`.
    bias_mant: as in `LIF`.
    bias_exp: as in `LIF`.

  Raises:
    ConfigError: a parameter is out of its range.
  """

  sends: ClassVar[int] = arithmetic.TOP

  def init(self, n: int) -> lif.LIFState:
    """State of n neurons at rest: zeros."""
    rest = self._rest(n)
    return lif.LIFState(rest, rest)

  def step(self, state: lif.LIFState, inputs):
    """One time step.

    Args:
      state: u and v, int32[n].
      inputs: (a_in,), int32[n], |a_in| <= 2^18.

    Returns:
      (state, v): the new voltage, int32[n], 6 bits finer than the input.

    Raises:
      ConfigError: the input is not (int32[n],).
    """
    (a,) = checks.ports(self, inputs, state.u)
    u, v = self._integrate(state.u, state.v, a)
    return lif.LIFState(u, v), v


@dataclasses.dataclass(frozen=True, kw_only=True)
class Threshold(Stateless):
  """Spikes where its input is above a threshold; no state.

  Attributes:
    vth: threshold, any int32 below the largest.

  Raises:
    ConfigError: the threshold is out of its range.
  """

  vth: int = 0

  sends: ClassVar[int] = 1
  takes: ClassVar[int] = arithmetic.WORD

  def __post_init__(self):
    word = checks.Limit(-arithmetic.WORD, arithmetic.WORD - 1, "32 bits")
    checks.settle(self, vth=word)

  def step(self, state: NoState, inputs) -> tuple[NoState, jax.Array]:
    """One time step.

    Args:
      state: none.
      inputs: (a_in,), int32[n], any value.

    Returns:
      (state, s): the spikes, int32[n] of 0 and 1.

    Raises:
      ConfigError: the input is not (int32[n],).
    """
    (a,) = checks.ports(self, inputs)
    return state, (a > self.vth).astype(jnp.int32)
