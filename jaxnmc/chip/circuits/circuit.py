"""What a circuit is: populations, the connections between them, their limits.

Names, sizes, ports and outputs are checked here; `limits` works out what can
overflow.
"""

import dataclasses
import functools
import types
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxnmc.chip.network import Network, Port, Synapse
from jaxnmc.chip.network import Population as Placed
from jaxnmc.chip.neurons import checks
from jaxnmc.chip.synapses.lava import WORD, Dense, Sparse
from jaxnmc.errors import ConfigError

__all__ = ["Circuit", "Connection", "Input", "Population"]


@dataclasses.dataclass(frozen=True)
class Input:
  """Messages that the host sends in every step.

  Attributes:
    size: number of channels.
    largest: the largest |message|; a run refuses larger ones.
  """

  size: int
  largest: int = 1


@dataclasses.dataclass(frozen=True)
class Population:
  """Neurons of one kind with the same parameters.

  Attributes:
    neuron: of `jaxnmc.chip.neurons`.
    size: number of neurons.
  """

  neuron: Any
  size: int


@dataclasses.dataclass(frozen=True, eq=False)
class Connection:
  """Synapses from a population or input to a port of a population.

  Attributes:
    source: name of the sender.
    target: name of the receiver.
    synapse: `Dense` or `Sparse`, of shape (target size, source size).
    port: port of the target's neuron; may be left out if it has one.
    output: which message of the source's neuron, of those that send several.
  """

  source: str
  target: str
  synapse: Dense | Sparse
  port: str | None = None
  output: int = 0

  def __str__(self) -> str:
    return f"connection {self.source} -> {self.target}"


@dataclasses.dataclass(frozen=True, eq=False)
class Circuit:
  """A network of neurons.

  Attributes:
    populations: name -> neurons.
    connections: in any order.
    inputs: name -> what the host sends.

  Raises:
    ConfigError: names that clash or are unknown, sizes that do not agree, a
      port or output that the neuron does not have.
  """

  populations: Mapping[str, Population]
  connections: Sequence[Connection]
  inputs: Mapping[str, Input] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    both = sorted(set(self.populations) & set(self.inputs))
    if both:
      raise ConfigError(
        f"circuit: {both[0]!r} is a population and an input; give them"
        " different names"
      )
    if not self.populations:
      raise ConfigError("circuit: there is no population; add one at least")
    for name, source in self.inputs.items():
      _whole(f"input {name}", "size", source.size, 1, WORD)
      _whole(f"input {name}", "largest", source.largest, 1, WORD)
    for name, population in self.populations.items():
      _check_population(name, population)
    settled = tuple(self._settled(c) for c in self.connections)
    object.__setattr__(self, "connections", settled)

  def _settled(self, c: Connection) -> Connection:
    """The connection with its port, checked."""
    for end, known in (
      ("source", {*self.populations, *self.inputs}),
      ("target", {*self.populations}),
    ):
      if getattr(c, end) not in known:
        raise ConfigError(
          f"{c}: there is no {end} {getattr(c, end)!r}; there are"
          f" {', '.join(sorted(known))}"
        )
    sizes = self.populations[c.target].size, self.size(c.source)
    if c.synapse.shape != sizes:
      raise ConfigError(
        f"{c}: the synapses are {list(c.synapse.shape)} (out, in), the"
        f" populations {list(sizes)}; make them agree"
      )
    ports = self.populations[c.target].neuron.ports
    port = ports[0] if c.port is None and len(ports) == 1 else c.port
    if port not in ports:
      kind = checks.name_of(self.populations[c.target].neuron)
      raise ConfigError(
        f"{c}: port is {c.port!r}; {kind} has {', '.join(ports)}"
      )
    outputs = 1
    if c.source in self.populations:
      outputs = len(self.messages[c.source])
    _whole(str(c), "output", c.output, 0, outputs - 1)
    return dataclasses.replace(c, port=port)

  def size(self, name: str) -> int:
    """Neurons or channels of a population or input."""
    if name in self.inputs:
      return self.inputs[name].size
    return self.populations[name].size

  @functools.cached_property
  def messages(self) -> Mapping[str, tuple]:
    """Population -> shapes of what its neurons send in a step."""
    return {n: _outputs(p) for n, p in self.populations.items()}

  def network(self) -> Network:
    """The circuit as `jaxnmc.place` takes it; a step counts as a token."""
    names = [*self.inputs, *self.populations]
    index = {name: i for i, name in enumerate(names)}
    ports, synapses = [], []
    for k, c in enumerate(self.connections):
      source = 1000 * index[c.source] + c.output
      ports.append(Port(index[c.target], k, False, 0))
      synapses.append(
        Synapse(
          *(k, index[c.source], index[c.target], source),
          path=c.source,
          port=k,
          kind="dense",
          depth=0,
          target=k,
          weights=c.synapse.mantissas,
          bits=c.synapse.stored_bits,
        )
      )
    waits = lambda i: tuple(
      ("port", k, c.synapse.depth - 1)
      for k, c in enumerate(self.connections)
      if index[c.target] == i and c.synapse.depth > 1
    )
    placed = []
    for name in names:
      i, host = index[name], name in self.inputs
      words, passes = (0, 1) if host else _state(self.populations[name])
      mine = tuple(k for k, p in enumerate(ports) if p.population == i)
      placed.append(
        Placed(
          *(i, name, name, None, self.size(name), (), mine, waits(i)),
          *(tuple(range(words)), tuple(range(passes)), host),
        )
      )
    graph: Any = types.SimpleNamespace(weights=None, plan=None)
    return Network(
      *(graph, tuple(placed), tuple(synapses), tuple(ports), (0,), ()),
      ticks=True,
    )


def _whole(owner: str, field: str, value, low: int, high: int) -> None:
  good = isinstance(value, int | np.integer) and not isinstance(value, bool)
  if not good or not low <= value <= high:
    raise ConfigError(
      f"{owner}: {field} is {value!r}; allowed are whole numbers from {low} to"
      f" {high}"
    )


def _check_population(name: str, population: Population) -> None:
  _whole(f"population {name}", "size", population.size, 1, WORD)
  missing = [
    field
    for field in ("init", "step", "overflows", "ports")
    if not hasattr(population.neuron, field)
  ]
  if missing:
    raise ConfigError(
      f"population {name}: {population.neuron!r} is no neuron (it has no"
      f" {', '.join(missing)}); take one of jaxnmc.chip.neurons, or make one"
      " with neurons.define"
    )
  # Lists of parameters must have as many entries as there are neurons.
  population.neuron.init(population.size)


def _outputs(population: Population) -> tuple:
  """Shapes of the messages of a population."""
  neuron, n = population.neuron, population.size

  def once():
    zeros = tuple(np.zeros(n, np.int32) for _ in neuron.ports)
    return neuron.step(neuron.init(n), zeros)[1]

  sent = jax.eval_shape(once)
  return sent if isinstance(sent, tuple) else (sent,)


def _state(population: Population) -> tuple[int, int]:
  """Words of state of one neuron, and passes of its program per step."""
  shapes = jax.eval_shape(lambda: population.neuron.init(population.size))
  words = sum(x.size for x in jax.tree.leaves(shapes)) // population.size
  return words, getattr(population.neuron, "passes", 1)
