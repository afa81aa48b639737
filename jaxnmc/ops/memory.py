"""Attention without softmax: a memory of sums, written by k and v, read by q.

Per head of d features, and tokens i (Katharopoulos et al. 2020, arXiv
2006.16236, without feature maps; `jaxnmc.spike.attention` has it on spikes):

    S_i = S_(i-1) + k_i^T v_i        y_i = q_i S_i

The tokens of one call are computed by their scores,

    y_i = q_i S_0 + sum_(0 < j <= i) <q_i, k_j> v_j,

the same sum in another order: exact in integers, and in floats that hold them.

On cores neuron (a, b) of a head holds S[a, b].  Spike a of k and spike b of v
come to it by synapses of weight 1, it adds their product, multiplies what it
has then with spike a of q, and sends that to y[b], which sums over a.

Arrays are time first, features last, any batch axes between; a memory is flat:
[..., heads d d], row k of a head before row k + 1.
"""

import functools

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from jaxnmc.errors import PlanError, TokenError

# Whole numbers in floats stay exact only at full precision.
EXACT = lax.Precision.HIGHEST
READ = ".read"  # behind the name of a memory: what its neurons send


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
  product = lambda form, a, b: jnp.einsum(form, a, b, precision=EXACT)
  scores = jnp.tril(product("t...hd,s...hd->...hts", q, k))
  y = product("...hts,s...hd->t...hd", scores, v)
  y = y + product("t...hd,...hde->t...he", q, before)
  after = before + product("t...hd,t...he->...hde", k, v)
  return y.reshape(*y.shape[:-2], -1), after.reshape(memory.shape)


def reads(
  q: jax.Array, k: jax.Array, v: jax.Array, memory: jax.Array, heads: int
) -> jax.Array:
  """What every neuron of a memory sends: q_i[a] S_i[a, b].

  Arguments as those of `recall`.

  Returns:
    [T, ..., heads d d], dtype of q.
  """
  size = q.shape[-1] // heads
  split = lambda x: x.reshape(*x.shape[:-1], heads, size)
  q, k, v = split(q), split(k), split(v)
  written = jnp.cumsum(k[..., :, None] * v[..., None, :], 0, dtype=q.dtype)
  held = memory.reshape(*memory.shape[:-1], heads, size, size) + written
  read = q[..., :, None] * held
  return read.reshape(*read.shape[:-3], -1)


@functools.lru_cache(maxsize=4)
def wiring(width: int, heads: int) -> tuple[np.ndarray, ...]:
  """Synapses to and from the neurons of the memories, one copy of them.

  Args:
    width: heads d, features of q, k and v.
    heads: number of heads.

  Returns:
    (rows, columns, back): int8[heads d d, width], 1 where neuron (head, a, b)
    gets feature (head, a), or (head, b), and the latter the other way round.
    They are not to be written to.
  """
  size = width // heads
  head, a, b = np.indices((heads, size, size)).reshape(3, -1)
  rows, columns = (np.zeros((head.size, width), np.int8) for _ in "ab")
  neurons = np.arange(head.size)
  rows[neurons, head * size + a] = 1
  columns[neurons, head * size + b] = 1
  found = rows, columns, np.ascontiguousarray(columns.T)
  for array in found:
    array.setflags(write=False)
  return found


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


def check_tokens(path: str, tokens: int, size: int, mask) -> None:
  """Refuses what is known to be more than a memory is bounded for.

  Args:
    path: where, for the message.
    tokens: of one call.
    size: the most there can be.
    mask: 0 for padding, which is not counted here; None for none.

  Raises:
    TokenError: there are more.
  """
  if mask is None and tokens > size:
    raise TokenError(
      f"{path}: {tokens} tokens in one call; the bounds of this memory are for"
      f" at most {size}: give fewer, or a model with a longer context"
    )
