"""The arrays of the stepped machine, and where they lie on the devices."""

from typing import Any

import jax
import numpy as np
from flax import struct

from jaxnmc.chip.engines.sharding import WHOLE, Spread
from jaxnmc.kernels import packed


@struct.dataclass
class State:
  """What the cores remember between steps.

  Attributes:
    valid: bool[depths], the token clock.
    ports: per class int32[M, K, ports, n], accumulators.
    waits: per class a tuple of int32[M, K, length, n] FIFOs, newest first.
    states: per class int32[M, K, states, n].
  """

  valid: jax.Array
  ports: tuple[jax.Array, ...]
  waits: tuple[tuple[jax.Array, ...], ...]
  states: tuple[jax.Array, ...]


@struct.dataclass
class Weights:
  """Everything constant; M, K and P with padding (see `sharding`).

  Attributes:
    consts: per class int32[M, K, C, n], constants of neurons.
    scalars: per class int32[M, S].
    depths: per class int32[M, instructions].
    real: per class bool[M, K, n], where a neuron is.
    src: per group int32[P], member that sends.
    dst: per group int32[P], member that receives.
    weights: per group int8[P, K, n, src width], or None.
    packed: per group the same in two bits each, or None; one of both for a
      dense group, by the rule of `delivery`.
    nonzero: per group int8 or int32[P, src width, K], or None.
  """

  consts: tuple[jax.Array, ...]
  scalars: tuple[jax.Array, ...]
  depths: tuple[jax.Array, ...]
  real: tuple[jax.Array, ...]
  src: tuple[jax.Array, ...]
  dst: tuple[jax.Array, ...]
  weights: tuple[jax.Array | None, ...]
  packed: tuple[jax.Array | None, ...]
  nonzero: tuple[jax.Array | None, ...]


@struct.dataclass
class Seen:
  """What one step shows to the host.

  Attributes:
    taps: per tap int32[width], values that leave the chips.
    out: per value of `Spread.sent` int32[M, K], messages sent.
    each: per group int32[P, K]: of a dense one the entries walked that are
      not zero, of a relay the messages that arrive; else None.
    extremes: per value of `Spread.sent`, then per group: int32[M or P, K, 4]
      (see `checking`); empty unless checked.
  """

  taps: tuple[jax.Array, ...]
  out: tuple[jax.Array, ...]
  each: tuple[jax.Array | None, ...]
  extremes: tuple[jax.Array, ...]


def state_axes(spread: Spread) -> Any:
  """A `State` of the axis along which each array is split."""
  axes = tuple(split.axis for split in spread.classes)
  programs = [cls.program for cls in spread.machine.classes]
  waits = tuple((a,) * len(p.waits) for a, p in zip(axes, programs))
  parts: list[Any] = [WHOLE, axes, waits, axes]
  return State(*parts)


def weight_axes(spread: Spread) -> Any:
  """A `Weights` of the axis along which each array is split."""
  axes = tuple(split.axis for split in spread.classes)
  members = tuple(WHOLE if axis else 0 for axis in axes)
  groups = tuple(split.axis for split in spread.groups)
  pairs = tuple(WHOLE if axis else 0 for axis in groups)
  dense = {i for i, g in enumerate(spread.machine.groups) if g.kind == "dense"}
  among = lambda held: tuple(
    a if i in held else None for i, a in enumerate(groups)
  )
  nonzero = tuple(2 * a if i in dense else None for i, a in enumerate(groups))
  parts: list[Any] = [axes, members, members, axes]
  parts += [pairs, pairs, among(spread.wide), among(spread.packed), nonzero]
  return Weights(*parts)


def seen_specs(spread: Spread, checked: bool) -> Any:
  """A `Seen` of what lies where, behind the axis of steps."""
  of_class = [split.axis for split in spread.classes]
  sent = [of_class[c] for c, _ in spread.sent]
  groups = [split.axis for split in spread.groups]
  spec = lambda axes: tuple(spread.spec(1 + axis) for axis in axes)
  kinds = [g.kind in ("dense", "relay") for g in spread.machine.groups]
  each = tuple(s if k else None for s, k in zip(spec(groups), kinds))
  taps = (spread.spec(WHOLE),) * len(spread.machine.taps)
  extremes = spec([*sent, *groups]) if checked else ()
  parts: list[Any] = [taps, spec(sent), each, extremes]
  return Seen(*parts)


def load(spread: Spread) -> Weights:
  """Puts the machine's constants on the devices."""
  classes, groups = spread.machine.classes, spread.machine.groups
  lay, members = spread.lay, spread.lay_members
  real = [
    np.broadcast_to(cls.real, (len(cls.members), *cls.real.shape))
    for cls in classes
  ]
  swap = lambda x: np.swapaxes(x, 1, 2)
  parts: list[Any] = [
    tuple(lay(i, c.consts) for i, c in enumerate(classes)),
    tuple(members(i, c.scalars) for i, c in enumerate(classes)),
    tuple(members(i, c.depths) for i, c in enumerate(classes)),
    tuple(lay(i, lanes) for i, lanes in enumerate(real)),
    tuple(split.src for split in spread.groups),
    tuple(split.dst for split in spread.groups),
    tuple(
      spread.lay_rows(i, g.weights) if i in spread.wide else None
      for i, g in enumerate(groups)
    ),
    tuple(
      packed.pack(spread.lay_rows(i, g.weights)) if i in spread.packed else None
      for i, g in enumerate(groups)
    ),
    tuple(
      None if g.nonzero is None else swap(spread.lay_rows(i, swap(g.nonzero)))
      for i, g in enumerate(groups)
    ),
  ]
  return jax.tree.map(spread.put, Weights(*parts), weight_axes(spread))


def put_state(spread: Spread, states=None) -> State:
  """The machine with no token in it.

  Args:
    spread: the machine.
    states: per class int32[M, K, states, n], NumPy; None: zeros.

  Returns:
    The state, on the devices.
  """

  def zeros(i: int, words: int) -> np.ndarray:
    size = spread.machine.classes[i].size
    return np.zeros((*spread.classes[i].shape, words, size), np.int32)

  classes = list(enumerate(spread.machine.classes))
  parts: list[Any] = [
    np.zeros(spread.machine.last + 1, bool),
    tuple(zeros(i, c.program.ports) for i, c in classes),
    tuple(
      tuple(zeros(i, length) for _, _, length in c.program.waits)
      for i, c in classes
    ),
    tuple(
      zeros(i, len(c.program.updates))
      if states is None
      else spread.lay(i, states[i])
      for i, c in classes
    ),
  ]
  return jax.tree.map(spread.put, State(*parts), state_axes(spread))
