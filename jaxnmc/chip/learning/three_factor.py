"""Rules of three factors: sums of products of what a synapse sees.

    dw_ij = round_by(sum over terms of scale * product of factors, shift, word)

Factors are what arrives and was sent in this step, a decaying trace of either,
a third one (an error, a reward) that its neuron was told, and the weight
itself.  The form is that of the chip's learning engine; widths, the order in
which traces decay, and what it has besides are in docs/learning.md, 5.
"""

import dataclasses
import math

import jax
from flax import struct
from jax import numpy as jnp

from jaxnmc.chip.learning import generator
from jaxnmc.chip.learning.counts import Counts
from jaxnmc.chip.learning.delta import MAX_SHIFT, ROUNDINGS, Delta
from jaxnmc.chip.learning.head import WORD, Formats
from jaxnmc.errors import ConfigError, FormatError
from jaxnmc.numerics import decay
from jaxnmc.numerics.formats import symmetric_limit

FACTORS = ("x0", "x1", "y0", "y1", "r", "w")
DECAY_BITS = 12
MAX_TOP = 2**15


@dataclasses.dataclass(frozen=True)
class Trace:
  """What is remembered of messages.

  Attributes:
    keep: kept in a step, of 4096 (`of_time` makes it of a time constant).
    impulse: that a message of 1 adds.
    top: |trace| is at most this.
  """

  keep: int = 0
  impulse: int = 1
  top: int = 127

  @classmethod
  def of_time(cls, tau: float, impulse: int = 1, top: int = 127) -> "Trace":
    """A trace that falls to 1/e in `tau` steps.

    Raises:
      ConfigError: `tau` is not positive.
    """
    if not tau > 0:
      raise ConfigError(f"Trace: tau is {tau!r}; allowed are steps above 0")
    keep = math.floor(math.exp(-1 / tau) * (1 << DECAY_BITS) + 0.5)
    return cls(keep, impulse, top)


@dataclasses.dataclass(frozen=True)
class Term:
  """A product with a whole number.

  Attributes:
    factors: of `FACTORS`: x0, y0 messages of this step; x1, y1 their traces
      before it; r the third factor; w the weight.
    scale: in front of it.
  """

  factors: tuple[str, ...]
  scale: int = 1


@dataclasses.dataclass(frozen=True)
class ThreeFactor:
  """A rule.

  Attributes:
    terms: what is summed up.
    shift: bits that the sum loses on its way to a weight, 0 to 30.
    pre: trace of what arrives.
    post: trace of what the neuron sends.
    pre_top: largest |x0|.
    post_top: largest |y0|.
    third_top: largest |r|.
    weight_bits: of a weight, 2 to 8.
    rounding: "stochastic" or "nearest".
    seed: of the random numbers.

  Raises:
    ConfigError: a field out of its range, or an unknown factor.
    FormatError: a sum could leave 32 bits.
  """

  terms: tuple[Term, ...]
  shift: int
  pre: Trace = Trace()
  post: Trace = Trace()
  pre_top: int = 127
  post_top: int = 127
  third_top: int = 1
  weight_bits: int = 8
  rounding: str = "stochastic"
  seed: int = 0

  def __post_init__(self):
    if self.rounding not in ROUNDINGS:
      raise ConfigError(
        f"ThreeFactor: rounding is {self.rounding!r}; allowed are"
        f" {', '.join(ROUNDINGS)}"
      )
    limits = {"shift": (0, MAX_SHIFT), "weight_bits": (2, 8)}
    limits |= dict.fromkeys(("pre_top", "post_top", "third_top"), (0, MAX_TOP))
    for field, (low, high) in limits.items():
      _whole(field, getattr(self, field), low, high)
    for name in ("pre", "post"):
      trace: Trace = getattr(self, name)
      _whole(f"{name}.keep", trace.keep, 0, 1 << DECAY_BITS)
      _whole(f"{name}.top", trace.top, 0, MAX_TOP)
      _whole(f"{name}.impulse", trace.impulse, -MAX_TOP, MAX_TOP)
    if not self.terms:
      raise ConfigError("ThreeFactor: terms is empty; give at least one Term")
    bound = 1 << self.shift
    tops = self._tops()
    for term in self.terms:
      unknown = [f for f in term.factors if f not in FACTORS]
      if unknown or not term.factors:
        raise ConfigError(
          f"ThreeFactor: a term has factors {term.factors!r}; allowed are one"
          f" or more of {', '.join(FACTORS)}"
        )
      bound += abs(term.scale) * math.prod(tops[f] for f in term.factors)
    if bound >= WORD:
      raise FormatError(
        f"ThreeFactor: a change could reach {bound} before it is shifted by"
        f" {self.shift} bits, allowed is {WORD - 1}; take smaller scales,"
        " traces or messages"
      )

  def _tops(self) -> dict[str, int]:
    """Largest magnitude of each factor."""
    high = symmetric_limit(self.weight_bits)
    tops = (self.pre_top, self.pre.top, self.post_top, self.post.top)
    return dict(zip(FACTORS, (*tops, self.third_top, high)))


def _whole(field: str, found, low: int, high: int) -> None:
  if type(found) is not int or not low <= found <= high:
    raise ConfigError(
      f"ThreeFactor: {field} is {found!r}; allowed are whole numbers from"
      f" {low} to {high}"
    )


@struct.dataclass
class State:
  """Synapses that learn.

  Attributes:
    weight: int8[R, C].
    pre: int32[C], traces.
    post: int32[R], traces.
    step: int32[], steps so far.
    key: uint32[], of the random numbers.
  """

  weight: jax.Array
  pre: jax.Array
  post: jax.Array
  step: jax.Array
  key: jax.Array


def init(rule: ThreeFactor, weight) -> State:
  """Weights int[R, C] with traces of 0, before step 0."""
  weight = jnp.asarray(weight, jnp.int8)
  rows, columns = weight.shape
  zeros = lambda n: jnp.zeros(n, jnp.int32)
  start = jnp.int32(0)
  return State(
    weight, zeros(columns), zeros(rows), start, generator.key(rule.seed)
  )


def step(rule: ThreeFactor, state: State, inputs, rows=None, columns=None):
  """One time step.

  Args:
    rule: static.
    state: before it.
    inputs: (x0 int32[C], y0 int32[R], r int32[R]); the caller vouches that they
      are inside of the tops of the rule.
    rows: int32[R], which rows of a larger matrix these are; None: all of it.
    columns: int32[C], the same of columns.

  Returns:
    (state, `Counts`).
  """
  now, sent, third = inputs
  if rows is None:
    rows = jnp.arange(state.weight.shape[0], dtype=jnp.int32)
  if columns is None:
    columns = jnp.arange(state.weight.shape[1], dtype=jnp.int32)
  old_pre = decay.scale(state.pre, rule.pre.keep, DECAY_BITS)
  old_post = decay.scale(state.post, rule.post.keep, DECAY_BITS)
  before = state.weight.astype(jnp.int32)
  seen = {"x0": now[None, :], "x1": old_pre[None, :], "w": before}
  seen |= {"y0": sent[:, None], "y1": old_post[:, None], "r": third[:, None]}
  total = jnp.zeros_like(before)
  for term in rule.terms:
    product = jnp.int32(term.scale)
    for name in term.factors:
      product = product * seen[name]
    total = total + product
  change, shift = total, rule.shift
  if shift and rule.rounding == "nearest":
    change = (total + (1 << (shift - 1))) >> shift
  elif shift:
    at = (state.step, rows[:, None], columns[None, :])
    words = generator.word(state.key, *at)
    change = generator.round_by(total, shift, words)
  high = symmetric_limit(rule.weight_bits)
  wanted = before + change
  after = jnp.clip(wanted, -high, high)
  number = lambda mask: jnp.sum(mask.astype(jnp.int32), dtype=jnp.int32)
  updates = number(total != 0)
  drawn = bool(shift) and rule.rounding == "stochastic"
  counts = Counts(
    rows=number((total != 0).any(axis=1)),
    updates=updates,
    writes=number(after != before),
    biases=jnp.int32(0),
    randoms=updates if drawn else jnp.int32(0),
    saturations=number(after != wanted),
  )
  state = dataclasses.replace(
    state,
    weight=after.astype(jnp.int8),
    pre=_remember(rule.pre, old_pre, now),
    post=_remember(rule.post, old_post, sent),
    step=state.step + jnp.int32(1),
  )
  return state, counts


def _remember(trace: Trace, old: jax.Array, now: jax.Array) -> jax.Array:
  # Both are at most 2^15 in magnitude, their product below 2^31.
  return jnp.clip(old + trace.impulse * now, -trace.top, trace.top)


def delta(rule: Delta, formats: Formats) -> ThreeFactor:
  """The delta rule in this form: dw = -r x0, r the error of the row.

  Feed it with `delta.pre` of the input and `mismatch.error`; weights are then
  those of `delta.update`, bit for bit.  Biases are not in it.

  Args:
    rule: the delta rule.
    formats: of the layer.

  Raises:
    FormatError: as `Delta.shift`.
  """
  return ThreeFactor(
    terms=(Term(("x0", "r"), -1),),
    shift=rule.shift(formats),
    pre_top=formats.hidden.high,
    third_top=1 << rule.error_frac,
    weight_bits=formats.weight.bits,
    rounding=rule.rounding,
    seed=rule.seed,
  )
