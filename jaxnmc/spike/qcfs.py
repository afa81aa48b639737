"""QCFS: the activation that an integrate-and-fire neuron computes exactly.

    h_L(z; lambda) = lambda clip(floor(z L / lambda + 1/2) / L, 0, 1)

(Bu et al. 2022, arXiv 2303.04347.)  The neuron is `IF(half=True)`: threshold
lambda, soft reset, first potential lambda / 2, spikes of amplitude lambda.

Theorem A, constant drive x over T ticks, 0 <= v0 < theta:

    N = clip(floor((v0 + T x) / theta), 0, T)

With v0 = theta / 2 the decoded output theta N / T is h_T(x; theta).  Where
T != L the network computes h_T, within lambda (1 / 2T + 1 / 2L) of h_L.

Theorem B, any drive:  theta N = v0 + sum x - v(T), and N is

    clip(floor((v0 + sum x) / theta), 0, T)

just where 0 <= v(T) < theta, or N = 0 and v(T) < 0, or N = T and v(T) >= theta.
Enough for it is 0 <= x <= theta in every tick.  Elsewhere charge came too late
or was spent too early (unevenness).

All of this needs exact arithmetic (integers, or dyadic floats), a threshold
that fires at equality, and a soft reset without a leak.
"""

import jax
from flax import struct
from jax import lax
from jax import numpy as jnp

from jaxnmc.errors import ConfigError
from jaxnmc.numerics.ste import ste
from jaxnmc.spike import checks
from jaxnmc.spike.neurons import IF, State, run

__all__ = [
  "Errors",
  "accumulate_then_fire",
  "conversion_errors",
  "is_even",
  "qcfs",
  "spike_count",
]


def qcfs(z: jax.Array, threshold, levels: int) -> jax.Array:
  """h_L(z; lambda), the quantised and clipped rectifier.

  The gradient goes straight through the floor: 1 to z inside [0, lambda], and
  (h - z) / lambda to lambda; 0 and 1 above; 0 and 0 below.

  Args:
    z: float[...].
    threshold: lambda, a number or float array that broadcasts against z (one
      per channel: the last axis).
    levels: L, from 1.

  Returns:
    Shape and dtype of z, one of the L + 1 values of each channel.

  Raises:
    ConfigError: levels below 1, or a threshold that cannot be one.
  """
  levels = checks.ticks("qcfs", levels)
  checks.positive("qcfs", "threshold", threshold)
  lam = jnp.asarray(threshold, z.dtype)
  h = lam * jnp.clip(jnp.floor(z * levels / lam + 0.5) / levels, 0, 1)
  # h, with the slope that it has on average.
  inside = z + lam * lax.stop_gradient((h - z) / lam)
  slope = jnp.where(z < 0, 0 * z, jnp.where(z > lam, lam, inside))
  return ste(h, slope)


def spike_count(x: jax.Array, ticks: int, threshold, start=None) -> jax.Array:
  """Spikes of a neuron under a constant drive (Theorem A).

  Args:
    x: float[...] or int32[...], the drive of each tick; for integers T |x| +
      theta stays below 2^31.
    ticks: T.
    threshold: theta.
    start: v0, 0 <= v0 < theta; theta / 2 (integers: theta >> 1) if None.

  Returns:
    Counts 0 to T, shape and dtype of x.

  Raises:
    ConfigError: ticks below 1 or a threshold that cannot be one.
  """
  ticks = checks.ticks("spike_count", ticks)
  theta = checks.threshold("spike_count", threshold, x)
  whole = jnp.issubdtype(x.dtype, jnp.integer)
  if start is None:
    start = theta >> 1 if whole else theta / 2
  charge = start + ticks * x
  count = charge // theta if whole else jnp.floor(charge / theta)
  return jnp.clip(count, 0, ticks).astype(x.dtype)


def is_even(v: jax.Array, count: jax.Array, ticks: int, threshold) -> jax.Array:
  """Whether a count is that of the summed drive (Theorem B).

  Args:
    v: the last potential.
    count: spikes so far.
    ticks: T.
    threshold: theta.

  Returns:
    bool[...]; False where the drive came unevenly.
  """
  settled = (v >= 0) & (v < threshold)
  empty = (count == 0) & (v < 0)
  full = (count == ticks) & (v >= threshold)
  return settled | empty | full


def accumulate_then_fire(
  x: jax.Array, threshold=None, *, neuron: IF | None = None, charge=None
) -> jax.Array:
  """Takes T ticks in silence, then fires for T: no unevenness is left.

  The count is clip(floor((v0 + sum x) / theta), 0, T) for any drive, as the
  whole charge is there when the first spike may come.  A layer is T ticks
  later than one that fires at once.

  Args:
    x: float[T, ...] or int32[T, ...], the drives.
    threshold: theta; the neuron's own if None.
    neuron: `IF(half=True)` if None.
    charge: as in `neurons.run`.

  Returns:
    Spikes [T, ...] of the second T ticks.

  Raises:
    ConfigError: a neuron with a hard reset, or what `neurons.run` refuses.
  """
  neuron = IF(half=True) if neuron is None else neuron
  if not isinstance(neuron, IF) or neuron.reset != "soft":
    raise ConfigError(
      "accumulate_then_fire: the neuron is"
      f" {type(neuron).__name__} with reset={getattr(neuron, 'reset', None)!r};"
      " allowed is IF with reset='soft', which keeps what is left over"
    )
  x = checks.drive("accumulate_then_fire", x)
  start = neuron.init(x.shape[1:], x.dtype, threshold)
  if x.dtype == jnp.int32:
    checks.charge(neuron, x, start, charge)
  full = State(start.v + x.sum(0))
  return run(neuron, jnp.zeros_like(x), full, threshold, charge=charge)[1]


@struct.dataclass
class Errors:
  """What a converted neuron gets wrong, element by element.

  Attributes:
    clipping: clip(m, 0, theta) - max(m, 0), for the mean drive m.
    quantisation: h_T(m) - clip(m, 0, theta).
    unevenness: theta N / T - h_T(m).
  """

  clipping: jax.Array
  quantisation: jax.Array
  unevenness: jax.Array

  @property
  def total(self) -> jax.Array:
    """theta N / T - max(m, 0), the sum of the three."""
    return self.clipping + self.quantisation + self.unevenness

  def mean_squares(self) -> dict[str, jax.Array]:
    """Each error's mean square, and that of the total; squared units of m."""
    parts = {
      "clipping": self.clipping,
      "quantisation": self.quantisation,
      "unevenness": self.unevenness,
      "total": self.total,
    }
    return {name: jnp.mean(jnp.square(e)) for name, e in parts.items()}


def conversion_errors(
  mean: jax.Array, count: jax.Array, ticks: int, threshold
) -> Errors:
  """Splits the error of a converted rectifier in its three causes.

  Args:
    mean: float[...], the drive's mean over the ticks.
    count: [...], spikes that the neuron sent.
    ticks: T.
    threshold: theta, in units of the drive.

  Returns:
    The errors, in units of the drive.  With an even drive over (0, theta)
    quantisation has the mean square theta^2 / (12 T^2).

  Raises:
    ConfigError: as `qcfs`.
  """
  rectified = jnp.maximum(mean, 0)
  clipped = jnp.minimum(rectified, threshold)
  quantised = qcfs(mean, threshold, ticks)
  sent = threshold * count.astype(mean.dtype) / ticks
  return Errors(clipped - rectified, quantised - clipped, sent - quantised)
