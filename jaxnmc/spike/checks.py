"""Thresholds, drives and numbers of ticks, checked where they come in."""

import math

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.errors import ConfigError, FormatError

WORD = 2**31 - 1


def whole(
  owner: str,
  field: str,
  value,
  low: int | None = None,
  high: int | None = None,
) -> int:
  """A whole number within bounds, as an int.

  Args:
    owner: for the message.
    field: for the message.
    value: what was given.
    low: the least allowed; None for any.
    high: the most allowed; None for any.

  Raises:
    ConfigError: another type, or outside of the bounds.
  """
  good = isinstance(value, int | np.integer) and not isinstance(value, bool)
  below = good and low is not None and value < low
  above = good and high is not None and value > high
  if not good or below or above:
    bounds = "" if low is None else f" from {low}"
    bounds += "" if high is None else f" to {high}"
    raise ConfigError(
      f"{owner}: {field} is {value!r}; allowed are whole numbers{bounds}"
    )
  return int(value)


def ticks(owner: str, count) -> int:
  """A number of time steps as an int.

  Raises:
    ConfigError: not a whole number of 1 or more.
  """
  return whole(owner, "ticks", count, 1)


def known(x) -> np.ndarray | None:
  """The values of an array, or None while it is traced."""
  return None if isinstance(x, jax.core.Tracer) else np.asarray(x)


def positive(owner: str, field: str, value) -> None:
  """Refuses what cannot be a threshold; a traced one is not looked at.

  Raises:
    ConfigError: a value that is zero, negative or not finite.
  """
  values = known(value)
  if values is None:
    return
  good = np.isfinite(values) & (values > 0) if values.size else np.array(False)
  if not good.all():
    wrong = values[~good].flat[0] if values.size else "empty"
    raise ConfigError(
      f"{owner}: {field} is {wrong}; allowed are finite numbers above 0"
    )


def finite(owner: str, field: str, value: float) -> None:
  """Refuses a number that is not finite.

  Raises:
    ConfigError: it is not.
  """
  if not math.isfinite(value):
    raise ConfigError(
      f"{owner}: {field} is {value!r}; allowed are finite numbers"
    )


def drive(owner: str, x) -> jax.Array:
  """Drives of one tick or more as floats or int32.

  Raises:
    ConfigError: no leading axis of ticks, or a type that is neither float nor
      fits int32.
  """
  x = jnp.asarray(x)
  ticks(owner, x.shape[0] if x.ndim else 0)
  if jnp.issubdtype(x.dtype, jnp.floating):
    return x
  if not jnp.can_cast(x.dtype, jnp.int32) or x.dtype == bool:
    raise ConfigError(
      f"{owner}: the drive is {x.dtype}; allowed are floats, and integers that"
      " fit int32"
    )
  return x.astype(jnp.int32)


def threshold(owner: str, value, like: jax.Array) -> jax.Array:
  """A threshold in the dtype of the drive.

  Args:
    owner: for the message.
    value: number or array that broadcasts against the drive.
    like: the drive of one tick, float[...] or int32[...].

  Raises:
    ConfigError: not above 0, not finite, or not whole for integer drives.
  """
  positive(owner, "threshold", value)
  if jnp.issubdtype(like.dtype, jnp.floating):
    return jnp.asarray(value, like.dtype)
  values = known(value)
  dtype = getattr(value, "dtype", None)
  whole = dtype is not None and jnp.issubdtype(dtype, jnp.integer)
  if not whole and (
    values is None or (values != np.floor(values)).any() or values.max() > WORD
  ):
    raise ConfigError(
      f"{owner}: the drive is {like.dtype}, the threshold"
      f" {'float' if values is None else values.flat[0]}; give whole"
      " thresholds below 2^31 to integer drives"
    )
  return jnp.asarray(value).astype(jnp.int32)


def charge(neuron, x, state, given: int | None) -> None:
  """Refuses integer drives under which a state could leave int32.

  A potential never exceeds |v(0)| + sum over ticks of |x|, its charge: leak
  and reset only make it smaller.  A neuron that can go further says how far
  in `reach(charge, ticks)`.

  Args:
    neuron: the neuron.
    x: int32[T, ...], the drives.
    state: pytree of int32[...], before the first tick.
    given: a static bound of the charge; needed while x or state is traced.

  Raises:
    ConfigError: nothing is known about the charge.
    FormatError: the state may leave 32 bits.
  """
  owner = type(neuron).__name__
  values = [known(leaf) for leaf in (x, *jax.tree.leaves(state))]
  bound = given
  if bound is None and all(v is not None for v in values):
    wide = [np.abs(v.astype(np.int64)) for v in values if v is not None]
    bound = int(sum(wide[1:], wide[0].sum(0)).max(initial=0))
  if bound is None:
    raise ConfigError(
      f"{owner}: integer drives are traced and nothing bounds them; give"
      " charge, a bound of |v(0)| plus the sum over ticks of |x|"
    )
  ticks = x.shape[0]
  most = neuron.reach(bound, ticks) if hasattr(neuron, "reach") else bound
  if most > WORD:
    raise FormatError(
      f"{owner}: {ticks} ticks can charge a potential to {most}, which is over"
      f" {WORD}, the most of 32 bits; use fewer ticks or a coarser scale"
    )
