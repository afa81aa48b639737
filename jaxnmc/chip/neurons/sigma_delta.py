"""Delta and sigma-delta neurons: messages are changes, sent when large.

With S = spike_exp + state_exp and th = vth << S:

    Delta:       a = x << S
    SigmaDelta:  sigma += a_in;  a = relu(sigma + (bias << S))
    both:        d = a - act + res
      cum_error: err += d;  o = d if |err| >= th else 0;  err = 0 where o != 0
      without:   o = d if |d| >= th else 0
                 res = d - o;  act = a;  send o >> state_exp (floor)

The residue is what is still to be told.  Source: the rules of lava-nc 0.10.0's
fixed-point models, as docs/neurons.md restates them.
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

# Up to it no sum of a step leaves int32: d is at most twice 2^29 + 2^23, and
# th twice, 2^24.
LARGEST_STATE = 2**28

_EXP = checks.Limit(0, 7, "3 bits")
_ACTIVATIONS = ("relu", "unit")


@struct.dataclass
class DeltaState:
  """Last value, untold rest, accumulated error: int32[n] each."""

  act: jax.Array
  residue: jax.Array
  error: jax.Array


@struct.dataclass
class SigmaDeltaState:
  """Sum of all inputs, then as `DeltaState`: int32[n] each."""

  sigma: jax.Array
  act: jax.Array
  residue: jax.Array
  error: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Encoder:
  """What both send, and when."""

  vth: int
  cum_error: bool = False
  spike_exp: int = 0
  state_exp: int = 0

  ports: ClassVar[tuple[str, ...]] = ("a_in",)

  def __post_init__(self):
    checks.flag(self, "cum_error")
    checks.settle(self, spike_exp=_EXP, state_exp=_EXP)
    high = arithmetic.TOP >> self.shift
    checks.settle(
      self, vth=checks.Limit(0, high, f"24 bits after << {self.shift}")
    )

  @property
  def shift(self) -> int:
    """S of the equations."""
    return self.spike_exp + self.state_exp

  def _tell(self, act: jax.Array, old) -> tuple[DeltaState, jax.Array]:
    """From the new value and the old state: (new `DeltaState`, message)."""
    d = act - old.act + old.residue
    error = old.error + d if self.cum_error else d
    told = jnp.where(arithmetic.reaches(error, self.vth << self.shift), d, 0)
    if self.cum_error:
      error = jnp.where(told != 0, 0, error)
    else:
      error = old.error
    return DeltaState(act, d - told, error), told >> self.state_exp


@dataclasses.dataclass(frozen=True, kw_only=True)
class Delta(_Encoder):
  """Sends changes of its input.

  Attributes:
    vth: threshold before the shift by S, from 0; below 2^23 after it.
    cum_error: whether the accumulated error is compared instead of d.
    spike_exp: fraction bits of a message, 0 to 7.
    state_exp: further fraction bits of the state, 0 to 7.

  Raises:
    ConfigError: a parameter is out of its range.
  """

  def init(self, n: int) -> DeltaState:
    """State of n neurons: zeros."""
    rest = jnp.zeros(checks.width(self, n), jnp.int32)
    return DeltaState(rest, rest, rest)

  def step(self, state: DeltaState, inputs) -> tuple[DeltaState, jax.Array]:
    """One time step (equations: this file's head).

    Args:
      state: int32[n] each.
      inputs: (x,), int32[n], |x| <= 2^28 >> S.

    Returns:
      (state, message int32[n]).

    Raises:
      ConfigError: the input is not (int32[n],).
    """
    (x,) = checks.ports(self, inputs, state.act)
    return self._tell(x << self.shift, state)

  def overflows(self, state: DeltaState, inputs) -> jax.Array:
    """True where a step would leave the range in which it is exact: bool[n].

    That is |x| > 2^28 >> S.
    """
    (x,) = checks.ports(self, inputs, state.act)
    return arithmetic.outside(x, LARGEST_STATE >> self.shift)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SigmaDelta(_Encoder):
  """Adds up changes, activates, sends changes of the result.

  Attributes:
    vth: as in `Delta`.
    cum_error: as in `Delta`.
    spike_exp: as in `Delta`.
    state_exp: as in `Delta`.
    bias: added to the sum after << S; one, or one per neuron; 16 bits with
      sign, below 2^23 after the shift.
    activation: "relu" or "unit" (the sum itself; no recorded output pins it).

  Raises:
    ConfigError: a parameter is out of its range.
  """

  bias: int | tuple[int, ...] = 0
  activation: str = "relu"

  def __post_init__(self):
    super().__post_init__()
    high = min(2**15 - 1, arithmetic.TOP >> self.shift)
    why = f"16 bits with sign, 24 after << {self.shift}"
    checks.settle(self, bias=checks.Limit(-high, high, why, each=True))
    if self.activation not in _ACTIVATIONS:
      raise ConfigError(
        f"SigmaDelta: activation is {self.activation!r}; allowed are"
        f" {' and '.join(_ACTIVATIONS)}"
      )

  @functools.cached_property
  def _shifted(self) -> np.ndarray:
    return np.asarray(self.bias, np.int32) << self.shift

  def init(self, n: int) -> SigmaDeltaState:
    """State of n neurons: zeros.

    Raises:
      ConfigError: n is no population, or not the length of a list.
    """
    rest = jnp.zeros(checks.width(self, n, "bias"), jnp.int32)
    return SigmaDeltaState(rest, rest, rest, rest)

  def step(
    self, state: SigmaDeltaState, inputs
  ) -> tuple[SigmaDeltaState, jax.Array]:
    """One time step.

    Args:
      state: int32[n] each; |sigma| <= 2^28.
      inputs: (a_in,), int32[n], |a_in| <= 2^28.

    Returns:
      (state, message int32[n]).

    Raises:
      ConfigError: the input is not (int32[n],).
    """
    (a,) = checks.ports(self, inputs, state.sigma)
    sigma = state.sigma + a
    act = sigma + jnp.asarray(self._shifted)
    if self.activation == "relu":
      act = jnp.maximum(act, 0)
    new, sent = self._tell(act, state)
    return SigmaDeltaState(sigma, new.act, new.residue, new.error), sent

  def overflows(self, state: SigmaDeltaState, inputs) -> jax.Array:
    """True where a step would leave the range in which it is exact: bool[n].

    That is |sigma| or |a_in| above 2^28.
    """
    (a,) = checks.ports(self, inputs, state.sigma)
    large = lambda x: arithmetic.outside(x, LARGEST_STATE)
    return large(a) | large(state.sigma)
