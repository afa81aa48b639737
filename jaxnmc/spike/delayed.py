"""snnTorch's leaky neuron, whose reset comes one tick late.

    R = 1[v > theta]                          the spike of the tick before
    subtract   h = beta v + x - theta R
    zero       h = beta (1 - R) v + x
    s = 1[h > theta]
    v = h                                     delay (its default)
    v = h - (s - R) theta   or   h - (s - R) h       no delay: subtract, zero

The comparison is strict, and what is read back as the membrane is h, before
its reset.  Without delay the factor s - R is -1 where R = 1 and s = 0: charge
is added back.  A network that was trained with it needs just these rules; for
anything new take `neurons`.
"""

import dataclasses

import jax
from jax import lax
from jax import numpy as jnp

from jaxnmc.errors import ConfigError
from jaxnmc.spike import checks
from jaxnmc.spike.neurons import State
from jaxnmc.spike.surrogates import ATAN, Surrogate, heaviside

__all__ = ["DelayedLIF"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DelayedLIF:
  """snnTorch's `Leaky` (equations: this file's head); floats only.

  Attributes:
    beta: what is kept of the potential, 0 to 1.
    threshold: theta.
    reset: "subtract" or "zero".
    delay: reset by the spike of the tick before, only.
    surrogate: derivative of a spike.  No gradient goes through R.

  Raises:
    ConfigError: a value that is not allowed.
  """

  beta: float
  threshold: float = 1.0
  reset: str = "subtract"
  delay: bool = True
  surrogate: Surrogate = ATAN

  def __post_init__(self):
    checks.positive("DelayedLIF", "threshold", self.threshold)
    if not 0 <= self.beta <= 1:
      raise ConfigError(
        f"DelayedLIF: beta is {self.beta!r}; allowed are numbers from 0 to 1"
      )
    if self.reset not in ("subtract", "zero"):
      raise ConfigError(
        f"DelayedLIF: reset is {self.reset!r}; allowed are 'subtract' and"
        " 'zero'"
      )

  def init(self, shape, dtype=jnp.float32, threshold=None) -> State:
    """Potentials of 0."""
    return State(jnp.zeros(shape, dtype))

  def step(
    self, state: State, x: jax.Array, threshold=None, unit=None
  ) -> tuple[State, jax.Array]:
    """One tick; arguments as in `Neuron.step`, for float[...] only.

    Raises:
      ConfigError: integers.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
      raise ConfigError(
        f"DelayedLIF: the drive is {x.dtype}; allowed are floats (IF and LIF"
        " take integers)"
      )
    value = self.threshold if threshold is None else threshold
    theta = checks.threshold("DelayedLIF", value, x)
    fire = lambda h: heaviside(
      h - theta if unit is None else (h - theta) / unit,
      *(self.surrogate, True),
    )
    before = lax.stop_gradient(fire(state.v))
    if self.reset == "subtract":
      h = self.beta * state.v + x - before * theta
    else:
      h = self.beta * ((1 - before) * state.v) + x
    s = fire(h)
    if not self.delay:
      gone = s - before
      h = h - gone * (theta if self.reset == "subtract" else h)
    return State(h), s
