"""Temporal differencing: any function of a sum, as increments over ticks.

    y_t = f(X_t) - f(X_(t-1)),    X_t = x_1 + ... + x_t,    f(X_0) := 0

Theorem D: the y_t sum to f(X_T), for any f.  So softmax, LayerNorm and
products of two activations have an exact form for spikes that come in over
time; it costs an evaluation of f per tick.  A product needs none of it:

    A_t B_t - A_(t-1) B_(t-1) = A_t b_t + a_t B_t - a_t b_t

with increments a, b and sums A, B: each term has a spike train for a factor.
(SpikeZIP-TF, arXiv 2406.03470.)
"""

from collections.abc import Callable

import jax
from flax import struct
from jax import lax
from jax import numpy as jnp

from jaxnmc.errors import ConfigError
from jaxnmc.spike import checks
from jaxnmc.spike.attention import wide

__all__ = ["DifferenceState", "differences", "product", "step"]


@struct.dataclass
class DifferenceState:
  """Sums of the increments so far, and f of them (zeros before any)."""

  sums: tuple[jax.Array, ...]
  value: jax.Array


def step(
  f: Callable, state: DifferenceState | None, *increments: jax.Array
) -> tuple[DifferenceState, jax.Array]:
  """One tick: the increment of f.

  Args:
    f: of as many arrays as there are increments.
    state: after the ticks before; None before the first.
    *increments: x_t of each argument.

  Returns:
    (state, y_t).
  """
  if state is None:
    value = f(*increments)
    return DifferenceState(increments, value), value
  sums = tuple(a + b for a, b in zip(state.sums, increments))
  value = f(*sums)
  return DifferenceState(sums, value), value - state.value


def _ticks(owner: str, arrays) -> None:
  lengths = {a.shape[0] if a.ndim else 0 for a in arrays}
  if len(lengths) != 1:
    raise ConfigError(
      f"{owner}: the arguments have {sorted(lengths)} ticks; allowed is the"
      " same number in all"
    )
  checks.ticks(owner, lengths.pop())


def differences(f: Callable, *increments: jax.Array) -> jax.Array:
  """Increments of f over all ticks.

  Args:
    f: of as many arrays as there are increments; without the axis of ticks.
    *increments: [T, ...] each, in the order of f's arguments.

  Returns:
    [T, ...], y_t; sums to f of the sums (exactly, for integers).

  Raises:
    ConfigError: no ticks, or not the same number in all.
  """
  _ticks("differences", increments)
  first, y = step(f, None, *(x[0] for x in increments))
  body = lambda state, xs: step(f, state, *xs)
  _, rest = lax.scan(body, first, tuple(x[1:] for x in increments))
  return jnp.concatenate([y[None], rest])


def product(a: jax.Array, b: jax.Array) -> jax.Array:
  """Increments of a matrix product, from the increments of both factors.

  Args:
    a: [T, ..., m, k].
    b: [T, ..., k, n].

  Returns:
    [T, ..., m, n]; int32 for integers (where the sums stay inside).

  Raises:
    ConfigError: no ticks, or not the same number in both.
  """
  _ticks("product", (a, b))
  a, b = wide(a, b)

  def body(sums, row):
    a, b = row
    whole_a, whole_b = sums[0] + a, sums[1] + b
    return (whole_a, whole_b), whole_a @ b + a @ whole_b - a @ b

  zeros = jnp.zeros_like(a[0]), jnp.zeros_like(b[0])
  return lax.scan(body, zeros, (a, b))[1]
