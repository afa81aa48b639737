"""ST-BIF: a neuron with spikes of both signs and a bounded count.

    v += x
    s = +1 if v >= theta and S < high;  -1 if v < 0 and S > low;  else 0
    S += s     v -= theta s                v(0) = theta / 2, S(0) = 0

Theorem C: once the drive is zero, after at most high - low further ticks the
neuron is silent and

    S = clip(floor(sum x / theta + 1/2), low, high)

because the silent states are exactly 0 <= v < theta, v >= theta with S = high,
and v < 0 with S = low, and each other one moves S by one towards them.  So a
quantised network and its ST-BIF network agree exactly at rest, layer by layer.
(You et al. 2024, "SpikeZIP-TF", arXiv 2406.03470.)

In integers v(0) is theta >> 1, and S = clip(floor((sum x + v(0)) / theta)).
"""

import dataclasses

import jax
from flax import struct
from jax import numpy as jnp

from jaxnmc.errors import ConfigError
from jaxnmc.spike import checks
from jaxnmc.spike.surrogates import ATAN, Surrogate, heaviside

__all__ = ["STBIF", "CountState", "settled"]


@struct.dataclass
class CountState:
  """Potential v and signed count S of spikes so far: shape and dtype of x."""

  v: jax.Array
  count: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class STBIF:
  """Signed spikes with a bounded count (equations: this file's head).

  Attributes:
    low: smallest count, at most 0.
    high: largest count, above low and at least 0.
    threshold: theta, where a step is not given one.
    surrogate: derivative of a spike at either threshold.

  Raises:
    ConfigError: bounds or a threshold that cannot be.
  """

  low: int
  high: int
  threshold: float = 1.0
  surrogate: Surrogate = ATAN

  def __post_init__(self):
    checks.positive("STBIF", "threshold", self.threshold)
    for field in ("low", "high"):
      checks.whole("STBIF", field, getattr(self, field))
    if not self.low <= 0 <= self.high or self.low == self.high:
      raise ConfigError(
        f"STBIF: counts are {self.low} to {self.high}; allowed are low <= 0 <="
        " high with low < high"
      )

  @classmethod
  def levels(cls, level: int, symmetric: bool = False, **fields) -> "STBIF":
    """The neuron of a quantiser with `level` levels.

    Args:
      level: 2 or more; even where symmetric.
      symmetric: counts -level/2 to level/2 - 1, else 0 to level - 1.
      **fields: the others.

    Raises:
      ConfigError: another number of levels.
    """
    checks.whole("STBIF", "level", level, 2)
    if symmetric and level % 2:
      raise ConfigError(
        f"STBIF: level is {level}; allowed are even numbers where symmetric"
      )
    low = -level // 2 if symmetric else 0
    return cls(low=low, high=low + level - 1, **fields)

  @property
  def settle(self) -> int:
    """Ticks without drive after which the neuron is silent at the latest."""
    return self.high - self.low

  def init(self, shape, dtype=jnp.float32, threshold=None) -> CountState:
    """The state before the first tick; arguments as in `Neuron.init`."""
    zero = jnp.zeros(shape, dtype)
    theta = self._theta(threshold, zero)
    whole = jnp.issubdtype(zero.dtype, jnp.integer)
    return CountState(zero + (theta >> 1 if whole else theta / 2), zero)

  def step(
    self, state: CountState, x: jax.Array, threshold=None, unit=None
  ) -> tuple[CountState, jax.Array]:
    """One tick; arguments as in `Neuron.step`, spikes are -1, 0 and 1."""
    theta = self._theta(threshold, x)
    v = state.v + x
    may_rise, may_fall = state.count < self.high, state.count > self.low
    if jnp.issubdtype(x.dtype, jnp.integer):
      up = ((v >= theta) & may_rise).astype(x.dtype)
      s = up - ((v < 0) & may_fall).astype(x.dtype)
    else:
      scaled = lambda u: u if unit is None else u / unit
      up = heaviside(scaled(v - theta), self.surrogate)
      down = heaviside(scaled(-v), self.surrogate, strict=True)
      s = up * may_rise - down * may_fall
    return CountState(v - theta * s, state.count + s), s

  def _theta(self, threshold, like):
    value = self.threshold if threshold is None else threshold
    return checks.threshold("STBIF", value, like)


def settled(neuron: STBIF, total: jax.Array, threshold=None) -> jax.Array:
  """The count at rest after a drive of `total` (Theorem C).

  Args:
    neuron: its bounds and threshold.
    total: float[...] or int32[...], the sum of the drive.
    threshold: in place of the neuron's.

  Returns:
    The shape and dtype of total.
  """
  total = jnp.asarray(total)
  start = neuron.init(total.shape, total.dtype, threshold).v
  theta = neuron._theta(threshold, total)
  if jnp.issubdtype(total.dtype, jnp.integer):
    # (total + start) // theta, where the sum might leave 32 bits.
    whole = total // theta
    count = whole + (total - whole * theta >= theta - start)
  else:
    count = jnp.floor(total / theta + 0.5)
  return jnp.clip(count, neuron.low, neuron.high).astype(total.dtype)
