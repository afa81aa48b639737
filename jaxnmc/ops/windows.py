"""A memory of sums whose heads may forget all but the last tokens.

Sliding windows (Beltagy et al. 2020, arXiv 2004.05150) over the sums of
`memory`; for a head with window w

    S_i = S_(i-1) + k_i^T v_i - k_(i-w)^T v_(i-w)

which stays whole, and needs the spikes of the last w tokens beside S.  Tokens
are those that are not padding.
"""

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.errors import PlanError
from jaxnmc.ops.memory import EXACT

Windows = tuple[int | None, ...]


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
  size, reach = q.shape[-1] // heads, widest(windows)
  split = lambda x: x.reshape(*x.shape[:-1], heads, size)
  product = lambda form, *x: jnp.einsum(form, *x, precision=EXACT)
  known = 0 if past is None else reach
  apart, behind, own = _distances(q.shape[:-1], known, mask)
  k_past, v_past = (None, None) if past is None else past
  keys = k if k_past is None else jnp.concatenate([k_past, k])
  values = v if v_past is None else jnp.concatenate([v_past, v])
  # Heads without a window read all of this call, and what was before in S.
  endless = np.array([w is None for w in windows])
  wide = np.array([w or 0 for w in windows])
  near = lambda far: jnp.where(endless, own[..., None], far[..., None] < wide)
  within = near(apart) & (apart >= 0)[..., None]
  q, keys, values = split(q), split(keys), split(values)
  scores = product("t...hd,s...hd->...hts", q, keys)
  scores *= jnp.moveaxis(within, (0, 1), (-2, -1)).astype(scores.dtype)
  before = memory.reshape(*memory.shape[:-1], heads, size, size)
  before = before * endless[:, None, None].astype(before.dtype)
  y = product("...hts,s...hd->t...hd", scores, values)
  y = y + product("t...hd,...hde->t...he", q, before)
  kept = keys * near(behind)[..., None].astype(keys.dtype)
  after = before + product("t...hd,t...he->...hde", kept, values)
  flat = lambda x: x.reshape(*x.shape[:-2], -1)
  newest = lambda x: _newest(flat(x), reach, mask is not None, behind)
  spikes = newest(keys), newest(values)
  return flat(y), after.reshape(memory.shape), spikes


def _newest(x: jax.Array, count: int, padded: bool, behind) -> jax.Array:
  """The last `count` real tokens, oldest first, zeros where there are fewer.

  Args:
    x: [S, ..., n].
    count: how many.
    padded: some of the tokens may be padding.
    behind: int32[S, ...], real tokens behind each, -1 for padding.

  Returns:
    [count, ..., n], dtype of x.
  """
  if not padded:
    kept = x[-count:]
    missing = jnp.zeros((count - len(kept), *x.shape[1:]), x.dtype)
    return jnp.concatenate([missing, kept])
  slots = jnp.arange(count - 1, -1, -1).reshape(-1, *(1,) * behind.ndim)
  chosen = (behind[None] == slots).astype(x.dtype)
  return jnp.einsum("ps...,s...n->p...n", chosen, x, precision=EXACT)


def _distances(shape: tuple[int, ...], known: int, mask):
  """Where tokens are, seen from others; first come `known` ones of before.

  Args:
    shape: of the tokens of this call, [T, ...].
    known: S - T, tokens of the calls before.
    mask: [T, ...] or None.

  Returns:
    (real tokens from s on up to t, itself left out, int32[T, S, ...], below 0
    for later ones; those behind s, int32[S, ...], -1 where s is padding;
    whether s is of this call, bool[S, ...]).
  """
  real = jnp.ones(shape, jnp.int32)
  if mask is not None:
    real = (jnp.asarray(mask) != 0).astype(jnp.int32)
  rank = jnp.cumsum(real, 0, jnp.int32)
  batch = (1,) * (len(shape) - 1)
  before = jnp.arange(1 - known, 1, dtype=jnp.int32).reshape(-1, *batch)
  place = jnp.concatenate([jnp.broadcast_to(before, (known, *shape[1:])), rank])
  order = jnp.arange(-known, shape[0])
  later = order[None] > jnp.arange(shape[0])[:, None]
  later = later.reshape(*later.shape, *batch)
  apart = jnp.where(later, -1, rank[:, None] - place[None])
  old = jnp.ones((known, *shape[1:]), jnp.int32)
  behind = jnp.where(jnp.concatenate([old, real]) == 1, rank[-1] - place, -1)
  return apart, behind, order.reshape(-1, *batch) >= 0


def widest(windows: Windows) -> int:
  """The widest window; 0 if no head has one."""
  return max((w for w in windows if w is not None), default=0)


def stacked(ages: list) -> jax.Array:
  """Values of 1, 2, ... tokens ago as [W, ..., n], oldest first."""
  return jnp.stack(ages[::-1])


def by_age(past: jax.Array) -> list:
  """`stacked`, backwards."""
  return list(past[::-1])


def delayed(path: str, name: str, site: str | None, count: int) -> list:
  """Names of the spikes of `count` tokens, from the last one back.

  Args:
    path: of the memory.
    name: "k" or "v".
    site: of the spikes as they come.
    count: how many.
  """
  return [site, *(f"{path}.{name}.{age}" for age in range(1, count))]


def check_past(path: str, state, count: int, shape: tuple[int, ...]) -> None:
  """Refuses what is no state of a memory with windows.

  Args:
    path: where, for the message.
    state: anything.
    count: tokens that it remembers one by one.
    shape: of the spikes of a token, [..., n].

  Raises:
    PlanError: it is of another model or batch.
  """
  past = state.get("past") if isinstance(state, dict) else None
  found = [
    [tuple(getattr(x, "shape", ())) for x in ages] for ages in past or ()
  ]
  if found != [[tuple(shape)] * count] * 2:
    raise PlanError(
      f"{path}: the state does not hold the spikes k and v of the last {count}"
      f" tokens, {list(shape)} each; it belongs to another model or batch"
    )
