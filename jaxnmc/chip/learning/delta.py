"""The delta rule of the last layer in integers: dW = -rate (p - y) h^T.

    x_j    = R(h_j, pre_shift)
    dw_ij  = floor((-e_i x_j + u) / 2^s)     u random, 0 to 2^s - 1
    w_ij   = clip(w_ij + dw_ij, low, high)

with e the error of docs/learning.md, 3 and s such that dw is in codes of the
weights.  A row needs what reaches its neuron anyway (h), its own error, and
random numbers that depend on nothing but seed, example, row and column; so
rows may lie on any core and give the same integers.
"""

import dataclasses

import jax
from flax import struct
from jax import numpy as jnp

from jaxnmc.chip.learning import generator, mismatch
from jaxnmc.chip.learning.counts import Counts
from jaxnmc.chip.learning.head import WORD, Formats, Head, finish, sums
from jaxnmc.errors import ConfigError, FormatError
from jaxnmc.numerics.formats import Format
from jaxnmc.numerics.wide import round_shift

ROUNDINGS = ("stochastic", "nearest")
MAX_SHIFT = 30
MAX_LEFT = 15  # of an error that becomes a change of a bias


@dataclasses.dataclass(frozen=True)
class Delta:
  """The delta rule.

  Attributes:
    rate: the learning rate is 2^rate (usually negative).
    error: "softmax", "perceptron" or "sigmoid".
    rounding: "stochastic", or "nearest" (halves up; small changes are lost).
    seed: of the random numbers.
    error_frac: fraction bits of the error, 1 to 15.
    pre_shift: bits that the input loses as a factor of a change, 0 to 15.

  Raises:
    ConfigError: a field out of its range.
  """

  rate: int = -6
  error: str = "softmax"
  rounding: str = "stochastic"
  seed: int = 0
  error_frac: int = 15
  pre_shift: int = 0

  def __post_init__(self):
    for field, allowed in (
      ("error", mismatch.KINDS),
      ("rounding", ROUNDINGS),
    ):
      found = getattr(self, field)
      if found not in allowed:
        raise ConfigError(
          f"Delta: {field} is {found!r}; allowed are {', '.join(allowed)}"
        )
    limits = {
      "rate": (-40, 20),
      "seed": (-(2**63), 2**63),
      "error_frac": (1, 15),
      "pre_shift": (0, 15),
    }
    for field, (low, high) in limits.items():
      found = getattr(self, field)
      if type(found) is not int or not low <= found <= high:
        raise ConfigError(
          f"Delta: {field} is {found!r}; allowed are whole numbers from {low}"
          f" to {high}"
        )

  def shift(self, formats: Formats) -> int:
    """s: bits that a product loses on its way to a weight.

    Raises:
      FormatError: the rate is too large or too small for these formats.
    """
    bits = self.error_frac + formats.hidden.frac - self.pre_shift
    found = bits - self.rate - formats.weight.frac
    return self._held("weights", found, 0)

  def bias_shift(self, formats: Formats) -> int:
    """The same for biases; below 0 the error is multiplied.

    Raises:
      FormatError: see `shift`.
    """
    assert formats.bias is not None
    found = self.error_frac - self.rate - formats.bias.frac
    return self._held("biases", found, -MAX_LEFT)

  def _held(self, what: str, found: int, least: int) -> int:
    if not least <= found <= MAX_SHIFT:
      low, high = self.rate + found - MAX_SHIFT, self.rate + found - least
      raise FormatError(
        f"Delta: with a rate of 2^{self.rate} a change of {what} is shifted by"
        f" {found} bits, allowed are {least} to {MAX_SHIFT}; take a rate from"
        f" {low} to {high}, or other formats"
      )
    return found


@struct.dataclass
class State:
  """What the rule works on.

  Attributes:
    head: the layer.
    rows: int32[R], rows that learn, or None for all.
    step: int32[], examples so far.
    key: uint32[], of the random numbers.
  """

  head: Head
  rows: jax.Array | None
  step: jax.Array
  key: jax.Array


def _rounded(rule: Delta, value: jax.Array, shift: int, at) -> jax.Array:
  """Changes in codes; `at`: key and counters of the random numbers."""
  if shift <= 0:
    return value << -shift
  if rule.rounding == "nearest":
    return (value + (1 << (shift - 1))) >> shift
  words = generator.word(*at)
  return generator.round_by(value, shift, words)


def _number(mask: jax.Array) -> jax.Array:
  return jnp.sum(mask.astype(jnp.int32), dtype=jnp.int32)


def _clipped(value: jax.Array, fmt: Format):
  """Codes in the format, and how many it clipped."""
  held = jnp.clip(value, fmt.low, fmt.high)
  return held, _number(held != value)


def pre(rule: Delta, formats: Formats, hidden: jax.Array) -> jax.Array:
  """x of the equations: int32[..., D] -> int32[..., D]."""
  top = formats.hidden.high
  return round_shift(hidden, rule.pre_shift, -top, top)


def update(
  rule: Delta, formats: Formats, weight, bias, e, x, draw, rows, columns
):
  """What some synapses do with what is local to them.

  Args:
    rule: the rule.
    formats: of the head.
    weight: int8[R, C].
    bias: int32[R], or None.
    e: int32[R], errors of these rows.
    x: int32[C], `pre` of what arrived from these columns.
    draw: (key uint32[], number of the example int32[]).
    rows: int32[R], which rows of the layer they are.
    columns: int32[C], which columns.

  Returns:
    (weight, bias, `Counts`).
  """
  shift = rule.shift(formats)
  product = -e[:, None] * x[None, :]
  at = (*draw, rows[:, None], columns[None, :])
  change = _rounded(rule, product, shift, at)
  before = weight.astype(jnp.int32)
  after, clipped = _clipped(before + change, formats.weight)
  touched = _number(e != 0)
  updates = _number(product != 0)
  drawn = rule.rounding == "stochastic" and shift > 0
  randoms = updates if drawn else jnp.int32(0)
  biases = jnp.int32(0)
  if bias is not None:
    assert formats.bias is not None
    less = rule.bias_shift(formats)
    # Biases draw as column -1, which no weight is in.
    change = _rounded(rule, -e, less, (*draw, rows, jnp.int32(-1)))
    bias, more = _clipped(bias + change, formats.bias)
    clipped, biases = clipped + more, touched
    if rule.rounding == "stochastic" and less > 0:
      randoms = randoms + touched
  counts = Counts(
    rows=touched,
    updates=updates,
    writes=_number(after != before),
    biases=biases,
    randoms=randoms,
    saturations=clipped,
  )
  return after.astype(jnp.int8), bias, counts


def step(rule: Delta, state: State, example):
  """Learns one example.

  Args:
    rule: static.
    state: before it.
    example: (hidden int32[D], target int32[]).

  Returns:
    (state, (winner int32[] before the change, `Counts`)).
  """
  hidden, target = example
  head, formats = state.head, state.head.formats
  every = jnp.arange(head.weight.shape[0], dtype=jnp.int32)
  z = finish(formats, sums(head.weight, hidden), head.bias)
  frac = formats.logits.frac
  told = mismatch.shared(rule.error, frac, z, every)
  rows = every if state.rows is None else state.rows
  e = mismatch.error(
    rule.error, frac, rule.error_frac, z[rows], rows, target, told
  )
  x = pre(rule, formats, hidden)
  columns = jnp.arange(head.weight.shape[1], dtype=jnp.int32)
  bias = None if head.bias is None else head.bias[rows]
  weight, bias, counts = update(
    *(rule, formats, head.weight[rows], bias, e, x),
    *((state.key, state.step), rows, columns),
  )
  if state.rows is None:
    head = dataclasses.replace(head, weight=weight, bias=bias)
  else:
    if bias is not None:
      assert head.bias is not None
      bias = head.bias.at[rows].set(bias)
    every_weight = head.weight.at[rows].set(weight)
    head = dataclasses.replace(head, weight=every_weight, bias=bias)
  after = state.step + jnp.int32(1)
  state = dataclasses.replace(state, head=head, step=after)
  return state, (told.winner, counts)


def check(rule: Delta, head: Head) -> None:
  """Refuses formats and sizes that the rule has no integers for.

  Raises:
    ConfigError: too many rows.
    FormatError: a rate out of range, or products that leave 32 bits.
  """
  count = head.weight.shape[0]
  if count > mismatch.MAX_ROWS:
    raise ConfigError(
      f"the head has {count} rows; allowed are {mismatch.MAX_ROWS}"
    )
  formats = head.formats
  shift = rule.shift(formats)
  if formats.bias is not None:
    rule.bias_shift(formats)
  if not -6 <= formats.logits.frac <= 40:
    raise FormatError(
      f"logits have {formats.logits.frac} fraction bits; allowed are -6 to 40"
    )
  top = (1 << rule.error_frac) * formats.hidden.high
  assert top + (1 << shift) + formats.weight.high < WORD
