"""Clusters of a vocabulary: which tokens lie together.

By frequency, or by similar rows; deterministic, and as even as can be.
"""

import math
from typing import Any

import jax
import numpy as np
from flax import struct
from jax import numpy as jnp

from jaxnmc.errors import ConfigError

__all__ = ["Clusters", "by_frequency", "by_rows", "from_assignment", "number"]


@struct.dataclass
class Clusters:
  """Which token lies where.

  Attributes:
    members: int32[C, M], ids of each cluster, ascending; V where there is none.
    cluster: int32[V], of each token.
    slot: int32[V], its place in there.
  """

  members: jax.Array
  cluster: jax.Array
  slot: jax.Array


def number(vocab_size: int) -> int:
  """The usual number of clusters: sqrt(V), rounded up."""
  return math.isqrt(vocab_size - 1) + 1


def from_assignment(cluster: np.ndarray, count: int) -> Clusters:
  """Clusters from that of each token.

  Args:
    cluster: int[V], 0 ... count - 1.
    count: C.
  """
  size = len(cluster)
  order = np.argsort(cluster, kind="stable")
  sizes = np.bincount(cluster, minlength=count)
  slot = np.empty(size, np.int32)
  slot[order] = np.arange(size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
  members = np.full((count, int(sizes.max())), size, np.int32)
  members[cluster, slot] = np.arange(size)
  return Clusters(
    *(jnp.asarray(a, jnp.int32) for a in (members, cluster, slot))
  )


def _check(size: int, clusters: int | None) -> int:
  count = number(size) if clusters is None else clusters
  good = isinstance(count, int) and not isinstance(count, bool)
  if not good or not 1 <= count <= size:
    raise ConfigError(
      f"two-stage head: found {count!r} clusters for {size} tokens, allowed are"
      f" 1 to {size}; about {number(size)} read the fewest rows"
    )
  return count


def by_frequency(counts: Any, clusters: int | None = None) -> Clusters:
  """Frequent tokens together: by count, then id, in pieces of one size.

  Args:
    counts: how often each token occurs, int[V].
    clusters: C; `number(V)` if None.

  Raises:
    ConfigError: an impossible number of clusters.
  """
  counts = np.asarray(counts)
  count = _check(len(counts), clusters)
  order = np.argsort(-counts, kind="stable")
  cluster = np.empty(len(counts), np.int32)
  cluster[order] = np.arange(len(counts)) * count // len(counts)
  return from_assignment(cluster, count)


def by_rows(
  weight: Any, clusters: int | None = None, *, rounds: int = 10
) -> Clusters:
  """Similar rows together: k-means with clusters of at most ceil(V / C).

  Deterministic.  It begins with tokens in the order of their place on the first
  principal axis, in pieces of one size.  In each round every token asks for the
  nearest centre that has room, a centre takes the nearest of those that ask,
  and who is left asks again; then centres become means.

  Args:
    weight: float[V, D], rows of the head (a bias may be one more column).
    clusters: C; `number(V)` if None.
    rounds: of assignment and means; it stops where nothing changes.

  Raises:
    ConfigError: an impossible number of clusters, or no matrix.
  """
  rows = np.asarray(weight, np.float64)
  if rows.ndim != 2:
    raise ConfigError(
      f"two-stage head: the rows have the shape {list(rows.shape)}, allowed is"
      " [V, D]"
    )
  size = len(rows)
  count = _check(size, clusters)
  room = -(-size // count)
  middle = rows - rows.mean(0)
  axis = np.linalg.eigh(middle.T @ middle)[1][:, -1]
  # An eigenvector has no sign of its own.
  axis = axis * (1 if axis[np.argmax(np.abs(axis))] > 0 else -1)
  cluster = np.empty(size, np.int64)
  order = np.argsort(middle @ axis, kind="stable")
  cluster[order] = np.arange(size) * count // size
  for _ in range(rounds):
    centres = _means(rows, cluster, count)
    far = (centres**2).sum(1) - 2 * rows @ centres.T
    new = _assign(far, room)
    if (new == cluster).all():
      break
    cluster = new
  return from_assignment(cluster, count)


def _means(rows: np.ndarray, cluster: np.ndarray, count: int) -> np.ndarray:
  """Mean row of each cluster; zeros where it is empty."""
  sums = np.zeros((count, rows.shape[1]))
  np.add.at(sums, cluster, rows)
  sizes = np.bincount(cluster, minlength=count)
  return sums / np.maximum(sizes, 1)[:, None]


def _assign(far: np.ndarray, room: int) -> np.ndarray:
  """The cluster of each token, none with more than `room`: int[V]."""
  size, count = far.shape
  cluster = np.full(size, -1)
  left = np.full(count, room)
  while (cluster < 0).any():
    asking = np.flatnonzero(cluster < 0)
    open_ = np.where(left > 0, far[asking], np.inf)
    wish = open_.argmin(1)
    # By cluster, then nearness, then id.
    order = np.lexsort((asking, open_[np.arange(len(asking)), wish], wish))
    asking, wish = asking[order], wish[order]
    first = np.searchsorted(wish, wish)
    taken = np.arange(len(wish)) - first < left[wish]
    cluster[asking[taken]] = wish[taken]
    left -= np.bincount(wish[taken], minlength=count)
  return cluster
