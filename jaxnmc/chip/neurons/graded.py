"""Neurons that send integers: graded, norm with delay, inverse square root.

None of them leaks.  A message of value zero is not sent, so "0 unless" means
"silent unless".  Source: the rules of lava-nc 0.10.0's fixed-point models, as
docs/neurons.md restates them.  Lava's parameter `exp` of these neurons is read
by none of its models and has no counterpart here.
"""

import dataclasses
from typing import ClassVar

import jax
from flax import struct
from jax import numpy as jnp

from jaxnmc.chip.neurons import arithmetic, checks
from jaxnmc.chip.neurons.stateless import NoState, Stateless
from jaxnmc.numerics import rsqrt, wide

VTH = checks.Limit(0, arithmetic.TOP, "23 bits without sign")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradedVec(Stateless):
  """Sends its input where it is large enough: out = a if |a| > vth, else 0.

  The accumulator is cleared in every step, so there is no state.

  Attributes:
    vth: threshold, 0 to 2^23 - 1.

  Raises:
    ConfigError: the threshold is out of its range.
  """

  vth: int = 1

  takes: ClassVar[int] = arithmetic.WORD

  def __post_init__(self):
    checks.settle(self, vth=VTH)

  def step(self, state: NoState, inputs) -> tuple[NoState, jax.Array]:
    """One time step.

    Args:
      state: none.
      inputs: (a_in,), int32[n], any value.

    Returns:
      (state, message int32[n]).

    Raises:
      ConfigError: the input is not (int32[n],).
    """
    (a,) = checks.ports(self, inputs)
    return state, jnp.where(self._large(a), a, 0)

  def _large(self, a: jax.Array) -> jax.Array:
    return arithmetic.outside(a, self.vth)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradedReluVec(GradedVec):
  """As `GradedVec`, for positive values only: out = a if a > vth, else 0."""

  def _large(self, a: jax.Array) -> jax.Array:
    return a > self.vth


@struct.dataclass
class NormVecDelayState:
  """Inputs of the last one or two steps, int32[n] each, latest first."""

  past: tuple[jax.Array, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NormVecDelay:
  """Half of a norm: sends the square, waits, multiplies with the root.

    s2 = a1[t]^2
    s  = a1[t - delay] a2[t] if |.| > vth, else 0

  s2 goes by a synapse to the neuron that adds the squares (`InvSqrt`), whose
  root comes back on the second port; each synapse takes a step, so a norm of
  two synapses needs delay 2, as the interface of Lava's process says.  Lava's
  fixed-point model multiplies with the input one step back: delay 1.  No
  recorded output pins this neuron, only the rule written again in the tests.
  Messages have 32 bits: what does not fit saturates (`overflows`).

  Attributes:
    vth: threshold, 0 to 2^23 - 1.
    delay: 1 or 2 steps.

  Raises:
    ConfigError: a parameter is out of its range.
  """

  vth: int = 1
  delay: int = 1

  ports: ClassVar[tuple[str, ...]] = ("a_in1", "a_in2")

  def __post_init__(self):
    steps = checks.Limit(1, 2, "Lava's model has 1, its interface 2")
    checks.settle(self, vth=VTH, delay=steps)

  def init(self, n: int) -> NormVecDelayState:
    """State of n neurons: zeros."""
    rest = jnp.zeros(checks.width(self, n), jnp.int32)
    return NormVecDelayState((rest,) * self.delay)

  def step(
    self, state: NormVecDelayState, inputs
  ) -> tuple[NormVecDelayState, tuple[jax.Array, jax.Array]]:
    """One time step.

    Args:
      state: past inputs, int32[n] each.
      inputs: (a1, a2), int32[n] each.

    Returns:
      (state, (s, s2)): two messages, int32[n] each.

    Raises:
      ConfigError: the inputs are not two int32[n].
    """
    a1, a2 = checks.ports(self, inputs, state.past[0])
    low, high = -arithmetic.WORD - 1, arithmetic.WORD
    square, product = (
      wide.clip_wide(*wide.mul_wide(x, y), low, high)
      for x, y in ((a1, a1), (state.past[-1], a2))
    )
    sent = jnp.where(arithmetic.outside(product, self.vth), product, 0)
    past = (a1, *state.past[:-1])
    return NormVecDelayState(past), (sent, square)

  def overflows(self, state: NormVecDelayState, inputs) -> jax.Array:
    """True where the square or the product saturates: bool[n]."""
    a1, a2 = checks.ports(self, inputs, state.past[0])
    return too_wide(a1, a1, 0) | too_wide(state.past[-1], a2, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class InvSqrt(Stateless):
  """Sends about 2^18 / sqrt(a): 2^12 / sqrt(a / 2^12) in 12 fraction bits.

  The table and the Newton steps are `jaxnmc.numerics.rsqrt.inv_sqrt`.  Silent
  for a <= 0 (Lava sends 0 for 0 and fails below); a is held to 2^24 - 1 above,
  where Lava's table ends.  No state.
  """

  sends: ClassVar[int] = 264045

  def step(self, state: NoState, inputs) -> tuple[NoState, jax.Array]:
    """One time step.

    Args:
      state: none.
      inputs: (a_in,), int32[n], exact for 0 <= a_in < 2^24.

    Returns:
      (state, message int32[n], 0 or 63 to 264045).

    Raises:
      ConfigError: the input is not (int32[n],).
    """
    (a,) = checks.ports(self, inputs)
    top = 2**rsqrt.INPUT_BITS - 1
    root = rsqrt.inv_sqrt(jnp.clip(a, jnp.int32(1), jnp.int32(top)))
    return state, jnp.where(a > 0, root, 0)

  def overflows(self, state: NoState, inputs) -> jax.Array:
    """True where the input is negative or wider than 24 bits: bool[n]."""
    (a,) = checks.ports(self, inputs)
    return (a < 0) | (a >= 2**rsqrt.INPUT_BITS)


def too_wide(a: jax.Array, b: jax.Array, shift: int) -> jax.Array:
  """Whether floor(a b / 2^shift) leaves int32, for int32[...]: bool[...]."""
  hi, lo = wide.shr_wide(*wide.mul_wide(a, b), shift)
  return hi != (lo.astype(jnp.int32) >> 31)
