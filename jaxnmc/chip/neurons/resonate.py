"""Resonate-and-fire: a damped oscillator of two states that spikes by phase.

With D = decay_bits, E = state_exp, tz(x, k) = sign(x) (|x| >> k):

    re' = clip(tz(cos re, D) - tz(sin im, D) + (xr << E), +-(2^23 - 1))
    im' = clip(tz(sin re, D) + tz(cos im, D) + (xi << E), +-(2^23 - 1))

`RF` spikes where re' >= vth << E and im turns from negative to not negative.
`RFIzhikevich` spikes where im' >= vth << E and then starts again from
re = 0, im = (vth << E) - 1.  cos and sin hold the damping 1 - alpha:
cos = int((1 - alpha) cos(2 pi / period) 2^D), truncated, sin alike; the
period is in steps.

Source: the rules of lava-nc 0.10.0's fixed-point models, as docs/neurons.md
restates them.
"""

import dataclasses
import math
from typing import ClassVar

import jax
from flax import struct
from jax import numpy as jnp

from jaxnmc.chip.neurons import arithmetic, checks
from jaxnmc.errors import ConfigError
from jaxnmc.numerics import decay

# An input of 2^25 saturates whatever the states add (at most 2^24).
_FULL = 2**25


@struct.dataclass
class RFState:
  """Real and imaginary part, int32[n], 24 bits each."""

  real: jax.Array
  imag: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class RF:
  """Resonate-and-fire neuron with binary spikes.

  Attributes:
    sin_decay: sin in units of 2^-decay_bits, -2^decay_bits to 2^decay_bits.
    cos_decay: cos, likewise.
    vth: threshold before the shift by state_exp, 0 to 131071 and below
      2^23 after it.
    state_exp: shift of inputs and threshold, 0 to 7.
    decay_bits: fraction bits of sin and cos, 1 to 12.

  Raises:
    ConfigError: a parameter is out of its range.
  """

  sin_decay: int
  cos_decay: int
  vth: int = 1
  state_exp: int = 6
  decay_bits: int = 12

  ports: ClassVar[tuple[str, ...]] = ("a_real_in", "a_imag_in")
  sends: ClassVar[int] = 1
  takes: ClassVar[int] = arithmetic.WORD

  def __post_init__(self):
    checks.settle(
      self,
      state_exp=checks.Limit(0, 7, "3 bits"),
      decay_bits=checks.Limit(1, 12, "decays have 12 bits"),
    )
    one = 1 << self.decay_bits
    turn = checks.Limit(-one, one, f"1 is 2^{self.decay_bits}")
    top = min(2**17 - 1, arithmetic.TOP >> self.state_exp)
    checks.settle(
      self,
      sin_decay=turn,
      cos_decay=turn,
      vth=checks.Limit(0, top, f"17 bits, 24 after << {self.state_exp}"),
    )

  @classmethod
  def of(cls, period: float, alpha: float, **parameters):
    """The neuron of a period and a damping.

    Args:
      period: steps of a turn, finite and not 0.
      alpha: share of the state that is lost each step, 0 to 1.
      **parameters: vth, state_exp, decay_bits.

    Returns:
      The neuron; sin and cos are truncated on the host, in float64.

    Raises:
      ConfigError: a period or damping that makes no sense, or as the class.
    """
    if not math.isfinite(period) or period == 0:
      raise ConfigError(
        f"{cls.__name__}: period is {period}; allowed are finite numbers of"
        " steps other than 0"
      )
    if not 0 <= alpha <= 1:
      raise ConfigError(
        f"{cls.__name__}: alpha is {alpha}; allowed are numbers from 0 to 1"
      )
    bits = parameters.get("decay_bits", cls.decay_bits)
    # Checks the rest before it is used to shift.
    cls(sin_decay=0, cos_decay=0, **parameters)
    angle = 2 * math.pi / period
    sin, cos = (
      int((1 - alpha) * f(angle) * (1 << bits)) for f in (math.sin, math.cos)
    )
    return cls(sin_decay=sin, cos_decay=cos, **parameters)

  def init(self, n: int) -> RFState:
    """State of n neurons at rest: zeros."""
    rest = jnp.zeros(checks.width(self, n), jnp.int32)
    return RFState(rest, rest)

  def _turn(self, state: RFState, inputs):
    xr, xi = checks.ports(self, inputs, state.real)
    full = jnp.int32(_FULL >> self.state_exp)
    # What is beyond saturates anyway, so every int32 input is exact.
    xr, xi = (jnp.clip(x, -full, full) << self.state_exp for x in (xr, xi))
    times = lambda f, x: decay.scale(x, f, self.decay_bits)
    sin, cos, re, im = self.sin_decay, self.cos_decay, state.real, state.imag
    real = arithmetic.saturate(times(cos, re) - times(sin, im) + xr)
    imag = arithmetic.saturate(times(sin, re) + times(cos, im) + xi)
    return real, imag

  def step(self, state: RFState, inputs) -> tuple[RFState, jax.Array]:
    """One time step (equations: this file's head).

    Args:
      state: real and imag, int32[n].
      inputs: (xr, xi), int32[n] each, any value.

    Returns:
      (state, s): the spikes, int32[n] of 0 and 1.

    Raises:
      ConfigError: the inputs are not two int32[n].
    """
    real, imag = self._turn(state, inputs)
    high = real >= (self.vth << self.state_exp)
    spikes = high & (imag >= 0) & (state.imag < 0)
    return RFState(real, imag), spikes.astype(jnp.int32)

  def overflows(self, state: RFState, inputs) -> jax.Array:
    """Never: both states saturate and every input is exact.  bool[n]."""
    checks.ports(self, inputs, state.real)
    return jnp.zeros(state.real.shape, bool)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RFIzhikevich(RF):
  """Resonate-and-fire neuron that resets; attributes as in `RF`."""

  def step(self, state: RFState, inputs) -> tuple[RFState, jax.Array]:
    """One time step; arguments as in `RF.step`."""
    real, imag = self._turn(state, inputs)
    vth = self.vth << self.state_exp
    spikes = imag >= vth
    new = RFState(jnp.where(spikes, 0, real), jnp.where(spikes, vth - 1, imag))
    return new, spikes.astype(jnp.int32)
