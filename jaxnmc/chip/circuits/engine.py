"""Steps a circuit: arrivals, neurons, messages, synapse walks; `lax.scan`.

Only integers; a step costs what its messages cost (`jaxnmc.kernels.walk`).
Counts are made from the messages of a chunk of steps at once, so they hardly
cost anything.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import struct
from jax import lax
from jax import numpy as jnp

from jaxnmc.chip.circuits import limits
from jaxnmc.chip.circuits.circuit import Circuit
from jaxnmc.chip.counting.counters import Counters, Segment
from jaxnmc.chip.counting.folding import SynapseCount
from jaxnmc.chip.placement.tiles import Placement
from jaxnmc.chip.routing import traffic
from jaxnmc.errors import ConfigError, FormatError

CHUNK = 256


@struct.dataclass
class State:
  """What a circuit remembers between steps.

  Attributes:
    buffers: per connection int32[depth, target size], sums on their way.
    neurons: per population the state of its neurons.
  """

  buffers: tuple[jax.Array, ...]
  neurons: tuple[Any, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """What a run gave.

  Attributes:
    messages: population -> int[steps, size] (a tuple of them where a neuron
      sends several), NumPy.
    state: to go on from.
    counters: None without a placement.
  """

  messages: Mapping[str, Any]
  state: State
  counters: Counters | None


class _Engine:
  """Compiled once per circuit and placement."""

  def __init__(self, circuit: Circuit, placement: Placement | None):
    self.circuit, self.placement = circuit, placement
    self.names = tuple(circuit.populations)
    self.hazards = limits.hazards(circuit)
    self.tables = tuple(
      jax.tree.map(jnp.asarray, c.synapse) for c in circuit.connections
    )
    self.routes = traffic.routes(placement) if placement else ()
    self.nonzero = tuple(
      None if n is None else jnp.asarray(n)
      for n in map(traffic.nonzero_per_tile, self.routes)
    )
    self.chunk = jax.jit(self._chunk, donate_argnums=2)

  def zero_state(self) -> State:
    """Empty buffers, neurons at rest."""
    return State(
      tuple(table.init() for table in self.tables),
      tuple(p.neuron.init(p.size) for p in self.circuit.populations.values()),
    )

  def step(self, tables, state: State, sent: dict[str, jax.Array]):
    """One time step.

    Args:
      tables: the synapses.
      state: before it.
      sent: input -> int32[size], messages of the host in this step.

    Returns:
      (state, messages by name as tuples, flags): flags are, for each thing
      that can go wrong, the first neuron at which it did, or -1.
    """
    circuit = self.circuit
    arrived: dict[tuple[str, str | None], jax.Array] = {}
    flags: dict[tuple, jax.Array] = {}
    for c, table, buffer in zip(circuit.connections, tables, state.buffers):
      key, a = (c.target, c.port), table.arriving(buffer)
      if key in arrived:
        total = arrived[key] + a
        # It wrapped where both have one sign and the sum has the other.
        wrapped = ((arrived[key] ^ total) & (a ^ total)) < 0
        flags[key] = flags.get(key, False) | wrapped
        a = total
      arrived[key] = a
    messages = {name: (x,) for name, x in sent.items()}
    neurons = []
    for (name, p), inner in zip(circuit.populations.items(), state.neurons):
      silent = jnp.zeros(p.size, jnp.int32)
      ports = tuple(arrived.get((name, q), silent) for q in p.neuron.ports)
      flags[name,] = p.neuron.overflows(inner, ports)
      inner, out = p.neuron.step(inner, ports)
      neurons.append(inner)
      messages[name] = out if isinstance(out, tuple) else (out,)
    buffers = []
    for k, c in enumerate(circuit.connections):
      out = messages[c.source][c.output]
      flags[k,] = tables[k].rule.overflows(out)
      buffers.append(tables[k].deliver(state.buffers[k], out))
    # Those that nobody watches are dropped by the compiler.
    watched = [_first(flags[_key(h)]) for h in self.hazards]
    return State(tuple(buffers), tuple(neurons)), messages, watched

  def _chunk(self, tables, nonzero, state: State, feed, count):
    """Up to CHUNK steps: (state, messages, flags, counts), padded by zeros."""
    step = functools.partial(self.step, tables)
    row = lambda t: {name: x[t] for name, x in feed.items()}
    shapes = jax.eval_shape(lambda: step(state, row(0))[1:])
    kept = {
      n: tuple(
        jnp.zeros((CHUNK, *x.shape), _type(limits.largest(self.circuit, n)))
        for x in shapes[0][n]
      )
      for n in self.names
    }
    flags = jnp.full((CHUNK, len(shapes[1])), -1, jnp.int32)

    def body(t, carry):
      state, kept, flags = carry
      state, messages, found = step(state, row(t))
      kept = {
        n: tuple(
          lax.dynamic_update_index_in_dim(old, new.astype(old.dtype), t, 0)
          for old, new in zip(olds, messages[n], strict=True)
        )
        for n, olds in kept.items()
      }
      if found:
        flags = lax.dynamic_update_index_in_dim(flags, jnp.stack(found), t, 0)
      return state, kept, flags

    state, kept, flags = lax.fori_loop(
      jnp.int32(0), count, body, (state, kept, flags)
    )
    counts = []
    for route, table in zip(self.routes, nonzero):
      c = self.circuit.connections[route.synapse.index]
      sent = feed[c.source] if c.source in feed else kept[c.source][c.output]
      counts.append(traffic.count(route, sent, table))
    return state, kept, flags, tuple(counts)

  def __call__(
    self,
    inputs: Mapping[str, Any] | None = None,
    state: State | None = None,
    steps: int | None = None,
  ) -> Run:
    """Runs the circuit.

    Args:
      inputs: input -> int[steps, size], what the host sends in each step.
      state: of an earlier run of this circuit; None: at rest.
      steps: number of steps; may be left out where there are inputs.

    Returns:
      The run.

    Raises:
      ConfigError: inputs that do not belong to the circuit, or no steps.
      FormatError: a sum left the range in which it is exact; the message names
        population, neuron, core and step.
    """
    feed, steps = self._checked(inputs or {}, steps)
    state = self.zero_state() if state is None else state
    # Copies, because what is donated must not be used twice, nor again.
    state = jax.tree.map(jnp.array, state)
    parts: list[dict] = []
    counts: list[list[np.ndarray]] = [[] for _ in self.routes]
    for at in range(0, steps, CHUNK):
      n = min(CHUNK, steps - at)
      rows = {k: jnp.asarray(_padded(x[at : at + n])) for k, x in feed.items()}
      state, kept, flags, found = self.chunk(
        self.tables, self.nonzero, state, rows, jnp.int32(n)
      )
      self._refuse(np.asarray(flags)[:n], at)
      parts.append(jax.tree.map(lambda x, n=n: np.asarray(x)[:n], kept))
      for rows_of, new in zip(counts, found):
        rows_of.append(np.asarray(new)[:n])
    joined = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    messages = {
      n: outs[0] if len(outs) == 1 else outs for n, outs in joined.items()
    }
    return Run(messages, state, self._counters(counts, steps))

  def _checked(self, inputs, steps):
    """Inputs as int32 arrays of as many steps as will be run."""
    known = self.circuit.inputs
    if set(inputs) != set(known):
      raise ConfigError(
        f"circuit: inputs are {sorted(inputs)}; allowed are exactly"
        f" {sorted(known)}"
      )
    feed, lengths = {}, set()
    for name, values in inputs.items():
      array = np.asarray(values)
      size, largest = known[name].size, known[name].largest
      whole = np.issubdtype(array.dtype, np.integer) or array.dtype == bool
      if not whole or array.ndim != 2 or array.shape[1] != size:
        raise ConfigError(
          f"circuit: input {name} is {array.dtype}{list(array.shape)}; allowed"
          f" are whole numbers [steps, {size}]"
        )
      wrong = np.argwhere(np.abs(array.astype(np.int64)) > largest)
      if len(wrong):
        t, i = wrong[0]
        raise ConfigError(
          f"circuit: input {name} sends {array[t, i]} in step {t} on channel"
          f" {i}; allowed is up to {largest} (Input.largest)"
        )
      feed[name] = array.astype(np.int32)
      lengths.add(len(array))
    if steps is not None:
      lengths.add(steps)
    if len(lengths) != 1 or min(lengths) < 1:
      raise ConfigError(
        f"circuit: steps are {steps} and the inputs have"
        f" {sorted(len(x) for x in feed.values())}; allowed is one number of"
        " steps, at least 1"
      )
    return feed, lengths.pop()

  def _refuse(self, flags: np.ndarray, at: int) -> None:
    """Raises for the first flag of a chunk that begins at step `at`."""
    wrong = np.argwhere(flags >= 0)
    if not len(wrong):
      return
    t, kind = (int(i) for i in wrong[0])
    neuron = int(flags[t, kind])
    hazard = self.hazards[kind]
    raise FormatError(
      f"step {at + t}: {hazard.text} (neuron"
      f" {neuron}{self._core(hazard.owner, neuron)})."
      " Smaller weights or messages, a higher threshold or a larger decay keep"
      " it in range"
    )

  def _core(self, name: str, neuron: int) -> str:
    if self.placement is None:
      return ""
    for tile in self.placement.tiles:
      if tile.population == name and tile.start <= neuron < tile.stop:
        return f", chip {tile.chip}, core {tile.core}"
    return ", host"

  def _counters(self, counts, steps: int) -> Counters | None:
    if self.placement is None:
      return None
    found = []
    for route, rows in zip(self.routes, counts):
      k, m = route.src.count, route.dst.count
      whole = np.concatenate(rows)
      out, rest = whole[:, :k], whole[:, k:]
      each = [rest[:, i * m : (i + 1) * m] for i in range(3)]
      found.append(SynapseCount(route.synapse.index, 0, out, *each))
    segment = Segment(np.arange(steps, dtype=np.int64), tuple(found))
    return Counters.of((segment,), self.placement)


def run(circuit: Circuit, placement: Placement | None = None) -> _Engine:
  """A function that steps the circuit; it compiles at its first call.

  Args:
    circuit: what to run.
    placement: of `circuit.network()`; with it events are counted by tile.

  Returns:
    `simulate(inputs=None, state=None, steps=None) -> Run`.

  Raises:
    ConfigError: a placement of another circuit.
  """
  if placement is not None:
    there = {p.name: p.width for p in placement.network.populations}
    here = {n: circuit.size(n) for n in (*circuit.inputs, *circuit.populations)}
    stored = len(placement.network.synapses) == len(circuit.connections)
    if there != here or not stored:
      raise ConfigError(
        "circuit: the placement is of another network; place"
        " circuit.network() of this one"
      )
  return _Engine(circuit, placement)


def _key(hazard: limits.Hazard) -> tuple:
  """Where a step keeps the flags of a hazard."""
  if hazard.kind == "walk":
    return (hazard.connection,)
  if hazard.kind == "add":
    return (hazard.owner, hazard.port)
  return (hazard.owner,)


def _first(flags: jax.Array) -> jax.Array:
  """Index of the first True, or -1: int32[]."""
  at = jnp.argmax(flags).astype(jnp.int32)
  return jnp.where(flags.any(), at, jnp.int32(-1))


def _padded(rows: np.ndarray) -> np.ndarray:
  """int32[n, size] as int32[CHUNK, size]."""
  return np.pad(rows, ((0, CHUNK - len(rows)), (0, 0)))


def _type(largest: int):
  """The smallest type that holds messages up to +-largest."""
  return jnp.int8 if largest <= 127 else jnp.int32
