"""Integrate-and-fire neurons, leaky or not, in floats or in integers.

Time comes first: drives x[T, ...] are what the weights gave in each tick.  In
one tick, with potential v, threshold theta and rest r (the value of a hard
reset, else 0):

    charge   IF                        h = v + x
             LIF, input decayed        h = v + (x - (v - r)) / tau
             LIF, input not decayed    h = r + (1 - 1/tau) (v - r) + x
    fire     s = 1[h >= theta]         (strict: h > theta)
    reset    soft   v = h - theta s
             hard   v = (1 - s) h + s r

With beta = 1 - 1/tau the last kind of charge is the beta form, beta v + x.  A
soft reset keeps the charge that is left over, which is what makes a neuron
equal to a quantiser (`qcfs`); a hard one loses it.

Integers: int32 drives and whole thresholds give int32 potentials, and no float
is anywhere.  There, 1/tau is d / 4096 with d = floor(4096 / tau + 1/2), and
tz(x) = sign(x) (|x| >> 12), as on Loihi:

    LIF, input decayed        h = v + tz((x - (v - r)) d)
    LIF, input not decayed    h = r + tz((v - r) (4096 - d)) + x
"""

import abc
import dataclasses
import math

import jax
from flax import struct
from jax import lax
from jax import numpy as jnp

from jaxnmc.errors import ConfigError
from jaxnmc.numerics import decay
from jaxnmc.spike import checks
from jaxnmc.spike.surrogates import ATAN, Surrogate, heaviside

__all__ = ["IF", "LIF", "Neuron", "State", "constant", "run", "trace"]

DECAY_BITS = 12


@struct.dataclass
class State:
  """Potential v of a population, float[...] or int32[...]."""

  v: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Neuron(abc.ABC):
  """What IF and LIF share.

  Attributes:
    threshold: theta, where a step is not given one.
    reset: "soft" (subtract theta) or "hard" (go to v_reset).
    v_reset: r, for hard resets only.
    half: the first potential is theta / 2 above rest (integers: theta >> 1),
      so that counts round where they would be cut; for converted networks.
    strict: fire above the threshold, not at it.
    detach: no gradient through the spike of the reset.
    surrogate: derivative of a spike.

  Raises:
    ConfigError: a threshold that is zero, negative or not finite, an unknown
      reset, or a soft one with a v_reset.
  """

  threshold: float = 1.0
  reset: str = "soft"
  v_reset: float = 0.0
  half: bool = False
  strict: bool = False
  detach: bool = True
  surrogate: Surrogate = ATAN

  def __post_init__(self):
    name = type(self).__name__
    checks.positive(name, "threshold", self.threshold)
    checks.finite(name, "v_reset", self.v_reset)
    if self.reset not in ("soft", "hard"):
      raise ConfigError(
        f"{name}: reset is {self.reset!r}; allowed are 'soft' and 'hard'"
      )
    if self.reset == "soft" and self.v_reset != 0:
      raise ConfigError(
        f"{name}: v_reset is {self.v_reset} with reset='soft', which subtracts"
        " the threshold; leave it 0 or use reset='hard'"
      )

  def init(self, shape, dtype=jnp.float32, threshold=None) -> State:
    """The state before the first tick.

    Args:
      shape: of the population.
      dtype: float, or int32.
      threshold: as in `step`; only `half` reads it.

    Raises:
      ConfigError: a threshold that cannot be one.
    """
    rest = jnp.full(shape, self._rest(dtype), dtype)
    if not self.half:
      return State(rest)
    theta = self._theta(threshold, rest)
    whole = jnp.issubdtype(rest.dtype, jnp.integer)
    return State(rest + (theta >> 1 if whole else theta / 2))

  def step(
    self, state: State, x: jax.Array, threshold=None, unit=None
  ) -> tuple[State, jax.Array]:
    """One tick (equations: this file's head).

    Args:
      state: potentials of the shape and dtype of x.
      x: float[...] or int32[...], the drive of this tick.
      threshold: theta > 0 in its place, a number or an array that broadcasts
        against x; may be traced and has a gradient.
      unit: what the surrogate takes for a distance of 1 from the threshold, a
        positive number or array; 1 if None.  The spikes do not depend on it.

    Returns:
      (state, s): spikes 0 and 1, shape and dtype of x.

    Raises:
      ConfigError: a threshold that is no threshold, or not whole for integers.
    """
    theta = self._theta(threshold, x)
    h = self._charge(state.v, x)
    if jnp.issubdtype(x.dtype, jnp.integer):
      # Compared, not subtracted: the difference may leave 32 bits.
      fired = h > theta if self.strict else h >= theta
      reset = h - theta if self.reset == "soft" else self._rest(x.dtype)
      return State(jnp.where(fired, reset, h)), fired.astype(x.dtype)
    u = h - theta if unit is None else (h - theta) / unit
    s = heaviside(u, self.surrogate, self.strict)
    gone = lax.stop_gradient(s) if self.detach else s
    if self.reset == "soft":
      return State(h - theta * gone), s
    return State((1 - gone) * h + gone * self.v_reset), s

  @abc.abstractmethod
  def _charge(self, v: jax.Array, x: jax.Array) -> jax.Array:
    """h, the potential after the drive."""

  def _theta(self, threshold, like: jax.Array) -> jax.Array:
    value = self.threshold if threshold is None else threshold
    return checks.threshold(type(self).__name__, value, like)

  def _rest(self, dtype):
    """r in the type of the potentials."""
    if jnp.issubdtype(dtype, jnp.floating):
      return self.v_reset
    if self.v_reset != int(self.v_reset):
      raise ConfigError(
        f"{type(self).__name__}: v_reset is {self.v_reset}, the potentials"
        f" are {jnp.dtype(dtype)}; give a whole number"
      )
    return int(self.v_reset)


@dataclasses.dataclass(frozen=True, kw_only=True)
class IF(Neuron):
  """Integrate-and-fire: h = v + x.  Attributes are those of `Neuron`."""

  def _charge(self, v, x):
    return v + x


@dataclasses.dataclass(frozen=True, kw_only=True)
class LIF(Neuron):
  """Leaky integrate-and-fire.

  Attributes:
    tau: time constant in ticks, 1 or more (1 keeps nothing).
    decay_input: the drive is divided by tau, too, as SpikingJelly's default
      has it; the others (beta form) add it whole.

  Raises:
    ConfigError: as `Neuron`; tau below 1 or not finite.
  """

  tau: float = 2.0
  decay_input: bool = True

  def __post_init__(self):
    super().__post_init__()
    if not (math.isfinite(self.tau) and self.tau >= 1):
      raise ConfigError(
        f"LIF: tau is {self.tau!r}; allowed are finite numbers from 1 (IF has"
        " no leak)"
      )

  @classmethod
  def of_beta(cls, beta: float, **fields) -> "LIF":
    """h = beta v + x, with 0 <= beta < 1: tau is 1 / (1 - beta).

    Raises:
      ConfigError: another beta.
    """
    if not 0 <= beta < 1:
      raise ConfigError(
        f"LIF: beta is {beta!r}; allowed are numbers from 0 to below 1 (IF has"
        " beta 1)"
      )
    return cls(tau=1 / (1 - beta), decay_input=False, **fields)

  def _charge(self, v, x):
    rest = self._rest(x.dtype)
    if jnp.issubdtype(x.dtype, jnp.integer):
      one = 1 << DECAY_BITS
      d = math.floor(one / self.tau + 0.5)
      if self.decay_input:
        return v + decay.scale(x - (v - rest), d, DECAY_BITS)
      return rest + decay.scale(v - rest, one - d, DECAY_BITS) + x
    if self.decay_input:
      return v + (x - (v - rest)) / self.tau
    return rest + (1 - 1 / self.tau) * (v - rest) + x


def constant(x: jax.Array, ticks: int) -> jax.Array:
  """The same drive in every tick: [ticks, *shape of x].

  Raises:
    ConfigError: ticks is not a whole number of 1 or more.
  """
  x = jnp.asarray(x)
  return jnp.broadcast_to(x, (checks.ticks("constant", ticks), *x.shape))


def trace(
  neuron, x: jax.Array, state=None, threshold=None, *, unit=None, charge=None
):
  """Runs a neuron over the leading axis and keeps every state.

  Args:
    neuron: with `init` and `step` as `Neuron` has them.
    x: float[T, ...] or int32[T, ...], the drives; T >= 1.
    state: from an earlier call; `neuron.init` if None.
    threshold: as in `Neuron.step`, the same in every tick.
    unit: as in `Neuron.step`.
    charge: for integers that are traced, a static bound of |v(0)| plus the sum
      over ticks of |x|.

  Returns:
    (state, s, states): the last state, spikes [T, ...], and the state after
    each tick, with a leading axis T.

  Raises:
    ConfigError: no ticks, a threshold that is no threshold, or integers that
      nothing bounds.
    FormatError: the potential could leave 32 bits.
  """
  owner = type(neuron).__name__
  x = checks.drive(owner, x)
  if state is None:
    state = neuron.init(x.shape[1:], x.dtype, threshold)
  if x.dtype == jnp.int32:
    checks.charge(neuron, x, state, charge)

  def body(state, x):
    state, s = neuron.step(state, x, threshold, unit)
    return state, (s, state)

  state, (spikes, states) = lax.scan(body, state, x)
  return state, spikes, states


def run(
  neuron, x: jax.Array, state=None, threshold=None, *, unit=None, charge=None
):
  """Runs a neuron over the leading axis: (last state, spikes [T, ...]).

  Arguments and errors are those of `trace`.
  """
  state, spikes, _ = trace(
    neuron, x, state, threshold, unit=unit, charge=charge
  )
  return state, spikes
