"""Random integers for stochastic rounding: a hash of counters.

A word is a function of a seed and of what it is for (example, row, column),
so it does not depend on the order of updates, nor on which core makes them.
The mix is the finaliser of MurmurHash3 (32 bits, Austin Appleby, public
domain); docs/learning.md, 1 has the rule.  What generator the chip has is not
published.
"""

import jax
from jax import numpy as jnp

from jaxnmc.numerics.wide import Int

STRIDE = 0x9E3779B9  # odd: counters below 2^32 stay apart
_FIRST, _SECOND = 0x85EBCA6B, 0xC2B2AE35


def mix(x: jax.Array) -> jax.Array:
  """A bijection of 32 bits in which every input bit reaches every output bit.

  Args:
    x: uint32[...].

  Returns:
    uint32[...].
  """
  x = x ^ (x >> 16)
  x = x * jnp.uint32(_FIRST)
  x = x ^ (x >> 13)
  x = x * jnp.uint32(_SECOND)
  return x ^ (x >> 16)


def key(seed: int) -> jax.Array:
  """x_0 of a seed (any integer; its lowest 32 bits count): uint32[]."""
  return mix(jnp.uint32((seed + STRIDE) & 0xFFFFFFFF))


def word(first: jax.Array, *counters: Int) -> jax.Array:
  """Thirty-two random bits, a pure function of a seed and some counters.

  Args:
    first: uint32[], the `key` of the seed.
    *counters: int32[...], which broadcast.

  Returns:
    uint32[...].
  """
  x = first
  for counter in counters:
    n = jnp.asarray(counter, jnp.int32).astype(jnp.uint32) + jnp.uint32(1)
    x = mix(x + n * jnp.uint32(STRIDE))
  return x


def round_by(x: jax.Array, shift: int, words: jax.Array) -> jax.Array:
  """floor((x + u) / 2^shift), u the highest `shift` bits of a word.

  For random words the mean of it is x / 2^shift: stochastic rounding.

  Args:
    x: int32[...]; the caller vouches that x + 2^shift stays below 2^31.
    shift: 0 (nothing is rounded) to 30.
    words: uint32[...] that broadcasts.

  Returns:
    int32[...].
  """
  if not shift:
    return x
  return (x + (words >> (32 - shift)).astype(jnp.int32)) >> shift


def order(seed: int, epoch: int, count: int) -> jax.Array:
  """The examples of an epoch in random order: int32[count].

  Sorted by their words (seed, epoch, index), equal ones by index.
  """
  words = word(key(seed), epoch, jnp.arange(count, dtype=jnp.int32))
  return jnp.argsort(words, stable=True).astype(jnp.int32)
