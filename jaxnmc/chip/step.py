"""One time step of the machine, and the scan over steps.

    1. every tile reads its accumulators and runs its neuron program;
    2. values of named sites become messages where a token is present;
    3. synapses add them to accumulators, which are read in the next step.

A token clock (`valid[d]`: a token is at depth d now) gates every state write
and every message; it cannot be inferred from arrivals, because zero is not
sent.
"""

import functools

import jax
from flax import struct
from jax import lax
from jax import numpy as jnp

from jaxnmc.chip import traffic
from jaxnmc.chip.machine import Class, Group, Machine
from jaxnmc.chip.program import run_tile
from jaxnmc.kernels.ternary import batched_ternary_matmul


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
  """Everything constant.

  Attributes:
    consts: per class int32[M, K, C, n], constants of neurons.
    scalars: per class int32[M, S].
    weights: per group int8[P, K * n, src width], or None.
    nonzero: per group int8 or int32[P, src width, K], or None.
  """

  consts: tuple[jax.Array, ...]
  scalars: tuple[jax.Array, ...]
  weights: tuple[jax.Array | None, ...]
  nonzero: tuple[jax.Array | None, ...]


def load(machine: Machine) -> Weights:
  """Puts the machine's constants on the device."""
  put = lambda x: None if x is None else jnp.asarray(x)
  return Weights(
    tuple(jnp.asarray(c.consts) for c in machine.classes),
    tuple(jnp.asarray(c.scalars) for c in machine.classes),
    tuple(put(g.weights) for g in machine.groups),
    tuple(put(g.nonzero) for g in machine.groups),
  )


def zero_state(machine: Machine) -> State:
  """The machine before its first token."""

  def zeros(cls: Class, words: int) -> jax.Array:
    shape = (len(cls.members), cls.tiles, words, cls.size)
    return jnp.zeros(shape, jnp.int32)

  classes = machine.classes
  return State(
    jnp.zeros(machine.last + 1, bool),
    tuple(zeros(c, c.program.ports) for c in classes),
    tuple(
      tuple(zeros(c, length) for _, _, length in c.program.waits)
      for c in classes
    ),
    tuple(zeros(c, len(c.program.updates)) for c in classes),
  )


def _neurons(cls: Class, valid, ports, waits, states, consts, scalars):
  """Runs the programs of a class: vmapped over members and cores."""
  tile = functools.partial(run_tile, cls.program, cls.fixed)
  over_tiles = jax.vmap(tile, in_axes=(0, 0, 0, 0, None))
  values, waits, fresh = jax.vmap(over_tiles)(
    ports, waits, states, consts, scalars
  )
  if not fresh:
    return values, tuple(waits), states
  gates = [valid[cls.depths[:, i]][:, None, None] for i in cls.program.updates]
  kept = [
    jnp.where(gate, new, states[:, :, i])
    for i, (gate, new) in enumerate(zip(gates, fresh, strict=True))
  ]
  return values, tuple(waits), jnp.stack(kept, axis=2)


def _sent(cls: Class, value: int, values, valid) -> jax.Array:
  """Messages of one value, int32[M, width]: gated, padding removed."""
  x = values[value]
  x = x.reshape(x.shape[0], -1)[:, cls.place]
  here = valid[cls.depths[:, value]]
  return jnp.where(here[:, None], x, 0)


def _arrive(cls: Class, group: Group, x: jax.Array, weights) -> jax.Array:
  """What a group adds to accumulators, int32[P, K, n]."""
  shape = (x.shape[0], cls.tiles, cls.size)
  if group.kind == "dense":
    return batched_ternary_matmul(x, weights).reshape(shape)
  if group.kind == "reduce":
    total = jnp.sum(x, axis=-1, dtype=jnp.int32)
    return jnp.broadcast_to(total[:, None, None], shape)
  if group.kind == "gather":
    x = jnp.broadcast_to(x, (x.shape[0], cls.width))
  flat = jnp.zeros((x.shape[0], cls.tiles * cls.size), jnp.int32)
  return flat.at[:, cls.place].set(x).reshape(shape)


def step(machine: Machine, weights: Weights, state: State, injected):
  """Advances all cores by one time step.

  Args:
    machine: static layout.
    weights: its constants.
    state: what the cores remember.
    injected: (bool[] whether a token is injected now, int32[width] its row).

  Returns:
    (state, (taps, counts)): for each tap the value int32[width], and for each
    group int32[P, columns] counts (see `chip.traffic`).
  """
  here, row = injected
  valid = jnp.concatenate([here[None], state.valid[:-1]])
  values, waits, states = [], [], []
  for c, cls in enumerate(machine.classes):
    out = _neurons(
      cls,
      valid,
      *(state.ports[c], state.waits[c], state.states[c]),
      *(weights.consts[c], weights.scalars[c]),
    )
    values.append(out[0])
    waits.append(out[1])
    states.append(out[2])

  ports = [jnp.zeros_like(p) for p in state.ports]
  counts = []
  for g, group in enumerate(machine.groups):
    if group.source is None:
      x = jnp.where(here, row, 0)[None]
    else:
      cls = machine.classes[group.source]
      x = _sent(cls, group.value, values[group.source], valid)
    x = x[group.src]
    target = machine.classes[group.target]
    sums = _arrive(target, group, x, weights.weights[g])
    ports[group.target] = (
      ports[group.target].at[group.dst, :, group.port].set(sums)
    )
    counts.append(_count(machine, group, x, weights.nonzero[g]))
  counts.extend(_host_counts(machine, values, valid))
  taps = tuple(
    values[t.cls][t.value][t.member].reshape(-1)[machine.classes[t.cls].place]
    for t in machine.taps
  )
  state = State(valid, tuple(ports), tuple(waits), tuple(states))
  return state, (taps, tuple(counts))


def _count(machine, group: Group, x, nonzero):
  route = machine.routes[group.routes[0]]
  one = functools.partial(traffic.count, route)
  return jax.vmap(one, in_axes=(0, None if nonzero is None else 0))(x, nonzero)


def _host_counts(machine: Machine, values, valid):
  """Counts of messages from the chips to the host."""
  counts = []
  for index in host_routes(machine):
    route = machine.routes[index]
    c, member = machine.where[route.synapse.src]
    cls = machine.classes[c]
    value = machine.local[route.synapse.source]
    x = _sent(cls, value, values[c], valid)[member]
    counts.append(traffic.count(route, x, None)[None])
  return counts


def host_routes(machine: Machine) -> list[int]:
  """Indices of the counted routes that end on the host."""
  return [
    i
    for i, route in enumerate(machine.routes)
    if route.synapse.dst not in machine.where
  ]


def count_order(machine: Machine) -> list[int]:
  """Route index of each row block that `step` counts, in order."""
  order = [r for group in machine.groups for r in group.routes]
  return order + host_routes(machine)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def run_chunk(machine: Machine, weights: Weights, state: State, injected):
  """Scans `step` over a chunk of steps.

  Args:
    machine: static layout.
    weights: its constants.
    state: donated.
    injected: (bool[S], int32[S, width]).

  Returns:
    (state, (taps, counts)) with a leading axis of S steps.
  """
  body = functools.partial(step, machine, weights)
  return lax.scan(body, state, injected)
