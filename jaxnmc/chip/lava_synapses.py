"""Synapses bit for bit as Lava's: dense, and stored ones with delays.

With the weights Wq of `jaxnmc.chip.lava_weights`, e = weight_exp and messages
s (s != 0, as 0 and 1, if num_message_bits = 0; else the integers sent):

    a = (Wq s) << e  for e > 0,  (Wq s) >> -e  (floor, after the sum) otherwise

What is received in step t arrives in step t + 1; through a synapse of delay d
in step t + 1 + d, and then each delay has its own sum and its own shift.  The
buffers start at 0.  A synapse is a pytree (weights are leaves) with

    init() -> state                         pytree of int32
    step(state, messages) -> (state, a)     int32[in] -> int32[out]

pure and in int32.  Sums are exact for |s| <= `largest_message`; beyond, an
accumulator of 32 bits wraps.  Source: docs/neurons.md.
"""

import dataclasses

import jax
import numpy as np
from flax import struct
from jax import lax
from jax import numpy as jnp

from jaxnmc.chip import lava_weights
from jaxnmc.chip.hardware import LOIHI2_FACTS
from jaxnmc.errors import ConfigError
from jaxnmc.numerics.weights import Stored

WORD = 2**31 - 1


def _static():
  return struct.field(pytree_node=False)


@dataclasses.dataclass(frozen=True)
class Rule:
  """What a synapse does with messages and sums; static.

  Attributes:
    weight_exp: e, -32 to 31.
    num_message_bits: 0 for binary messages, else their width, up to 32.
    largest_message: the largest |message| with which no sum leaves int32.
  """

  weight_exp: int
  num_message_bits: int
  largest_message: int

  @classmethod
  def of(cls, owner: str, weight_exp, num_message_bits, fan_in: int):
    """Checked.

    Args:
      owner: the synapse, for messages.
      weight_exp: see the class.
      num_message_bits: see the class.
      fan_in: the largest sum of |Wq| over one target (and delay, if all of
        them can arrive together, over all delays).

    Raises:
      ConfigError: out of range, or a binary message from every source could
        already leave 32 bits.
    """
    exp = lava_weights.whole_number(
      owner, "weight_exp", weight_exp, lava_weights.WEIGHT_EXP
    )
    bits = lava_weights.whole_number(
      owner, "num_message_bits", num_message_bits, lava_weights.MESSAGE_BITS
    )
    sum_of_one = max(fan_in << max(exp, 0), 1)
    if sum_of_one > WORD:
      raise ConfigError(
        f"{owner}: weight_exp is {exp}, so the activation of one target can"
        f" reach {sum_of_one} with messages of 1; allowed is {WORD} (32 bits)"
      )
    largest = 1 if bits == 0 else WORD // sum_of_one
    return cls(exp, bits, largest)

  def read(self, owner: str, messages: jax.Array, width: int) -> jax.Array:
    """The integers s of the equations, int32[in].

    Raises:
      ConfigError: not int32[in].
    """
    dtype = getattr(messages, "dtype", type(messages).__name__)
    if dtype != np.int32 or messages.shape != (width,):
      found = f"{dtype}{list(np.shape(messages))}"
      raise ConfigError(
        f"{owner}: messages are {found}; allowed are int32[{width}]"
      )
    messages = jnp.asarray(messages)
    if self.num_message_bits == 0:
      return (messages != 0).astype(jnp.int32)
    return messages

  def shift(self, sums: jax.Array) -> jax.Array:
    """int32[...] shifted by the exponent."""
    if self.weight_exp > 0:
      return sums << self.weight_exp
    # A floor shift by more than 31 is one by 31.
    return sums >> min(-self.weight_exp, 31)

  def overflows(self, messages: jax.Array) -> jax.Array:
    """True where a message is larger than sums are made for: bool[in]."""
    if self.num_message_bits == 0:
      return jnp.zeros(messages.shape, bool)
    limit = self.largest_message
    return (messages > limit) | (messages < -limit)


@struct.dataclass
class Dense:
  """All-to-all synapses; make one with `Dense.of`.

  Attributes:
    weights: Wq, int32[out, in].
    rule: exponent and message width.
  """

  weights: Stored
  rule: Rule = _static()

  @classmethod
  def of(
    cls,
    weights,
    *,
    weight_exp: int = 0,
    num_weight_bits: int = 8,
    num_message_bits: int = 0,
    sign_mode: str | None = None,
  ) -> "Dense":
    """From weights as a user writes them.

    Args:
      weights: int[out, in], -256 to 255.
      weight_exp: exponent of two, -32 to 31.
      num_weight_bits: bits kept of a weight, 1 to 8.
      num_message_bits: 0 for binary messages, else their width, up to 32.
      sign_mode: "mixed", "excitatory" or "inhibitory"; None finds out.

    Returns:
      The synapses.

    Raises:
      ConfigError: something is out of range, or sums cannot fit 32 bits.
    """
    matrix = lava_weights.whole_array("Dense", "weights", weights, 2)
    kept = lava_weights.prepare("Dense", matrix, num_weight_bits, sign_mode)
    fan_in = int(np.abs(kept).sum(1, dtype=np.int64).max())
    return cls(kept, Rule.of("Dense", weight_exp, num_message_bits, fan_in))

  def init(self) -> jax.Array:
    """The buffer, int32[out]: nothing has arrived."""
    return jnp.zeros(self.weights.shape[0], jnp.int32)

  def step(
    self, state: jax.Array, messages: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """One time step.

    Args:
      state: int32[out], what was received in the last step.
      messages: int32[in].

    Returns:
      (state, activation int32[out] that arrives now).

    Raises:
      ConfigError: messages are not int32[in].
    """
    s = self.rule.read("Dense", messages, self.weights.shape[1])
    sums = lax.dot_general(
      jnp.asarray(self.weights),
      s,
      (((1,), (0,)), ((), ())),
      preferred_element_type=jnp.int32,
    )
    return self.rule.shift(sums), state


@struct.dataclass
class _Rows:
  """Stored weights by row, padded to the longest: weight 0 of source 0."""

  index: Stored  # int32[rows, longest]
  weight: Stored  # int32[rows, longest]

  @classmethod
  def of(cls, row: np.ndarray, source: np.ndarray, weight: np.ndarray, n: int):
    order = np.argsort(row, kind="stable")
    row = row[order]
    counts = np.bincount(row, minlength=n)
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = (n, max(int(counts.max(initial=0)), 1))
    index, table = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    index[row, place] = source[order]
    table[row, place] = weight[order]
    return cls(index, table)

  def sums(self, s: jax.Array) -> jax.Array:
    """int32[in] -> int32[rows]."""
    products = jnp.asarray(self.weight) * s[jnp.asarray(self.index)]
    return jnp.sum(products, axis=-1, dtype=jnp.int32)


def _stored(shape, *entries):
  """Checks stored entries: ((out, in), rows, columns, weights, delays)."""
  owner = "Sparse"
  if not isinstance(shape, tuple | list) or len(shape) != 2:
    raise ConfigError(
      f"{owner}: shape is {shape!r}; allowed is a pair (out, in)"
    )
  size = tuple(
    lava_weights.whole_number(owner, f"shape[{i}]", n, (1, WORD))
    for i, n in enumerate(shape)
  )
  fields = ("rows", "columns", "weights", "delays")
  arrays = [
    lava_weights.whole_array(owner, field, x, 1)
    for field, x in zip(fields, entries, strict=True)
  ]
  lengths = [len(x) for x in arrays]
  if len(set(lengths)) > 1:
    raise ConfigError(
      f"{owner}: {', '.join(fields)} have {lengths} entries;"
      " allowed are equally many"
    )
  for field, x, n in zip(fields, arrays, size):
    lava_weights.in_range(owner, field, x, 0, n - 1)
  flat = arrays[0].astype(np.int64) * size[1] + arrays[1]
  if len(np.unique(flat)) < len(flat):
    raise ConfigError(
      f"{owner}: {len(flat) - len(np.unique(flat))} entries are given twice;"
      " allowed is one weight per pair of neurons"
    )
  return size, *arrays


def _fan_in(rows: np.ndarray, weights: np.ndarray) -> int:
  sums = np.bincount(rows, np.abs(weights))  # in float64, exact below 2^53
  return int(sums.max(initial=0))


@struct.dataclass
class Sparse:
  """Stored synapses, with delays or without; made by `of` or `from_dense`.

  Memory is delays times targets times the largest fan-in of one delay.

  Attributes:
    rows: stored weights by delay and target: row delay * out + target.
    rule: exponent and message width.
    shape: (out, in).
    depth: largest delay + 1.
  """

  rows: _Rows
  rule: Rule = _static()
  shape: tuple[int, int] = _static()
  depth: int = _static()

  @classmethod
  def of(
    cls,
    shape,
    rows,
    columns,
    weights,
    delays=None,
    *,
    weight_exp: int = 0,
    num_weight_bits: int = 8,
    num_message_bits: int = 0,
    sign_mode: str | None = None,
  ) -> "Sparse":
    """From stored entries.

    Args:
      shape: (out, in).
      rows: int[stored], targets.
      columns: int[stored], sources.
      weights: int[stored], -256 to 255; what is not stored is 0.
      delays: int[stored], steps, 0 to the chip's `delay_max`; None for 0.
      weight_exp: as in `Dense.of`, like all that follow.
      num_weight_bits: see there.
      num_message_bits: see there.
      sign_mode: see there.

    Returns:
      The synapses.

    Raises:
      ConfigError: as `Dense.of`; or an entry outside the shape, or twice; or a
        delay out of range.
    """
    if delays is None:
      delays = np.zeros(np.shape(weights), int)
    size, row, column, weight, delay = _stored(
      shape, rows, columns, weights, delays
    )
    longest = LOIHI2_FACTS["delay_max"].value
    assert longest is not None
    lava_weights.in_range("Sparse", "delays", delay, 0, int(longest))
    kept = lava_weights.prepare("Sparse", weight, num_weight_bits, sign_mode)
    rule = Rule.of("Sparse", weight_exp, num_message_bits, _fan_in(row, kept))
    depth = int(delay.max()) + 1
    stacked = delay.astype(np.int64) * size[0] + row
    table = _Rows.of(stacked, column, kept, depth * size[0])
    return cls(table, rule, size, depth)

  @classmethod
  def from_dense(cls, weights, delays=None, **parameters) -> "Sparse":
    """From a matrix of weights, and one of delays; zeros are not stored.

    Args:
      weights: int[out, in].
      delays: int[out, in], or None for 0.
      **parameters: as of `Sparse.of`.

    Raises:
      ConfigError: as `Sparse.of`, or matrices of different shapes, or no
        weight but zeros.
    """
    matrix = lava_weights.whole_array("Sparse", "weights", weights, 2)
    stored = np.nonzero(matrix)
    if not len(stored[0]):
      raise ConfigError("Sparse: all weights are 0; allowed is at least one")
    steps = None
    if delays is not None:
      steps = lava_weights.whole_array("Sparse", "delays", delays, 2)
      if matrix.shape != steps.shape:
        raise ConfigError(
          f"Sparse: delays are {list(steps.shape)}, weights"
          f" {list(matrix.shape)}; allowed are equal shapes"
        )
      steps = steps[stored]
    row, column = stored
    weight = matrix[stored]
    return cls.of(matrix.shape, row, column, weight, steps, **parameters)

  def init(self) -> jax.Array:
    """What arrives in k steps, int32[depth, out]: nothing."""
    return jnp.zeros((self.depth, self.shape[0]), jnp.int32)

  def step(
    self, state: jax.Array, messages: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """One time step.

    Args:
      state: int32[depth, out], what arrives now, in the next step, ...
      messages: int32[in].

    Returns:
      (state, activation int32[out] that arrives now).

    Raises:
      ConfigError: messages are not int32[in].
    """
    s = self.rule.read("Sparse", messages, self.shape[1])
    fresh = self.rule.shift(self.rows.sums(s)).reshape(state.shape)
    later = jnp.concatenate([state[1:], jnp.zeros_like(state[:1])])
    return later + fresh, state[0]
