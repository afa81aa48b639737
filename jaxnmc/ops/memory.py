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
from jax import lax
from jax import numpy as jnp

from jaxnmc.errors import PlanError


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
  # Whole numbers in floats stay exact only at full precision.
  product = lambda form, a, b: jnp.einsum(
    form, a, b, precision=lax.Precision.HIGHEST
  )
  scores = jnp.tril(product("t...hd,s...hd->...hts", q, k))
  y = product("...hts,s...hd->t...hd", scores, v)
  y = y + product("t...hd,...hde->t...he", q, before)
  after = before + product("t...hd,t...he->...hde", k, v)
  return y.reshape(*y.shape[:-2], -1), after.reshape(memory.shape)


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
