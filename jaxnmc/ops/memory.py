"""Attention without softmax: a memory of sums, written by k and v, read by q.

Per head of d features, and tokens i (Katharopoulos et al. 2020, arXiv
2006.16236, without feature maps; `jaxnmc.spike.attention` has it on spikes):

    S_i = S_(i-1) + k_i^T v_i        y_i = q_i S_i

The tokens of one call are computed by their scores,

    y_i = q_i S_0 + sum_(0 < j <= i) <q_i, k_j> v_j,

the same sum in another order: exact in integers, and in floats that hold them.

Arrays are time first, features last, any batch axes between; a memory is flat:
[..., heads d d], row k of a head before row k + 1.
"""

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from jaxnmc.errors import PlanError

Windows = tuple[int | None, ...]
# Whole numbers in floats stay exact only at full precision.
_EXACT = lax.Precision.HIGHEST


def memory_width(width: int, heads: int) -> int:
  """Numbers in the memories of all heads of a value of this width."""
  return width * width // heads


def recall(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  memory: jax.Array,
  heads: int,
) -> tuple[jax.Array, jax.Array]:
  """Reads and writes a memory, token by token in effect.

  Args:
    q: [T, ..., heads d], int32 or float.
    k: the same.
    v: the same.
    memory: [..., heads d d], S of the tokens before.
    heads: number of heads.

  Returns:
    (y [T, ..., heads d], the memory after the last token), dtype of q.
  """
  size = q.shape[-1] // heads
  split = lambda x: x.reshape(*x.shape[:-1], heads, size)
  q, k, v = split(q), split(k), split(v)
  before = memory.reshape(*memory.shape[:-1], heads, size, size)
  product = lambda form, a, b: jnp.einsum(form, a, b, precision=_EXACT)
  scores = jnp.tril(product("t...hd,s...hd->...hts", q, k))
  y = product("...hts,s...hd->t...hd", scores, v)
  y = y + product("t...hd,...hde->t...he", q, before)
  after = before + product("t...hd,t...he->...hde", k, v)
  return y.reshape(*y.shape[:-2], -1), after.reshape(memory.shape)


def last(past: jax.Array | None, x: jax.Array, count: int, mask=None):
  """The last `count` real tokens of a value, oldest first.

  Args:
    past: [count, ..., n], those of the calls before; None for zeros.
    x: [T, ..., n].
    count: how many.
    mask: [T, ...], 0 for padding, or None.

  Returns:
    [count, ..., n], dtype of x.
  """
  if past is None:
    past = jnp.zeros((count, *x.shape[1:]), x.dtype)
  rows = jnp.concatenate([past, x])
  if mask is None:
    return rows[len(rows) - count :]
  after = _after(mask)  # real tokens behind each of this call
  older = jnp.arange(count - 1, -1, -1).reshape(-1, *(1,) * (mask.ndim - 1))
  older = older + (after[0] + mask[0].astype(jnp.int32))
  behind = jnp.concatenate([older, jnp.where(mask != 0, after, -1)])
  slots = jnp.arange(count - 1, -1, -1).reshape(-1, *(1,) * behind.ndim)
  chosen = (behind[None] == slots).astype(x.dtype)
  return jnp.einsum("ps...,s...n->p...n", chosen, rows, precision=_EXACT)


def _after(mask) -> jax.Array:
  """Real tokens behind each: int32[T, ...]."""
  real = (jnp.asarray(mask) != 0).astype(jnp.int32)
  return jnp.flip(jnp.cumsum(jnp.flip(real, 0), 0), 0) - real


def recall_windows(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  memory: jax.Array,
  past: tuple[jax.Array, jax.Array] | None,
  heads: int,
  windows: Windows,
  mask=None,
) -> tuple[jax.Array, jax.Array, tuple[jax.Array, jax.Array]]:
  """`recall` where some heads forget: S_i sums over the last w tokens only.

      S_i = S_(i-1) + k_i^T v_i - k_(i-w)^T v_(i-w)

  Args:
    q: [T, ..., heads d], int32 or float.
    k: the same.
    v: the same.
    memory: [..., heads d d], S of the tokens before.
    past: k and v of the last tokens before, [W, ..., heads d] each, oldest
      first, W the widest window; None for none.
    heads: number of heads.
    windows: w of each head, None for all tokens.
    mask: [T, ...], 0 for padding, which is no token of a window; None for none.

  Returns:
    (y, memory, past) as in the arguments, y [T, ..., heads d].
  """
  size, length = q.shape[-1] // heads, q.shape[0]
  reach = widest(windows)
  split = lambda x: x.reshape(*x.shape[:-1], heads, size)
  axes = (1,) * (q.ndim - 2)
  if mask is None:
    rank = np.arange(1, length + 1).reshape(length, *axes)
    total = rank[-1]
  else:
    rank = jnp.cumsum((jnp.asarray(mask) != 0).astype(jnp.int32), 0)
    total = rank[-1]
  old = (None, None) if past is None else past
  # Tokens between a reader and what it reads: of this call, and before.
  order = np.arange(length)
  causal = (order[:, None] >= order[None]).reshape(length, length, *axes)
  apart = jnp.where(causal, rank[:, None] - rank[None], length + 2 * reach)
  behind = total - rank
  keys, values = k, v
  if past is not None:
    older = np.arange(reach - 1, -1, -1).reshape(reach, *axes)
    apart = jnp.concatenate([rank[:, None] + older[None], apart], 1)
    behind = jnp.concatenate([total + older, behind])
    keys, values = jnp.concatenate([old[0], k]), jnp.concatenate([old[1], v])
  wide = np.array([size_of(w, length + 2 * reach) for w in windows])
  ends = np.array([w is None for w in windows])
  heads_last = lambda x: x[..., None]
  if past is not None:
    # Heads without a window have their past in S.
    ours = np.arange(reach + length).reshape(-1, *axes) >= reach
    within = (heads_last(apart) < wide) & (heads_last(ours) | ~ends)
    inside = (heads_last(behind) < wide) & (heads_last(ours) | ~ends)
  else:
    within, inside = heads_last(apart) < wide, heads_last(behind) < wide
  q, keys, values = split(q), split(keys), split(values)
  product = lambda form, *x: jnp.einsum(form, *x, precision=_EXACT)
  scores = product("t...hd,s...hd->...hts", q, keys)
  within = jnp.moveaxis(within, (0, 1), (-2, -1))
  scores = scores * within.astype(scores.dtype)
  y = product("...hts,s...hd->t...hd", scores, values)
  before = memory.reshape(*memory.shape[:-1], heads, size, size)
  before = before * ends[:, None, None].astype(before.dtype)
  y = y + product("t...hd,...hde->t...he", q, before)
  chosen = keys * inside[..., None].astype(keys.dtype)
  after = before + product("t...hd,t...he->...hde", chosen, values)
  past = last(old[0], k, reach, mask), last(old[1], v, reach, mask)
  return y.reshape(*y.shape[:-2], -1), after.reshape(memory.shape), past


def widest(windows: Windows) -> int:
  """The widest window; 0 if no head has one."""
  return max((w for w in windows if w is not None), default=0)


def size_of(window: int | None, most: int) -> int:
  """A window as a number: `most` for none."""
  return most if window is None else window


def check_memory(path: str, memory, shape: tuple[int, ...]) -> None:
  """Refuses a memory of another model or batch.

  Args:
    path: where, for the message.
    memory: anything with a shape.
    shape: the shape that this model has.

  Raises:
    PlanError: another shape, or no array.
  """
  found = getattr(memory, "shape", None)
  if found is None or tuple(found) != shape:
    raise PlanError(
      f"{path}: the state has a memory of shape {found and list(found)}, the"
      f" model {list(shape)}; it belongs to another model or batch"
    )


def check_past(path: str, state, shape: tuple[int, ...]) -> None:
  """Refuses what is no state of a memory with windows.

  Args:
    path: where, for the message.
    state: anything.
    shape: of the spikes that it remembers, [W, ..., n].

  Raises:
    PlanError: it is of another model or batch.
  """
  past = state.get("past") if isinstance(state, dict) else None
  found = [tuple(getattr(x, "shape", ())) for x in past or ()]
  if found != [shape, shape]:
    raise PlanError(
      f"{path}: the state has past spikes of shapes {found}, the model two of"
      f" {list(shape)}; it belongs to another model or batch"
    )
