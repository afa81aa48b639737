"""Spiking self-attention (SSA), causal, on integers and without softmax.

Per tick t and head, with spikes q, k, v of d features (Zhou et al. 2023,
"Spikformer", arXiv 2209.15425), masked to 0 as there is no softmax:

    quadratic   Y_i = sum_(j <= i) <q_i, k_j> v_j
    prefix sum  S_i = S_(i-1) + k_i^T v_i          Y_i = q_i S_i
    decayed     S_i = S_(i-1) - (S_(i-1) >> m) + k_i^T v_i

The first two are the same integers in another order; the third forgets, and is
flat after 2^m tokens.  `ssa` has the neuron that fires on Y, the state of
decoding and the bounds; `sdsa` a form without scores.
"""

import jax
from jax import lax
from jax import numpy as jnp

from jaxnmc.numerics.ste import ste

__all__ = [
  "linear",
  "merge_heads",
  "prefix",
  "quadratic",
  "scores",
  "split_heads",
]


def wide(*arrays) -> list[jax.Array]:
  """Integers as int32; floats as they are."""
  integer = lambda x: not jnp.issubdtype(x.dtype, jnp.floating)
  found = [jnp.asarray(x) for x in arrays]
  return [x.astype(jnp.int32) if integer(x) else x for x in found]


def product(a: jax.Array, b: jax.Array) -> jax.Array:
  # Whole numbers in floats stay exact only at full precision.
  return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def split_heads(x: jax.Array, heads: int) -> jax.Array:
  """[..., N, heads d] to [..., heads, N, d]."""
  size = x.shape[-1] // heads
  return jnp.moveaxis(x.reshape(*x.shape[:-1], heads, size), -2, -3)


def merge_heads(x: jax.Array) -> jax.Array:
  """[..., heads, N, d] to [..., N, heads d]."""
  x = jnp.moveaxis(x, -3, -2)
  return x.reshape(*x.shape[:-2], -1)


def scores(q: jax.Array, k: jax.Array, causal: bool = True) -> jax.Array:
  """<q_i, k_j>, 0 where j > i.

  Args:
    q: [..., N, d], spikes.
    k: the same shape.
    causal: mask what comes later; else nothing.

  Returns:
    int32[..., N, N] for integers, at most d; else float.
  """
  q, k = wide(q, k)
  a = product(q, jnp.swapaxes(k, -1, -2))
  return jnp.tril(a) if causal else a


def quadratic(
  q: jax.Array, k: jax.Array, v: jax.Array, causal: bool = True
) -> jax.Array:
  """Y by all scores: 2 N^2 d operations.

  Args:
    q: [..., N, d], spikes.
    k: the same shape.
    v: [..., N, d'].
    causal: as in `scores`.

  Returns:
    int32[..., N, d'] for integers, at most N d; floats are exact to 2^24.
  """
  (v,) = wide(v)
  return product(scores(q, k, causal), v)


def linear(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
  """Y of all tokens for all, as Q (K^T V): `quadratic` without the mask."""
  q, k, v = wide(q, k, v)
  return product(q, product(jnp.swapaxes(k, -1, -2), v))


def prefix(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  memory: jax.Array | None = None,
  decay: int | None = None,
  real: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Y by running sums: 2 N d^2 operations, and the sums to go on from.

  Args:
    q: [..., N, d], spikes.
    k: the same shape.
    v: [..., N, d'].
    memory: [..., d, d'], S of the tokens before; zeros if None.
    decay: m, for the decayed form; None for none.
    real: bool[N]; the memory stays as it is at a token that is not.  All are
      if None.

  Returns:
    (memory, Y): S after these tokens, and [..., N, d'], int32 for integers.
  """
  q, k, v = wide(q, k, v)
  shape = (*k.shape[:-2], k.shape[-1], v.shape[-1])
  before = jnp.zeros(shape, v.dtype) if memory is None else memory

  def body(memory, token):
    q, k, v, real = token
    kept = memory if decay is None else memory - _shifted(memory, decay)
    memory = jnp.where(real, kept + k[..., :, None] * v[..., None, :], memory)
    return memory, product(q[..., None, :], memory)[..., 0, :]

  first = lambda x: jnp.moveaxis(x, -2, 0)
  real = jnp.ones(q.shape[-2], bool) if real is None else real
  tokens = first(q), first(k), first(v), real
  after, y = lax.scan(body, before, tokens)
  return after, jnp.moveaxis(y, 0, -2)


def _shifted(x: jax.Array, m: int) -> jax.Array:
  """x >> m, also of whole floats; the gradient is that of x / 2^m."""
  if jnp.issubdtype(x.dtype, jnp.integer):
    return x >> m
  part = x * 2.0**-m
  return ste(jnp.floor(part), part)
