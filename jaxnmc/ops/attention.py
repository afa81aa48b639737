"""Softmax attention over a memory of keys and values: equations in floats.

Vaswani et al. 2017 (arXiv 1706.03762); several query heads may share a head of
keys and values (Ainslie et al. 2023, arXiv 2305.13245); rotary positions are
those of Su et al. 2021 (arXiv 2104.09864).

Arrays are time first, features last, any batch axes between, as everywhere.
"""

import jax
from jax import numpy as jnp

from jaxnmc.errors import PlanError

PAIRINGS = ("halves", "neighbours")


def rotate(
  x: jax.Array, positions: jax.Array, heads: int, base: float, pairs: str
) -> jax.Array:
  """Rotary positions: each pair (a, b) of a head turns by p base^(-2 i / h).

      a' = a cos t - b sin t        b' = a sin t + b cos t

  Args:
    x: float[T, ..., heads h].
    positions: int32[T, ...], p.
    heads: number of heads.
    base: of the frequencies.
    pairs: which two features are pair i of a head: "halves" (i and i + h / 2)
      or "neighbours" (2 i and 2 i + 1).

  Returns:
    float[T, ..., heads h], dtype of x.
  """
  size = x.shape[-1] // heads
  # Angles in the dtype of x would lose the position where that is narrow.
  wide = jnp.promote_types(x.dtype, jnp.float32)
  rates = base ** (-jnp.arange(0, size, 2, dtype=wide) / size)
  angle = positions[..., None, None].astype(wide) * rates
  cos, sin = jnp.cos(angle).astype(x.dtype), jnp.sin(angle).astype(x.dtype)
  grouped = x.reshape(*x.shape[:-1], heads, size)
  if pairs == "halves":
    a, b = jnp.split(grouped, 2, axis=-1)
    turned = jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)
  else:
    a, b = grouped[..., ::2], grouped[..., 1::2]
    turned = jnp.stack([a * cos - b * sin, a * sin + b * cos], axis=-1)
  return turned.reshape(x.shape)


def attend(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  seen: jax.Array,
  heads: int,
  kv_heads: int,
) -> jax.Array:
  """softmax(q k^T / sqrt(h)) v over what is seen, head by head.

  Args:
    q: float[T, ..., heads h].
    k: float[S, ..., kv_heads h].
    v: float[S, ..., kv_heads h].
    seen: bool[T, S, ...], whether token t sees key s; a token that sees none
      gets NaN.
    heads: heads of q; query head j reads key head j kv_heads // heads.
    kv_heads: heads of k and v; divides heads.

  Returns:
    float[T, ..., heads h].
  """
  size = q.shape[-1] // heads
  split = lambda x, *axes: x.reshape(*x.shape[:-1], *axes, size)
  q = split(q, kv_heads, heads // kv_heads)
  k, v = split(k, kv_heads), split(v, kv_heads)
  scores = jnp.einsum("t...kgh,s...kh->...kgts", q, k) * size**-0.5
  seen = jnp.moveaxis(seen, (0, 1), (-2, -1))[..., None, None, :, :]
  weights = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), axis=-1)
  out = jnp.einsum("...kgts,s...kh->t...kgh", weights, v)
  return out.reshape(*out.shape[:-3], heads * size)


def write_rows(cache: jax.Array, x: jax.Array, slots: jax.Array) -> jax.Array:
  """The cache with the rows of x at their slots.

  Args:
    cache: [S, ..., n].
    x: [T, ..., n].
    slots: int32[T, ...]; a row whose slot is S or more is dropped.

  Returns:
    [S, ..., n], dtype of x.
  """
  flat = lambda a: a.reshape(a.shape[0], -1, a.shape[-1])
  rows, old = flat(x), flat(cache).astype(x.dtype)
  at = slots.reshape(slots.shape[0], -1), jnp.arange(rows.shape[1])
  return old.at[at].set(rows, mode="drop").reshape(cache.shape)


def check_cache(path: str, cache, shape: tuple[int, ...]) -> None:
  """Refuses a cache of another model or batch, or one of no floats.

  Args:
    path: where, for the message.
    cache: anything with a shape.
    shape: the shape that this model has.

  Raises:
    PlanError: another shape or type.
  """
  dtype = getattr(cache, "dtype", None)
  if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
    raise PlanError(
      f"{path}: expected a float state, found {dtype or type(cache).__name__};"
      " start from None (zeros) or from the state of an earlier call of the"
      " same transform"
    )
  if tuple(cache.shape) != shape:
    raise PlanError(
      f"{path}: the state has a cache of shape {list(cache.shape)}, the model"
      f" {list(shape)}; it belongs to another model or batch"
    )
