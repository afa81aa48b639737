"""Learning from a list of examples: hidden states and rows that are right."""

import dataclasses
import functools

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from jaxnmc.chip.costs.figures import Figure
from jaxnmc.chip.learning import counts, delta, generator
from jaxnmc.chip.learning.counts import Counts
from jaxnmc.chip.learning.delta import Delta
from jaxnmc.chip.learning.head import Head, in_format, predict
from jaxnmc.errors import ConfigError


@dataclasses.dataclass(frozen=True, eq=False)
class Log:
  """What happened, example by example in the order they were learnt.

  Attributes:
    order: int32[steps], index of each example.
    right: bool[steps], whether the head was right before it learnt it.
    counts: int32[steps] of every kind of event.
    weight_bits: bits of a weight.
  """

  order: np.ndarray
  right: np.ndarray
  counts: Counts
  weight_bits: int

  def totals(self) -> dict[str, int]:
    """Events of all examples, and `examples`, their number."""
    return {"examples": len(self.order), **self.counts.totals()}

  def energy(self, **options) -> dict[str, Figure]:
    """Labelled figures of `counts.energy`, with its options."""
    return counts.energy(self.totals(), weight_bits=self.weight_bits, **options)


@functools.partial(jax.jit, static_argnums=0)
def _run(rule: Delta, state: delta.State, hidden, targets, order):
  def one(state, at):
    return delta.step(rule, state, (hidden[at], targets[at]))

  return lax.scan(one, state, order)


def _integers(name: str, values, axes: int) -> np.ndarray:
  found = np.asarray(values)
  if found.ndim != axes or not np.issubdtype(found.dtype, np.integer):
    wanted = "[N, D]" if axes == 2 else "[N]"
    raise ConfigError(
      f"{name} is {found.dtype}{list(found.shape)}; allowed are integers"
      f" {wanted}"
    )
  return found


def _rows(name: str, values, count: int) -> np.ndarray:
  found = _integers(name, values, 1)
  wrong = np.flatnonzero((found < 0) | (found >= count))
  if len(wrong):
    raise ConfigError(
      f"{name}[{wrong[0]}] is {found[wrong[0]]}; the head has rows 0 to"
      f" {count - 1}"
    )
  return found.astype(np.int32)


def tune(
  head: Head,
  hidden,
  targets,
  rule: Delta,
  *,
  rows=None,
  epochs: int = 1,
  shuffle: bool = True,
  start: int = 0,
) -> tuple[Head, Log]:
  """Learns examples one after the other, by the delta rule in integers.

  Args:
    head: the layer.
    hidden: int[N, D], codes of what it reads.
    targets: int[N], the row that is right for each.
    rule: the rule.
    rows: rows that may change (any order, each once), or None for all.  The
      others take part in the error, and their targets may be among `targets`,
      so that old examples can be rehearsed.
    epochs: how often all examples are learnt.
    shuffle: in the random order of `generator.order`, another in every epoch;
      else as they come.
    start: number of the first step: that of an earlier call goes on there, so
      that no random number is used twice.

  Returns:
    (the head afterwards, `Log`).

  Raises:
    ConfigError: arrays of other shapes, no integers, unknown rows, no examples.
    FormatError: codes out of their format, or a rate that does not fit it.
  """
  delta.check(rule, head)
  count, width = head.weight.shape
  found = _integers("hidden", hidden, 2)
  if found.shape[1] != width:
    raise ConfigError(
      f"hidden has {found.shape[1]} columns, the head {width}; allowed are as"
      " many"
    )
  in_format("hidden", found, head.formats.hidden)
  right = _rows("targets", targets, count)
  if len(right) != len(found) or not len(right):
    raise ConfigError(
      f"hidden has {len(found)} examples, targets {len(right)}; allowed are as"
      " many of both, at least one"
    )
  if type(epochs) is not int or epochs < 1:
    raise ConfigError(f"epochs is {epochs!r}; allowed are whole numbers from 1")
  if type(start) is not int or not 0 <= start < 2**31 - epochs * len(right):
    raise ConfigError(
      f"start is {start!r}; allowed are whole numbers from 0, and steps below"
      " 2^31"
    )
  some = None
  if rows is not None:
    chosen = _rows("rows", rows, count)
    if not len(chosen) or len(np.unique(chosen)) < len(chosen):
      raise ConfigError(
        f"rows has {len(chosen)} entries, {len(np.unique(chosen))} of them"
        " different; give each row that learns once, at least one"
      )
    some = jnp.asarray(chosen)
  each = [
    np.asarray(generator.order(rule.seed, start + epoch, len(right)))
    if shuffle
    else np.arange(len(right), dtype=np.int32)
    for epoch in range(epochs)
  ]
  order = np.concatenate(each)
  key = generator.key(rule.seed)
  state = delta.State(head, some, jnp.int32(start), key)
  state, (winners, events) = _run(
    # The seed is data: another one needs no other program.
    *(dataclasses.replace(rule, seed=0), state),
    *(jnp.asarray(found, jnp.int32), jnp.asarray(right), order),
  )
  winners, events = jax.device_get((winners, events))
  bits = head.formats.weight.bits
  return state.head, Log(order, winners == right[order], events, bits)


def accuracy(head: Head, hidden, targets) -> float:
  """Share of examples whose largest logit is that of the target.

  Args:
    head: the layer.
    hidden: int[N, D] codes.
    targets: int[N].
  """
  found = np.asarray(predict(head, jnp.asarray(hidden, jnp.int32)))
  return float((found == np.asarray(targets)).mean())
