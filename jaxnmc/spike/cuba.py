"""A leaky neuron with a current (CUBA), in SLAYER's fixed point.

    u = tz(u (4096 - du), 12) + 2^6 x
    v = tz(v (4096 - dv), 12) + u
    s = 1[v >= theta]        v = 0 where s

tz(x, k) = sign(x) (|x| >> k) is the shift toward zero.  Weights are in units
of 2^-6 and states of 2^-12, decays of 2^-12.  In floats nothing is cut, and
otherwise the rules are the same.  The chip's own neuron
(`jaxnmc.chip.neurons.LIF`) has limits of width besides.
"""

import dataclasses

import jax
from flax import struct
from jax import lax
from jax import numpy as jnp

from jaxnmc.numerics import decay
from jaxnmc.spike import checks
from jaxnmc.spike.neurons import DECAY_BITS
from jaxnmc.spike.surrogates import ATAN, Surrogate, heaviside

__all__ = ["CubaLIF", "CubaState"]

ALIGN = 6


@struct.dataclass
class CubaState:
  """Current u and potential v, float[...] or int32[...]."""

  u: jax.Array
  v: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class CubaLIF:
  """Current-based LIF (equations: this file's head).

  Attributes:
    du: decay of the current in 1/4096, 0 to 4096 (4096: none is kept).
    dv: decay of the potential, likewise.
    threshold: theta, where a step is not given one.
    detach: no gradient through the spike of the reset.
    surrogate: derivative of a spike.

  Raises:
    ConfigError: a decay or threshold that cannot be.
  """

  du: int
  dv: int
  threshold: float = 1.0
  detach: bool = True
  surrogate: Surrogate = ATAN

  def __post_init__(self):
    checks.positive("CubaLIF", "threshold", self.threshold)
    for field in ("du", "dv"):
      checks.whole("CubaLIF", field, getattr(self, field), 0, 1 << DECAY_BITS)

  def init(self, shape, dtype=jnp.float32, threshold=None) -> CubaState:
    """Current and potential of 0."""
    zero = jnp.zeros(shape, dtype)
    return CubaState(zero, zero)

  def step(
    self, state: CubaState, x: jax.Array, threshold=None, unit=None
  ) -> tuple[CubaState, jax.Array]:
    """One tick; arguments as in `Neuron.step`."""
    value = self.threshold if threshold is None else threshold
    theta = checks.threshold("CubaLIF", value, x)
    one = 1 << DECAY_BITS
    if jnp.issubdtype(x.dtype, jnp.integer):
      left = lambda x, d: decay.scale(x, one - int(d), DECAY_BITS)
      u = left(state.u, self.du) + (x << ALIGN)
      v = left(state.v, self.dv) + u
      s = v >= theta
      return CubaState(u, jnp.where(s, 0, v)), s.astype(x.dtype)
    u = (1 - self.du / one) * state.u + (1 << ALIGN) * x
    v = (1 - self.dv / one) * state.v + u
    s = heaviside(
      v - theta if unit is None else (v - theta) / unit, self.surrogate
    )
    gone = lax.stop_gradient(s) if self.detach else s
    return CubaState(u, (1 - gone) * v), s

  def reach(self, charge: int, ticks: int) -> int:
    """A bound of |u| and |v| in integers.

    Args:
      charge: bound of the first |u| + |v| plus the sum of |x| over the ticks.
      ticks: number of ticks.
    """
    # What comes in stays in u for 4096 / du ticks' worth, and each adds to v.
    lasts = -(-(1 << DECAY_BITS) // self.du) if self.du else ticks
    return (charge << ALIGN) * min(ticks, lasts)
