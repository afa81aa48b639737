"""Leaky integrate-and-fire: LIF, ternary LIF, LIF with a periodic reset.

One step, tz(x, k) = sign(x) (|x| >> k), other shifts floor:

    b = bias_mant << bias_exp           (bias_exp < 0: bias_mant >> -bias_exp)
    w = tz(u (4096 - (du + 1)), 12) + (a_in << 6)
    u = w - 2^24 if w > 2^23;  w + 2^24 if w <= -2^23;  else w
    v = clip(tz(v (4096 - dv), 12) + u + b, -2^23 + 1, 2^23 - 1)
    s = v > (vth << 6);  v = 0 where s

The current u decays, takes the input and wraps (once); the voltage v decays,
takes current and bias and saturates.  The + 1 on du is a register of Loihi 1
(`ds_offset`); du = 4095 clears the current each step, dv = 4095 leaves 1/4096
of the voltage.  States and thresholds are numbers without a unit, time is in
steps.

Source: the rules of lava-nc 0.10.0's bit-accurate models, as
docs/neurons.md restates them.
"""

import dataclasses
import functools
from typing import ClassVar

import jax
import numpy as np
from flax import struct
from jax import numpy as jnp

from jaxnmc.chip.neurons import arithmetic, checks
from jaxnmc.errors import ConfigError
from jaxnmc.numerics import decay

DECAY_BITS = 12
ALIGN = 6  # input and threshold are aligned to the states by 6 bits
# With it one wrap always brings the current back: 2^23 + 2^18 2^6 - 2^24.
LARGEST_INPUT = 2**18

_DECAY = checks.Limit(0, 4095, "12 bits")
_VTH = 2**17 - 1


@struct.dataclass
class LIFState:
  """Current u and voltage v, int32[n], 24 bits each."""

  u: jax.Array
  v: jax.Array


@struct.dataclass
class LIFResetState:
  """Current, voltage, and the step number modulo the interval: int32[n]."""

  u: jax.Array
  v: jax.Array
  phase: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Leaky:
  """What the three kinds share: parameters, leak, bias."""

  du: int = 0
  dv: int = 0
  bias_mant: int | tuple[int, ...] = 0
  bias_exp: int | tuple[int, ...] = 0

  ports: ClassVar[tuple[str, ...]] = ("a_in",)
  sends: ClassVar[int] = 1
  takes: ClassVar[int] = LARGEST_INPUT

  def __post_init__(self):
    checks.settle(
      self,
      du=_DECAY,
      dv=_DECAY,
      bias_mant=checks.Limit(-4096, 4095, "13 bits with sign", each=True),
      bias_exp=checks.Limit(
        -12, 7, "3 bits; below 0 it shifts the 13 bits right", each=True
      ),
    )
    mant, exp = self.bias_mant, self.bias_exp
    if isinstance(mant, tuple) and isinstance(exp, tuple):
      if len(mant) != len(exp):
        raise ConfigError(
          f"{checks.name_of(self)}: bias_mant has {len(mant)} values,"
          f" bias_exp {len(exp)}; allowed are as many of both"
        )

  @functools.cached_property
  def bias(self) -> np.ndarray:
    """b of the equations, int32[] or int32[n]; |b| <= 2^19."""
    mant, exp = np.broadcast_arrays(
      np.asarray(self.bias_mant, np.int32), np.asarray(self.bias_exp, np.int32)
    )
    return (mant << np.maximum(exp, 0)) >> np.maximum(-exp, 0)

  def _rest(self, n: int) -> jax.Array:
    n = checks.width(self, n, "bias_mant", "bias_exp")
    return jnp.zeros(n, jnp.int32)

  def _integrate(self, u, v, a):
    """New current, and voltage before the reset."""
    one = 1 << DECAY_BITS
    u = decay.scale(u, one - (self.du + 1), DECAY_BITS) + (a << ALIGN)
    u = arithmetic.wrap_once(u)
    v = decay.scale(v, one - self.dv, DECAY_BITS)
    return u, arithmetic.saturate(v + u + jnp.asarray(self.bias))

  def overflows(self, state, inputs) -> jax.Array:
    """True where a step would leave the range in which it is exact: bool[n].

    That is |a_in| > 2^18: one wrap may then not be enough, and a current
    that grows out of 24 bits leaves int32 in the end.  Otherwise |u| <= 2^23.
    """
    (a,) = checks.ports(self, inputs, state.u)
    return arithmetic.outside(a, LARGEST_INPUT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Binary(_Leaky):
  """One threshold."""

  vth: int = 10

  def __post_init__(self):
    super().__post_init__()
    checks.settle(self, vth=checks.Limit(0, _VTH, "17 bits without sign"))

  def _fire(self, u, v, a):
    """New current, voltage after the reset, spikes."""
    u, v = self._integrate(u, v, a)
    spikes = v > (self.vth << ALIGN)
    return u, jnp.where(spikes, 0, v), spikes.astype(jnp.int32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LIF(_Binary):
  """Leaky integrate-and-fire neuron with binary spikes.

  Attributes:
    du: decay of the current, 0 to 4095 (4095: nothing is kept).
    dv: decay of the voltage, 0 to 4095.
    bias_mant: mantissa of the bias, -4096 to 4095; one, or one per neuron.
    bias_exp: its exponent, -12 to 7; one, or one per neuron.
    vth: threshold before the shift by 6, 0 to 131071.

  Raises:
    ConfigError: a parameter is out of its range, or lists differ in length.
  """

  def init(self, n: int) -> LIFState:
    """State of n neurons at rest: zeros.

    Raises:
      ConfigError: n is no population, or not the length of a list.
    """
    rest = self._rest(n)
    return LIFState(rest, rest)

  def step(self, state: LIFState, inputs) -> tuple[LIFState, jax.Array]:
    """One time step (equations: this file's head).

    Args:
      state: u and v, int32[n].
      inputs: (a_in,), int32[n], |a_in| <= 2^18.

    Returns:
      (state, s): the spikes, int32[n] of 0 and 1.

    Raises:
      ConfigError: the input is not (int32[n],).
    """
    (a,) = checks.ports(self, inputs, state.u)
    u, v, spikes = self._fire(state.u, state.v, a)
    return LIFState(u, v), spikes


@dataclasses.dataclass(frozen=True, kw_only=True)
class TernaryLIF(_Leaky):
  """LIF with two thresholds and spikes of both signs.

    s = +1 if v > (vth_hi << 6);  -1 if v < (vth_lo << 6);  v = 0 where s != 0

  Attributes:
    du: as in `LIF`.
    dv: as in `LIF`.
    bias_mant: as in `LIF` (the reference outputs have no bias here).
    bias_exp: as in `LIF`.
    vth_hi: upper threshold before the shift, -131071 to 131071.
    vth_lo: lower threshold, at most vth_hi.

  Raises:
    ConfigError: a parameter is out of its range, or vth_lo > vth_hi.
  """

  vth_hi: int = 10
  vth_lo: int = -10

  def __post_init__(self):
    super().__post_init__()
    limit = checks.Limit(-_VTH, _VTH, "17 bits and a sign")
    checks.settle(self, vth_hi=limit, vth_lo=limit)
    if self.vth_lo > self.vth_hi:
      raise ConfigError(
        f"TernaryLIF: vth_lo is {self.vth_lo}; allowed is at most vth_hi ="
        f" {self.vth_hi}"
      )

  def init(self, n: int) -> LIFState:
    """State of n neurons at rest: zeros."""
    rest = self._rest(n)
    return LIFState(rest, rest)

  def step(self, state: LIFState, inputs) -> tuple[LIFState, jax.Array]:
    """One time step; arguments as in `LIF.step`, spikes are -1, 0 and 1."""
    (a,) = checks.ports(self, inputs, state.u)
    u, v = self._integrate(state.u, state.v, a)
    up = (v > (self.vth_hi << ALIGN)).astype(jnp.int32)
    down = (v < (self.vth_lo << ALIGN)).astype(jnp.int32)
    spikes = up - down
    return LIFState(u, jnp.where(spikes != 0, 0, v)), spikes


@dataclasses.dataclass(frozen=True, kw_only=True)
class LIFReset(_Binary):
  """LIF whose states go to zero at regular steps.

    u = v = 0 before the update if t mod interval == offset mod interval

  with t = 1 in the first step.  This follows the documented behaviour of
  Lava's process of that name; no recorded output pins it, only the rule
  written again in the tests.

  Attributes:
    du: as in `LIF`.
    dv: as in `LIF`.
    bias_mant: as in `LIF`.
    bias_exp: as in `LIF`.
    vth: as in `LIF`.
    reset_interval: steps from one reset to the next, from 1.
    reset_offset: phase of the reset, from 0.

  Raises:
    ConfigError: a parameter is out of its range.
  """

  reset_interval: int = 1
  reset_offset: int = 0

  def __post_init__(self):
    super().__post_init__()
    word = "an int32 word of state"
    checks.settle(
      self,
      reset_interval=checks.Limit(1, arithmetic.WORD, word),
      reset_offset=checks.Limit(0, arithmetic.WORD, word),
    )

  def init(self, n: int) -> LIFResetState:
    """State of n neurons before step 1."""
    rest = self._rest(n)
    return LIFResetState(rest, rest, rest + 1 % self.reset_interval)

  def step(
    self, state: LIFResetState, inputs
  ) -> tuple[LIFResetState, jax.Array]:
    """One time step; arguments as in `LIF.step`."""
    (a,) = checks.ports(self, inputs, state.u)
    # A counter that starts again, as the chip has no division.
    clear = state.phase == self.reset_offset % self.reset_interval
    u, v = (jnp.where(clear, 0, x) for x in (state.u, state.v))
    u, v, spikes = self._fire(u, v, a)
    last = state.phase == self.reset_interval - 1
    phase = jnp.where(last, 0, state.phase + 1)
    return LIFResetState(u, v, phase), spikes
