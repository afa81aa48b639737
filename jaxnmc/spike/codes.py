"""Spike codes: an integer as spikes over ticks, and back.

| code | spikes | holds, over T ticks | weight of tick t |
| --- | --- | --- | --- |
| unary | 0, 1: n ones, then none | 0 to T | 1 |
| ternary | -1, 0, 1: as unary, with the sign | -T to T | 1 |
| bitwise | 0, 1: bits, most significant first | 0 to 2^T - 1 | 2^(T-1-t) |
| signed_bitwise | -1, 0, 1: bits of the magnitude | -(2^T - 1) to 2^T - 1 | as above |
| twos_complement | 0, 1: bits | -2^(T-1) to 2^(T-1) - 1 | as above, first negative |

The weighted sum over ticks is the integer, so a matrix product of the spikes,
weighted and summed, is that of the integers.  (Expansions of SpikingBrain,
arXiv 2509.05276, and of Spike-driven Transformer V3, arXiv 2411.16061.)

`elastic` is SpikeLM's ternary code with a learned amplitude a_t per tick
(Xing et al. 2024, arXiv 2406.03287):

    u_1 = x_1     u_t = u_(t-1) / 4 (a_(t-1) - o_(t-1)) + x_t
    o_t = a_t clip(round(u_t / a_t), -1, 1)

Note its leak: nothing is left after a positive spike, and twice as much as
usual after a negative one.
"""  # noqa: E501

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from jaxnmc.errors import ConfigError, FormatError
from jaxnmc.numerics.ste import ste
from jaxnmc.spike import checks

__all__ = [
  "CODES",
  "counts",
  "decode",
  "elastic",
  "elastic_amplitudes",
  "encode",
  "limits",
  "ticks_for",
  "weights",
]


class _Code(NamedTuple):
  """One row of the table.

  Attributes:
    spikes: (n int32[...], t int32[T, 1...], T) -> int32[T, ...].
    limits: T -> smallest and largest integer.
    ticks: largest magnitude -> T.
    bits: ticks have the weights of bits.
  """

  spikes: Callable[..., jax.Array]
  limits: Callable[[int], tuple[int, int]]
  ticks: Callable[[int], int]
  bits: bool


def _bits(n, t, ticks):
  return (n >> (ticks - 1 - t)) & 1


CODES = {
  "unary": _Code(
    lambda n, t, ticks: (n > t).astype(jnp.int32),
    lambda ticks: (0, ticks),
    lambda largest: largest,
    False,
  ),
  "ternary": _Code(
    lambda n, t, ticks: jnp.sign(n) * (jnp.abs(n) > t),
    lambda ticks: (-ticks, ticks),
    lambda largest: largest,
    False,
  ),
  "bitwise": _Code(
    _bits, lambda ticks: (0, 2**ticks - 1), lambda n: n.bit_length(), True
  ),
  "signed_bitwise": _Code(
    lambda n, t, ticks: jnp.sign(n) * _bits(jnp.abs(n), t, ticks),
    lambda ticks: (1 - 2**ticks, 2**ticks - 1),
    lambda n: n.bit_length(),
    True,
  ),
  "twos_complement": _Code(
    _bits,
    lambda ticks: (-(2 ** (ticks - 1)), 2 ** (ticks - 1) - 1),
    lambda n: n.bit_length() + 1,
    True,
  ),
}
# Weights and sums of bits stay inside int32.
_MOST_BITS = 31


def _code(name: str, ticks: int) -> _Code:
  if name not in CODES:
    raise ConfigError(
      f"spike code: {name!r} is unknown; allowed are {', '.join(CODES)}"
    )
  checks.ticks(f"spike code {name}", ticks)
  if CODES[name].bits and ticks > _MOST_BITS:
    raise ConfigError(
      f"spike code {name}: ticks is {ticks}; allowed are 1 to {_MOST_BITS}, as"
      " a bit's weight is an int32"
    )
  return CODES[name]


def limits(name: str, ticks: int) -> tuple[int, int]:
  """Smallest and largest integer that a code holds over `ticks`.

  Raises:
    ConfigError: an unknown code or impossible number of ticks.
  """
  return _code(name, ticks).limits(ticks)


def ticks_for(name: str, largest: int) -> int:
  """Ticks that a code needs for integers of up to this magnitude.

  Raises:
    ConfigError: an unknown code, or a magnitude below 1.
  """
  code = _code(name, 1)
  if largest < 1:
    raise ConfigError(
      f"spike code {name}: the largest magnitude is {largest}; allowed are"
      " whole numbers from 1"
    )
  return code.ticks(int(largest))


def weights(name: str, ticks: int) -> np.ndarray:
  """What a spike in each tick counts: int32[ticks].

  Raises:
    ConfigError: an unknown code or impossible number of ticks.
  """
  code = _code(name, ticks)
  if not code.bits:
    return np.ones(ticks, np.int32)
  row = 2 ** np.arange(ticks - 1, -1, -1, dtype=np.int32)
  if name == "twos_complement":
    row[0] = -row[0]
  return row


def encode(name: str, n: jax.Array, ticks: int) -> jax.Array:
  """Spikes of integers.

  Args:
    name: of the code.
    n: int[...], inside `limits(name, ticks)`; while n is traced this cannot be
      checked, and what is outside becomes the nearest limit.
    ticks: T.

  Returns:
    int8[T, ...] of -1, 0 and 1.

  Raises:
    ConfigError: an unknown code or impossible number of ticks.
    FormatError: an integer outside the limits.
  """
  code = _code(name, ticks)
  low, high = code.limits(ticks)
  values = checks.known(n)
  if values is not None and values.size:
    wrong = values[(values < low) | (values > high)]
    if wrong.size:
      raise FormatError(
        f"spike code {name}: {wrong.flat[0]} is outside of {low} to {high},"
        f" which {ticks} ticks hold; use more ticks"
      )
  n = jnp.clip(jnp.asarray(n), low, high).astype(jnp.int32)
  t = jnp.arange(ticks, dtype=jnp.int32).reshape(ticks, *(1,) * n.ndim)
  return code.spikes(n, t, ticks).astype(jnp.int8)


def decode(name: str, spikes: jax.Array) -> jax.Array:
  """The integers of spikes, or the sums of anything linear in them.

  Args:
    name: of the code.
    spikes: int[T, ...], or int32 products of them with a matrix, within int32
      when weighted and summed.

  Returns:
    int32[...], the weighted sum over ticks.

  Raises:
    ConfigError: an unknown code or no ticks.
  """
  row = weights(name, spikes.shape[0])
  return jnp.tensordot(row, spikes.astype(jnp.int32), 1)


def counts(x: jax.Array, k: float = 3.0) -> jax.Array:
  """Integer activations n = round(x / v_th), v_th = mean |x| / k per token.

  Halves round to even, as in the published code.  The gradient goes straight
  through the rounding.

  Args:
    x: float[..., features], a token's features last.
    k: steps to the mean magnitude, above 0.

  Returns:
    float[..., features] of whole numbers (0 for a token of zeros).

  Raises:
    ConfigError: k is no positive number.
  """
  checks.positive("counts", "k", k)
  step = jnp.mean(jnp.abs(x), -1, keepdims=True) / k
  scaled = x / jnp.where(step > 0, step, 1)
  return ste(jnp.round(scaled), scaled)


@jax.custom_vjp
def _ternary(u: jax.Array, a: jax.Array) -> jax.Array:
  """a clip(round(u / a), -1, 1)."""
  return a * jnp.clip(jnp.round(u / a), -1, 1)


def _ternary_fwd(u, a):
  return _ternary(u, a), (u, a)


def _ternary_bwd(saved, g):
  u, a = saved
  q = u / a
  inside = jnp.abs(q) <= 1
  # Learned step size (Esser et al. 2020), scaled by the number of elements.
  slope = jnp.where(inside, jnp.round(q) - q, jnp.sign(q))
  return g * inside, (g * slope).sum() / math.sqrt(u.size)


_ternary.defvjp(_ternary_fwd, _ternary_bwd)


def elastic(x: jax.Array, amplitudes: jax.Array) -> jax.Array:
  """SpikeLM's elastic ternary spikes (equations: this file's head).

  Args:
    x: float[T, ...], the activation of each tick.
    amplitudes: float[T], a_t > 0.

  Returns:
    float[T, ...] of -a_t, 0 and a_t.  Gradients: 1 to u_t where |u_t| <= a_t,
    else 0; LSQ's to a_t.

  Raises:
    ConfigError: no ticks, another number of amplitudes, or one that is not
      above 0.
  """
  checks.ticks("elastic", x.shape[0])
  if np.shape(amplitudes) != x.shape[:1]:
    raise ConfigError(
      f"elastic: the shape of the amplitudes is {list(np.shape(amplitudes))};"
      f" allowed is one per tick, {list(x.shape[:1])}"
    )
  checks.positive("elastic", "amplitude", amplitudes)

  def body(left, row):
    x, a = row
    u = left + x
    o = _ternary(u, a)
    return u * 0.25 * (a - o), o

  rows = x, jnp.asarray(amplitudes, x.dtype)
  return lax.scan(body, jnp.zeros_like(x[0]), rows)[1]


def elastic_amplitudes(x: jax.Array) -> jax.Array:
  """First amplitudes for activations: a_t = 2 mean |u_t|, tick after tick.

  Args:
    x: float[T, ...], with something other than 0 in every tick.

  Returns:
    float[T].

  Raises:
    ConfigError: no ticks.
  """
  checks.ticks("elastic_amplitudes", x.shape[0])

  def body(left, x):
    u = left + x
    a = 2 * jnp.mean(jnp.abs(u))
    return u * 0.25 * (a - _ternary(u, a)), a

  return lax.scan(body, jnp.zeros_like(x[0]), x)[1]
