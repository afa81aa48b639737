"""Learning-rate schedules: functions of the step, plain `jnp`."""

from collections.abc import Callable

import jax
from jax import numpy as jnp

from jaxnmc.errors import ConfigError

Schedule = Callable[[jax.typing.ArrayLike], jax.Array]


def two_stage(peak: float, steps: int, warmup: int = 0) -> Schedule:
  """Cosine to zero that is halved midway.

  Zhu et al. 2024 say as much in words; the formula is a reading of them:

  lr(t) = peak * 0.5 * (1 + cos(pi t / T)) * (1 if t < T / 2 else 0.5), times
  min(1, (t + 1) / warmup) if there is a warm-up.

  Args:
    peak: largest learning rate.
    steps: T.
    warmup: steps of linear warm-up.

  Returns:
    `schedule(step)`: float32[...] for steps int[...], from 0.
  """

  def schedule(step: jax.typing.ArrayLike) -> jax.Array:
    t = jnp.asarray(step, jnp.float32)
    cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * t / steps))
    stage = jnp.where(t < steps / 2, 1.0, 0.5)
    return peak * cosine * stage * _warm(t, warmup)

  return schedule


def wsd(
  peak: float, steps: int, warmup: int = 0, constant: float = 0.6
) -> Schedule:
  """Warm-up, constant to `constant * steps`, then linear to zero.

  Args:
    peak: largest learning rate.
    steps: steps in all.
    warmup: steps of linear warm-up.
    constant: share of the steps before the fall, below 1.

  Returns:
    As `two_stage`.
  """

  def schedule(step: jax.typing.ArrayLike) -> jax.Array:
    t = jnp.asarray(step, jnp.float32)
    left = (steps - t) / (steps * (1.0 - constant))
    return peak * jnp.clip(left, 0.0, 1.0) * _warm(t, warmup)

  return schedule


def cosine(peak: float, steps: int, warmup: int = 0) -> Schedule:
  """Half a cosine from the peak to zero, times the warm-up; as `two_stage`."""

  def schedule(step: jax.typing.ArrayLike) -> jax.Array:
    t = jnp.asarray(step, jnp.float32)
    return peak * 0.5 * (1.0 + jnp.cos(jnp.pi * t / steps)) * _warm(t, warmup)

  return schedule


def _warm(t: jax.Array, warmup: int) -> jax.Array:
  return jnp.minimum(1.0, (t + 1.0) / max(warmup, 1))


SCHEDULES = {"cosine": cosine, "two_stage": two_stage, "wsd": wsd}


def make(name: str, peak: float, steps: int, warmup: int) -> Schedule:
  """Returns the schedule of that name (of `SCHEDULES`).

  Raises:
    ConfigError: there is none.
  """
  if name not in SCHEDULES:
    raise ConfigError(
      f"schedule: found {name!r}, allowed are {', '.join(SCHEDULES)}"
    )
  return SCHEDULES[name](peak, steps, warmup)
