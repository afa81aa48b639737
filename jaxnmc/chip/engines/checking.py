"""Checked mode: what a run did against what the chip can hold.

Engines return, per token and tile, the extremes of

    messages      the values that a site sent
    accumulators  the sum that a port held when its neuron read it

The sums are exact, in two limbs v = 2^16 high + low with 0 <= low < 2^16, so
an int32 that wrapped is seen, too; order of arrival plays no part, because a
sum that passes the limit and comes back is the same in two's complement.  The
host compares them with `message_bits` and `accumulator_bits` of the hardware,
and the messages that arrive at a core in one step with `inbox_messages`.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.chip.counting.folding import series
from jaxnmc.chip.engines import states
from jaxnmc.chip.network import Network
from jaxnmc.chip.placement.tiles import Placement
from jaxnmc.chip.routing.segments import Segment
from jaxnmc.chip.routing.traffic import Route, Tiling, split_tiles
from jaxnmc.errors import ChipError, PlanError
from jaxnmc.kernels.ternary import batched_digit_sums, digit_sums
from jaxnmc.ops.graph import Graph

_LIMB = 16
_MASK = (1 << _LIMB) - 1
# A longer sum of low limbs would leave int32.
_MOST_SUMMED = 1 << 15


# --- on the devices


def _limbs(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  return x >> _LIMB, x & _MASK


def _join(hi: jax.Array, lo: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Limbs of 256 hi + lo."""
  hi, lo = hi + (lo >> 8), lo & 255
  return hi >> 8, ((hi & 255) << 8) | lo


def wide_sums(kind: str, x: jax.Array, sums: jax.Array, weights):
  """What a group adds to accumulators, exactly.

  Args:
    kind: as in `Synapse`.
    x: int32[P, src width], messages.
    sums: int32[P, K, n], the same, perhaps wrapped.
    weights: int8[P, K, n, src width] or None.

  Returns:
    (high, low), int32[P, K, n].
  """
  if kind == "dense":
    codes = weights.reshape(x.shape[0], -1, x.shape[1])
    hi, lo = batched_digit_sums(x, codes)
    return _join(hi.reshape(sums.shape), lo.reshape(sums.shape))
  if kind == "reduce":
    high, low = (jnp.sum(limb, axis=-1, dtype=jnp.int32) for limb in _limbs(x))
    high, low = high + (low >> _LIMB), low & _MASK
    full = lambda limb: jnp.broadcast_to(limb[:, None, None], sums.shape)
    return full(high), full(low)
  return _limbs(sums)


def of_sums(limbs, real: jax.Array) -> jax.Array:
  """Extremes over neurons: int32[..., 4], (high, low) of most and of least.

  Args:
    limbs: (high, low), int32[..., n].
    real: bool[..., n], False for padding, which is taken as 0.
  """
  high, low = (jnp.where(real, limb, 0) for limb in limbs)
  top = jnp.max(high, axis=-1, keepdims=True)
  bottom = jnp.min(high, axis=-1, keepdims=True)
  most = jnp.max(jnp.where(high == top, low, -1), axis=-1)
  least = jnp.min(jnp.where(high == bottom, low, _MASK + 1), axis=-1)
  return jnp.stack([top[..., 0], most, bottom[..., 0], least], axis=-1)


def of_messages(x: jax.Array) -> jax.Array:
  """Extremes of messages int32[..., n] as `of_sums`; padding sends 0."""
  return of_sums(_limbs(x), jnp.ones(x.shape, bool))


def of_route(route: Route, x: jax.Array, codes: jax.Array | None) -> jax.Array:
  """Extremes of the messages and sums of a synapse, for whole sequences.

  Args:
    route: the synapse.
    x: int32[T, src width], the values sent.
    codes: int8[dst width, src width] of a dense synapse onto chips, or None.

  Returns:
    int32[T, 4 * (source tiles + target tiles)].
  """
  parts = [_by_tile(_limbs(x), route.src)]
  if route.dst.count:
    kind = route.synapse.kind
    width = int(route.dst.sizes.sum())
    if kind == "dense":
      assert codes is not None
      limbs = _join(*digit_sums(x, codes))
    else:
      sums = jnp.broadcast_to(x[:, :1], (len(x), width))
      limbs = wide_sums(kind, x, x if kind == "relay" else sums, None)
    parts.append(_by_tile(limbs, route.dst))
  return jnp.concatenate(parts, axis=-1)


def _by_tile(limbs, cut: Tiling) -> jax.Array:
  """`of_sums` of the neurons of each tile, int32[T, 4 * tiles]."""
  rows = len(limbs[0])
  if not cut.count:
    return jnp.zeros((rows, 0), jnp.int32)
  tiled = [split_tiles(limb, cut) for limb in limbs]
  real = jnp.ones(tiled[0].shape, bool)
  return of_sums(tiled, real).reshape(rows, -1)


# --- on the host


def check_summable(net: Network) -> None:
  """Refuses sums that are too long to be checked.

  Raises:
    PlanError: see there.
  """
  for synapse in net.synapses:
    width = net.populations[synapse.src].width
    if synapse.kind == "reduce" and width > _MOST_SUMMED:
      raise PlanError(
        f"checked=True: {synapse.path} is a sum of {width:,} values; at most"
        f" {_MOST_SUMMED:,} can be checked; leave checked=True out"
      )


def check_state(graph: Graph, state) -> None:
  """Refuses a state with codes out of their format.

  Raises:
    ChipError: the site, the code and its limits.
  """
  leaves, _ = states.parts(graph, state)
  for value, (leaf, _) in zip(leaves, states.slots(graph)):
    codes = np.asarray(value.q)
    low, high = int(codes.min()), int(codes.max())
    if low < leaf.low or high > leaf.high:
      raise ChipError(
        f"{leaf.site}: the state handed in holds"
        f" {low if low < leaf.low else high:,}; its format allows"
        f" {leaf.low:,} to {leaf.high:,}; take a state that fixed or loihi"
        " returned"
      )


@dataclasses.dataclass(frozen=True)
class Clock:
  """Numbers of steps and tokens in the words of the caller.

  Attributes:
    steps: steps before step 0 of what is checked.
    tokens: tokens before its first one.
  """

  steps: int = 0
  tokens: int = 0


def check_extremes(
  placement: Placement,
  routes: Sequence[Route],
  inject: np.ndarray,
  extremes: Sequence[tuple],
  clock: Clock = Clock(),
) -> None:
  """Refuses messages and sums that the chip cannot hold; the earliest first.

  Args:
    placement: where the tiles are.
    routes: counted synapses.
    inject: step of each token, int[T].
    extremes: per route (messages int32[T, source tiles, 4] or None, sums
      int32[T, target tiles, 4] or None), as `of_sums`.
    clock: where steps and tokens start.

  Raises:
    ChipError: core, population, step, the number and the limit.
  """
  hardware = placement.hardware
  found: list[tuple] = []
  for route, pair in zip(routes, extremes, strict=True):
    synapse = route.synapse
    ends = ("message_bits", synapse.src), ("accumulator_bits", synapse.dst)
    for (limit, population), rows in zip(ends, pair):
      bits = getattr(hardware, limit)
      if bits is None or rows is None or not rows.size:
        continue
      limbs = rows.astype(np.int64)
      most = (limbs[..., 0] << _LIMB) + limbs[..., 1]
      least = (limbs[..., 2] << _LIMB) + limbs[..., 3]
      high = (1 << (bits - 1)) - 1
      wrong = (most > high) | (least < ~high)
      if wrong.any():
        token, tile = np.argwhere(wrong)[0]
        value = (most if most[token, tile] > high else least)[token, tile]
        step = int(inject[token]) + synapse.depth
        index = placement.tiles_of[population][tile]
        order = (step, limit == "accumulator_bits", index)
        found.append((*order, int(token), int(value), limit, synapse))
  if found:
    raise ChipError(_out_of_range(placement, min(found, key=_order), clock))


def _order(found: tuple) -> tuple:
  return found[:3]


def _out_of_range(placement: Placement, found: tuple, clock: Clock) -> str:
  step, _, index, token, value, limit, synapse = found
  hardware = placement.hardware
  bits = getattr(hardware, limit)
  high = (1 << (bits - 1)) - 1
  what = f"message {synapse.path}"
  if limit == "accumulator_bits":
    what = f"accumulator of {synapse.path}"
  return (
    f"{_where(placement, index)}, step {step + clock.steps} (token"
    f" {token + clock.tokens}): {what} is {value:,}; {hardware.name} has"
    f" {limit}={bits}, {~high:,} to {high:,}; choose a plan with fewer bits at"
    " this site, or other hardware"
  )


def _where(placement: Placement, index: int) -> str:
  tile = placement.tiles[index]
  return (
    f"population {tile.population} on core {tile.core} of chip {tile.chip}"
    f" (neurons {tile.start} to {tile.stop - 1})"
  )


def check_inboxes(
  placement: Placement, segment: Segment, before: int = 0
) -> None:
  """Refuses a step in which more messages reach a core than its inbox holds.

  A value arrives once per tile that reads it, as in `messages_in`.

  Args:
    placement: where the tiles are.
    segment: what happened.
    before: steps before the segment.

  Raises:
    ChipError: core, population that received most, step and the limit.
  """
  hardware = placement.hardware
  room = hardware.inbox_messages
  if room is None:
    return
  tiles = series(segment, placement, "messages_in")
  cores = placement.sum_by(placement.tile_core, tiles)
  wrong = np.argwhere(cores > room)
  if not len(wrong):
    return
  step, core = wrong[0]
  mine = np.flatnonzero(placement.tile_core == core)
  index = int(mine[tiles[step, mine].argmax()])
  raise ChipError(
    f"{_where(placement, index)}, step {step + before}: {cores[step, core]:,}"
    f" messages reach this core, {tiles[step, index]:,} of them this"
    f" population; {hardware.name} has inbox_messages={room:,}; spread the"
    " populations over more cores, or let tokens enter further apart"
  )
