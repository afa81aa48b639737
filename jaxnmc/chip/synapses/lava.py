"""Synapses bit for bit as Lava's: dense, and stored ones with delays.

With the weights Wq of `jaxnmc.chip.synapses.weights`, e = weight_exp and
messages s (s != 0, as 0 and 1, if num_message_bits = 0; else the integers
sent):

    a = (Wq s) << e  for e > 0,  (Wq s) >> -e  (floor, after the sum) otherwise

What is received in step t arrives in step t + 1; through a synapse of delay d
in step t + 1 + d, and then each delay has its own sum and its own shift.  The
buffers start at 0.  A synapse is a pytree (weights are leaves) with

    init() -> state                         int32[depth, out]
    arriving(state) -> a                    int32[out], what arrives now
    deliver(state, messages) -> state       int32[in], walked
    step(state, messages) -> (state, a)     both: a does not depend on messages

pure and in int32.  Sums are exact for |s| <= `largest_message`; beyond, an
accumulator of 32 bits wraps.  Source: docs/neurons.md.
"""

import dataclasses

import jax
import numpy as np
from flax import struct
from jax import numpy as jnp

from jaxnmc.chip.hardware import LOIHI2_FACTS
from jaxnmc.chip.synapses import weights as lava_weights
from jaxnmc.errors import ConfigError
from jaxnmc.kernels import walk

WORD = 2**31 - 1


def _static():
  return struct.field(pytree_node=False)


@dataclasses.dataclass(frozen=True)
class Rule:
  """What a synapse does with messages and sums; static.

  Attributes:
    weight_exp: e, -32 to 31.
    num_message_bits: 0 for binary messages, else their width, up to 32.
    fan_in: the largest sum of |Wq| over one target and all delays.
    largest_message: the largest |message| with which no sum leaves int32.
  """

  weight_exp: int
  num_message_bits: int
  fan_in: int
  largest_message: int

  @classmethod
  def of(cls, owner: str, weight_exp, num_message_bits, fan_in: int):
    """Checked.

    Args:
      owner: the synapse, for messages.
      weight_exp: see the class.
      num_message_bits: see the class.
      fan_in: see the class.

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
    return cls(exp, bits, fan_in, largest)

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

  def reach(self, largest: int) -> int:
    """The largest |activation| of messages up to +-largest."""
    sums = self.fan_in * (1 if self.num_message_bits == 0 else largest)
    if self.weight_exp > 0:
      return sums << self.weight_exp
    return -(-sums >> -self.weight_exp)  # the floor of a negative sum

  def overflows(self, messages: jax.Array) -> jax.Array:
    """True where a message is larger than sums are made for: bool[in]."""
    if self.num_message_bits == 0:
      return jnp.zeros(messages.shape, bool)
    limit = self.largest_message
    return (messages > limit) | (messages < -limit)


class _Synapse:
  """What both kinds do with the fields they share."""

  table: walk.Table
  rule: Rule
  depth: int
  bits: int

  @property
  def shape(self) -> tuple[int, int]:
    """(out, in)."""
    stacked, source = self.table.shape
    return stacked // self.depth, source

  @property
  def weights(self) -> np.ndarray:
    """Wq of all delays together, int32[out, in], on the host."""
    stacked = walk.matrix(self.table)
    return stacked.reshape(self.depth, *self.shape).sum(0, dtype=np.int32)

  @property
  def stored_bits(self) -> int:
    """Bits of a stored weight and its delay; 2, 4 or 8 of the weight."""
    weight = next(b for b in (2, 4, 8) if b >= self.bits)
    return weight + (self.depth - 1).bit_length()

  @property
  def mantissas(self) -> np.ndarray:
    """`weights` without their common power of two, as a core stores them."""
    return (self.weights >> self.table.shift).astype(np.int16)

  def init(self) -> jax.Array:
    """What arrives now, in the next step, ...: nothing, int32[depth, out]."""
    return jnp.zeros((self.depth, self.shape[0]), jnp.int32)

  def arriving(self, state: jax.Array) -> jax.Array:
    """What arrives now, int32[out]."""
    return state[0]

  def deliver(self, state: jax.Array, messages: jax.Array) -> jax.Array:
    """The end of a step: walks messages, int32[in]; gives the new state.

    Raises:
      ConfigError: messages are not int32[in].
    """
    s = self.rule.read(type(self).__name__, messages, self.shape[1])
    fresh = self.rule.shift(walk.walk(self.table, s)).reshape(state.shape)
    later = jnp.concatenate([state[1:], jnp.zeros_like(state[:1])])
    return later + fresh

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
    return self.deliver(state, messages), self.arriving(state)


@struct.dataclass
class Dense(_Synapse):
  """All-to-all synapses; make one with `Dense.of`.

  Attributes:
    table: the weights Wq, by source.
    rule: exponent and message width.
    bits: bits kept of a weight.
  """

  table: walk.Table
  rule: Rule = _static()
  bits: int = _static()

  depth = 1

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
    rule = Rule.of("Dense", weight_exp, num_message_bits, fan_in)
    return cls(walk.of_matrix(kept), rule, int(num_weight_bits))


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
class Sparse(_Synapse):
  """Stored synapses, with delays or without; made by `of` or `from_dense`.

  Attributes:
    table: the weights Wq, by source; target delay * out + target.
    rule: exponent and message width.
    depth: largest delay + 1.
    bits: bits kept of a weight.
  """

  table: walk.Table
  rule: Rule = _static()
  depth: int = _static()
  bits: int = _static()

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
    table = walk.table(stacked, column, kept, (depth * size[0], size[1]))
    return cls(table, rule, depth, int(num_weight_bits))

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
