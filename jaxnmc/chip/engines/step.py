"""One time step of the machine, and the loop over steps.

    1. every tile reads its accumulators and runs its neuron program;
    2. values of named sites become messages where a token is present;
    3. synapses add them to accumulators, which are read in the next step.

A token clock (`valid[d]`: a token is at depth d now) gates every state write
and every message; it cannot be inferred from arrivals, because zero is not
sent.  On several devices the messages are exchanged between 2 and 3
(`chip.engines.sharding`).
"""

import functools

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.sharding import NamedSharding

from jaxnmc.chip.engines import checking, delivery
from jaxnmc.chip.engines.arrays import (
  Seen,
  State,
  Weights,
  seen_specs,
  state_axes,
  weight_axes,
)
from jaxnmc.chip.engines.machine import Class, Group, Machine
from jaxnmc.chip.engines.program import run_tile
from jaxnmc.chip.engines.sharding import WHOLE, Spread, Value


def clock(before: jax.Array, injected) -> jax.Array:
  """The token clock one step later: bool[depths].

  Args:
    before: the clock.
    injected: (bool[] whether a token enters, int32[width] its row).
  """
  here, _ = injected
  return jnp.concatenate([here[None], before[:-1]])


def updated(gate: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
  """A state word, int32[M, K, n]: new where a token is, bool[M], else old."""
  return jnp.where(gate[:, None, None], new, old)


def messages(gate: jax.Array, real: jax.Array, x: jax.Array) -> jax.Array:
  """What neurons send, int32[M, K, n]: nothing without a token or a neuron.

  Args:
    gate: bool[M], whether a token is there.
    real: bool[M, K, n], False for padding.
    x: int32[M, K, n], values of the site.
  """
  return jnp.where(gate[:, None, None] & real, x, 0)


def awake(cls: Class, valid: jax.Array, depths: jax.Array) -> jax.Array:
  """Whether a token is in a class, bool[]: nothing in it changes otherwise.

  From the first operand that arrives to the last value that is computed; what
  waits in a FIFO in between moves in every step of that time.

  Args:
    cls: the class.
    valid: the token clock, bool[depths].
    depths: int32[M, instructions].
  """
  ages = [
    max((age for _, _, age in i.operands), default=0)
    for i in cls.program.instructions
  ]
  first = jnp.min(depths - jnp.array(ages, jnp.int32), axis=1)
  at = jnp.arange(valid.shape[0], dtype=jnp.int32)
  inside = (at >= first[:, None]) & (at <= jnp.max(depths, axis=1)[:, None])
  return (inside & valid).any()


def _neurons(cls: Class, named, valid, ports, waits, states, constants):
  """Runs the programs of a class, if a token is there.

  Args:
    cls: the class; its programs are vmapped over members and cores.
    named: instructions whose values are messages.
    valid: the token clock.
    ports: accumulators, as in `State`.
    waits: FIFOs, as in `State`.
    states: state words, as in `State`.
    constants: (consts, scalars, depths, real) of the class, as in `Weights`.

  Returns:
    (messages int32[M, K, n] of each name, waits, states).
  """
  consts, scalars, depths, real = constants

  def run():
    tile = functools.partial(run_tile, cls.program, cls.fixed)
    over_tiles = jax.vmap(tile, in_axes=(0, 0, 0, 0, None))
    values, moved, fresh = jax.vmap(over_tiles)(
      ports, waits, states, consts, scalars
    )
    kept = [
      updated(valid[depths[:, i]], new, states[:, :, word])
      for word, (i, new) in enumerate(zip(cls.program.updates, fresh))
    ]
    sent = [messages(valid[depths[:, i]], real, values[i]) for i in named]
    new = jnp.stack(kept, axis=2) if kept else states
    return tuple(sent), tuple(moved), new

  def rest():
    return tuple(jnp.zeros_like(real, jnp.int32) for _ in named), waits, states

  return lax.cond(awake(cls, valid, depths), run, rest)


def _flat(cls: Class, x: jax.Array) -> jax.Array:
  """Neurons in order: [M, K, n] -> [M, width]."""
  return x.reshape(x.shape[0], -1)[:, : cls.width]


def _exchange(spread: Spread, sent) -> dict[Value, jax.Array]:
  """Messages of all devices, in one collective: value -> int32[M, width]."""
  keys = sorted(spread.gathered)
  if not keys:
    return {}
  parts = [sent[key].reshape(-1) for key in keys]
  own = jnp.concatenate(parts)
  rows = lax.all_gather(own, spread.name)
  ends = np.cumsum([len(part) for part in parts])[:-1]
  found = {}
  for key, part in zip(keys, jnp.split(rows, ends, axis=1)):
    cls, axis = spread.machine.classes[key[0]], spread.classes[key[0]].axis
    part = part.reshape(-1, *sent[key].shape)
    part = jnp.moveaxis(part, 0, axis)  # devices beside what they split
    part = part.reshape(*spread.classes[key[0]].shape, cls.size)
    found[key] = _flat(cls, part)
  return found


def _to_real_rows(x: jax.Array, dst: jax.Array, members: int) -> jax.Array:
  """Messages int32[P, width] of each pair, 0 where the pair is padding."""
  return jnp.where((dst < members)[:, None], x, 0)


def _arrive(spread: Spread, group: Group, shape, x, tables):
  """What a group adds to accumulators, and what it counts.

  Args:
    spread: the machine.
    group: synapses.
    shape: (K, n) of the target on this device.
    x: int32[P, src width], messages of the source of each pair.
    tables: weights, packed weights, non-zero counts, as in `Weights`.

  Returns:
    (int32[P, K, n], counts as in `Seen.each`).
  """
  if group.kind == "dense":
    return delivery.dense(x, *tables)
  shape = (x.shape[0], *shape)
  if group.kind == "reduce":
    total = jnp.sum(x, axis=-1, dtype=jnp.int32)
    return jnp.broadcast_to(total[:, None, None], shape), None
  if group.kind == "gather":
    return jnp.broadcast_to(x[:, :, None], shape), None
  split = spread.classes[group.target]
  tiles, size = split.shape[1], shape[2]
  spare = tiles * size - x.shape[1]
  sums = jnp.pad(x, ((0, 0), (0, spare))).reshape(x.shape[0], tiles, size)
  if tiles != shape[1]:
    first = lax.axis_index(spread.name) * shape[1]
    sums = lax.dynamic_slice_in_dim(sums, first, shape[1], axis=1)
  sent_on = (sums != 0).astype(jnp.int32)
  return sums, jnp.sum(sent_on, axis=-1, dtype=jnp.int32)


def step(
  spread: Spread, checked: bool, weights: Weights, state: State, injected
):
  """Advances all cores by one time step.

  Args:
    spread: static layout; on a mesh this is what one device does.
    checked: also return the extremes of messages and sums.
    weights: its constants.
    state: what the cores remember.
    injected: (bool[] whether a token is injected now, int32[width] its row).

  Returns:
    (state, `Seen`).
  """
  machine = spread.machine
  valid = clock(state.valid, injected)
  names: dict[int, list[int]] = {}
  for c, value in {**dict.fromkeys(spread.sent), **_tapped(machine)}:
    names.setdefault(c, []).append(value)
  sent: dict[Value, jax.Array] = {}
  waits, states = [], []
  for c, cls in enumerate(machine.classes):
    named = names.get(c, [])
    remembered = state.ports[c], state.waits[c], state.states[c]
    constants = weights.consts[c], weights.scalars[c], weights.depths[c]
    found, moved, kept = _neurons(
      cls, named, valid, *remembered, (*constants, weights.real[c])
    )
    sent |= {(c, value): x for value, x in zip(named, found, strict=True)}
    waits.append(moved)
    states.append(kept)
  everywhere = _exchange(spread, sent)

  ports = [jnp.zeros_like(p) for p in state.ports]
  each, extremes = [], []
  if checked:
    extremes = [checking.of_messages(sent[key]) for key in spread.sent]
  for g, (group, split) in enumerate(zip(machine.groups, spread.groups)):
    if group.source is None:
      here, row = injected
      part = list(machine.entries.values())[group.value]
      x = jnp.where(here, row[part], 0)[None]
    elif split.local:
      cls = machine.classes[group.source]
      x = _flat(cls, sent[group.source, group.value])
      here = valid[weights.depths[group.source][:, group.value]].any()
    else:
      x = everywhere[group.source, group.value]
      here = (x != 0).any()
    target, to = ports[group.target], weights.dst[g]
    x = _to_real_rows(x[weights.src[g]], to, target.shape[0])
    arrive = functools.partial(
      _arrive,
      *(spread, group, (target.shape[1], target.shape[3]), x),
      (weights.weights[g], weights.packed[g], weights.nonzero[g]),
    )
    nothing = jax.tree.map(
      lambda like: jnp.zeros(like.shape, like.dtype), jax.eval_shape(arrive)
    )
    sums, walked = lax.cond(here, arrive, lambda nothing=nothing: nothing)
    ports[group.target] = target.at[to, :, group.port].set(sums, mode="drop")
    each.append(walked)
    if checked:
      real = weights.real[group.target].at[to].get(mode="clip")
      limbs = checking.wide_sums(group.kind, x, sums, weights.weights[g])
      extremes.append(checking.of_sums(limbs, real))

  def tapped(tap):
    split = spread.classes[tap.cls]
    key = tap.cls, tap.value
    found = everywhere.get(key)
    if found is None:
      found = _flat(machine.classes[tap.cls], sent[key])
    return found[int(split.slots[tap.member])]

  seen = Seen(
    tuple(tapped(tap) for tap in machine.taps),
    tuple(
      jnp.sum((sent[key] != 0).astype(jnp.int32), axis=-1, dtype=jnp.int32)
      for key in spread.sent
    ),
    tuple(each),
    tuple(extremes),
  )
  state = State(valid, tuple(ports), tuple(waits), tuple(states))
  return state, seen


def _tapped(machine: Machine) -> dict[Value, None]:
  return dict.fromkeys((tap.cls, tap.value) for tap in machine.taps)


# --- the loop


def _loop(spread, checked, weights, state, injected, steps):
  """The first `steps` of the steps in `injected`."""
  body = functools.partial(step, spread, checked, weights)
  at = lambda i: jax.tree.map(lambda x: x[i], injected)
  _, shapes = jax.eval_shape(body, state, at(0))
  length = len(injected[0])
  seen = jax.tree.map(lambda x: jnp.zeros((length, *x.shape), x.dtype), shapes)

  def one(i, carry):
    state, seen = carry
    state, now = body(state, at(i))
    return state, jax.tree.map(lambda all, x: all.at[i].set(x), seen, now)

  return lax.fori_loop(0, steps, one, (state, seen))


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def run_chunk(
  spread: Spread,
  checked: bool,
  weights: Weights,
  state: State,
  injected,
  steps,
):
  """Steps a chunk: one compiled program for any number of steps.

  Args:
    spread: static layout.
    checked: see `step`.
    weights: constants.
    state: donated.
    injected: (bool[S], int32[S, width]).
    steps: int32[], how many of the S steps to take.

  Returns:
    (state, `Seen` with a leading axis of S; zeros after the last step).
  """
  loop = functools.partial(_loop, spread, checked)
  if spread.mesh is None:
    return loop(weights, state, injected, steps)
  spec = lambda axes: jax.tree.map(spread.spec, axes)
  at_weights, at_state = spec(weight_axes(spread)), spec(state_axes(spread))
  whole = spread.spec(WHOLE)
  # Taps are equal on all devices, which their types cannot say.
  state, seen = jax.shard_map(
    loop,
    mesh=spread.mesh,
    in_specs=(at_weights, at_state, (whole, whole), whole),
    out_specs=(at_state, seen_specs(spread, checked)),
    check_vma=False,
  )(weights, state, injected, steps)
  # The host of every process reads what was seen on all devices.
  same = NamedSharding(spread.mesh, whole)
  return state, lax.with_sharding_constraint(seen, same)
