"""The synapse walk: every message adds its row of weights to the targets.

What a core does with a message: look up its row, walk it, add weight times
payload to the accumulators.  The work is that of the messages there are, so a
quiet network is a fast one; zero is no message.  Two layouts of a row:

    Rows:   a weight for every target
    Lists:  the targets of the stored weights, and these

The native kernel walks rows; lists, and rows without it, are walked by a loop
in XLA.  Both forms give the same sums.
"""

import jax
import numpy as np
from flax import struct
from jax import lax
from jax import numpy as jnp

from jaxnmc.kernels import native
from jaxnmc.numerics.weights import Stored

# An entry of a list costs as much as so many positions of a row: measured with
# XLA, and with the native kernel (from caches more, from memory 20 to 50).
ENTRY_COST = {"xla": 10, "native": 30}


@struct.dataclass
class Rows:
  """Weights for every target: w = weight << shift.

  Attributes:
    weight: int8, int16 or int32[in, out].
    shift: common power of two.
  """

  weight: Stored
  shift: int = struct.field(pytree_node=False)

  @property
  def shape(self) -> tuple[int, int]:
    """(out, in)."""
    n_in, n_out = self.weight.shape
    return n_out, n_in

  def zeros(self) -> jax.Array:
    """Empty accumulators."""
    return jnp.zeros(self.weight.shape[1], jnp.int32)

  def add(self, sums: jax.Array, source, payload) -> jax.Array:
    """Accumulators after the walk of one message."""
    return sums + _row(self.weight, source).astype(jnp.int32) * payload


@struct.dataclass
class Lists:
  """Stored weights of every source, padded to the longest list.

  Attributes:
    target: int32[in, longest]; padding points behind the last target, each
      entry of a list at a place of its own.
    weight: int8, int16 or int32[in, longest], 0 in the padding.
    out: number of targets.
    shift: common power of two.
  """

  target: Stored
  weight: Stored
  out: int = struct.field(pytree_node=False)
  shift: int = struct.field(pytree_node=False)

  @property
  def shape(self) -> tuple[int, int]:
    """(out, in)."""
    return self.out, self.weight.shape[0]

  def zeros(self) -> jax.Array:
    """Empty accumulators, and places for the padding behind them."""
    return jnp.zeros(self.out + self.weight.shape[1], jnp.int32)

  def add(self, sums: jax.Array, source, payload) -> jax.Array:
    """Accumulators after the walk of one message."""
    added = _row(self.weight, source).astype(jnp.int32) * payload
    # Sorting for equal targets, or checking their range, would cost more
    # than the sum itself.
    return sums.at[_row(self.target, source)].add(
      added, unique_indices=True, mode="promise_in_bounds"
    )


Table = Rows | Lists


def _row(array, i) -> jax.Array:
  """Row i, without the copy of the whole array that indexing may make."""
  array = jnp.asarray(array)
  start = (i, jnp.zeros_like(i))
  return lax.dynamic_slice(array, start, (1, array.shape[1]))[0]


def _narrow(weights: np.ndarray) -> tuple[np.ndarray, int]:
  """The same weights in the smallest type, less their common power of two."""
  every = int(np.bitwise_or.reduce(np.abs(weights.astype(np.int64)), None))
  shift = (every & -every).bit_length() - 1 if every else 0
  small = weights >> shift
  for dtype in (np.int8, np.int16, np.int32):
    limits = np.iinfo(dtype)
    low, high = small.min(initial=0), small.max(initial=0)
    if limits.min <= low and high <= limits.max:
      return np.ascontiguousarray(small, dtype), shift
  raise ValueError(f"weights of {low} to {high} do not fit 32 bits")


def entry_cost() -> int:
  """The ratio that decides between rows and lists here."""
  return ENTRY_COST["native" if native.available() else "xla"]


def table(target, source, weight, shape: tuple[int, int]) -> Table:
  """Lays stored weights out, in the form whose walk is cheaper.

  Args:
    target: int[stored], below shape[0].
    source: int[stored], below shape[1].
    weight: int[stored], in 32 bits; a pair of neurons occurs once.
    shape: (out, in).

  Returns:
    The table, on the host.
  """
  out, n_in = shape
  target, source, weight = (np.asarray(x) for x in (target, source, weight))
  fan_out = np.bincount(source, minlength=n_in)
  longest = max(int(fan_out.max(initial=0)), 1)
  small, shift = _narrow(weight)
  if longest * entry_cost() >= out:
    rows = np.zeros((n_in, out), small.dtype)
    rows[source, target] = small
    return Rows(rows, shift)
  order = np.argsort(source, kind="stable")
  place = np.arange(len(order)) - np.repeat(
    np.cumsum(fan_out) - fan_out, fan_out
  )
  spare = np.arange(out, out + longest, dtype=np.int32)
  targets = np.tile(spare, (n_in, 1))
  weights = np.zeros((n_in, longest), small.dtype)
  targets[source[order], place] = target[order]
  weights[source[order], place] = small[order]
  return Lists(targets, weights, out, shift)


def of_matrix(weights: np.ndarray) -> Table:
  """The table of int[out, in]; zeros are not stored."""
  target, source = np.nonzero(weights)
  return table(target, source, weights[target, source], weights.shape)


def matrix(stored: Table) -> np.ndarray:
  """The weights again, int32[out, in], on the host."""
  weight = np.asarray(stored.weight).astype(np.int32) << stored.shift
  if isinstance(stored, Rows):
    return weight.T
  n_in, longest = weight.shape
  out = np.zeros((stored.out + longest, n_in), np.int32)
  out[np.asarray(stored.target), np.arange(n_in)[:, None]] = weight
  return out[: stored.out]


def events(messages: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Who sends: (int32[in], first the senders in order, int32[] how many)."""
  n = messages.shape[0]
  sent = messages != 0
  rank = jnp.cumsum(sent, dtype=jnp.int32)
  # Those that are silent write behind the end.
  place = jnp.where(sent, rank - 1, n)
  index = jnp.zeros(n, jnp.int32)
  index = index.at[place].set(jnp.arange(n, dtype=jnp.int32), mode="drop")
  return index, rank[-1]


def walk(stored: Table, messages: jax.Array) -> jax.Array:
  """Sums of weight times message at every target.

  Args:
    stored: the table.
    messages: int32[in]; 0 is not walked.

  Returns:
    int32[out]; sums wrap like int32 where they do not fit.
  """
  if isinstance(stored, Rows) and native.available():
    return native_walk(stored, messages)
  return xla_walk(stored, messages)


def native_walk(stored: Rows, messages: jax.Array) -> jax.Array:
  """`walk` by the native kernel: it knows who sends without a list."""
  call = jax.ffi.ffi_call(
    native.WALK,
    jax.ShapeDtypeStruct((stored.shape[0],), jnp.int32),
    vmap_method="sequential",
  )
  return call(messages, jnp.asarray(stored.weight)) << stored.shift


def xla_walk(stored: Table, messages: jax.Array) -> jax.Array:
  """`walk` by a loop over the messages there are, on any device."""
  index, count = events(messages)

  def one(i, sums):
    source = index[i]
    return stored.add(sums, source, messages[source])

  sums = lax.fori_loop(jnp.int32(0), count, one, stored.zeros())
  return sums[: stored.shape[0]] << stored.shift
