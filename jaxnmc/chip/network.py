"""From a recorded graph to a network: populations, synapses and depths.

A population is a connected component of element-wise nodes of one width inside
one layer: what one neuron can do.  Populations meet only at synapses, and one
synaptic hop takes one time step:

    depth(input) = 0;  element-wise: the largest of its operands
    synapse: depth(source) + 1;  state read: depth of the value bound to it

A value needed k steps after it was computed waits k steps: in a FIFO of its
neuron, or on an axon, as a message that the neuron sends itself through a
synapse of delay k - 1 (`waits`).  Both keep every integer and every step; an
axon costs a message.  Everything here is NumPy and plain data.
"""

import dataclasses
import functools
import re

import numpy as np

from jaxnmc.chip.hardware import LOIHI2_FACTS
from jaxnmc.errors import PlacementError
from jaxnmc.ops.graph import SYNAPSES, Graph, Node

WAITS = ("fifo", "axon")
LONGEST_DELAY = int(LOIHI2_FACTS["delay_max"].value or 0)
KINDS = {"dense": "dense", "sum": "reduce", "broadcast": "gather"}


@dataclasses.dataclass(frozen=True, eq=False)
class Port:
  """An accumulator of a population.

  Attributes:
    population: index of the population that reads it.
    node: the `dense`, `sum` or `broadcast` node it holds, or for a relay
      (a value from another layer) the id of the source node.
    relay: whether it is a relay.
    depth: steps after injection at which what was sent without a delay is
      read.
  """

  population: int
  node: int
  relay: bool
  depth: int


@dataclasses.dataclass(frozen=True, eq=False)
class Population:
  """Neurons that run one program.

  Attributes:
    index: position in the network.
    name: site of its last named value.
    role: the name with the layer index replaced by `*`.
    layer: layer index, or None.
    width: number of neurons.
    nodes: ids of its element-wise and `prev` nodes, in order of evaluation.
    ports: indices of its ports in `Network.ports`.
    fifos: words that wait: (kind, id, longest age), kind "node" or "port" (in
      a FIFO), or "axon" (in the ring of a port behind a delay).
    states: ids of its `prev` nodes: recurrent state, a word each.
    depths: depths at which some node is evaluated (the program's phases).
    host: computed on the host whatever the placement.
  """

  index: int
  name: str
  role: str
  layer: int | None
  width: int
  nodes: tuple[int, ...]
  ports: tuple[int, ...]
  fifos: tuple[tuple[str, int, int], ...]
  states: tuple[int, ...]
  depths: tuple[int, ...]
  host: bool

  @property
  def phases(self) -> int:
    """Passes of the neuron program per time step."""
    return len(self.depths)

  @property
  def words(self) -> int:
    """State words per neuron: accumulators, what waits, recurrent state."""
    waiting = sum(age for _, _, age in self.fifos)
    return len(self.ports) + waiting + len(self.states)


def _distinct(matrix: np.ndarray) -> np.ndarray:
  """One of the rows or columns that a broadcast matrix repeats."""
  matrix = np.asarray(matrix)
  return matrix[tuple(slice(None if s else 1) for s in matrix.strides)]


@dataclasses.dataclass(frozen=True, eq=False)
class Synapse:
  """Connections from one named value to one port.

  Attributes:
    index: position in the network.
    src: index of the source population.
    dst: index of the target population.
    source: id of the node that is sent.
    path: site name of that node.
    port: index of the port.
    kind: "dense", "reduce", "gather" (one to all) or "relay" (one to one).
    depth: depth of the source: emission is at inject + depth.
    target: id of the node that holds the sum at the target; for a relay -1.
    weights: int8[dst width, src width] of a dense synapse.
    bits: of a stored weight, where the kind of synapse says it (with those of
      its delay); None: as the weights need.
    delay: steps that what was sent waits before it is read, 0 or more.
  """

  index: int
  src: int
  dst: int
  source: int
  path: str
  port: int
  kind: str
  depth: int
  target: int = -1
  weights: np.ndarray | None = None
  bits: int | None = None
  delay: int = 0

  @functools.cached_property
  def nonzero(self) -> int:
    """Number of synapses with a weight that is not zero."""
    if self.weights is None:
      return 0
    few = _distinct(self.weights)
    return int(np.count_nonzero(few)) * (self.weights.size // max(1, few.size))

  @functools.cached_property
  def span(self) -> tuple[int, int]:
    """Smallest and largest weight; (0, 0) without a matrix."""
    if self.weights is None or not self.weights.size:
      return 0, 0
    few = _distinct(self.weights)
    return int(few.min()), int(few.max())


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
  """Populations joined by synapses.

  Attributes:
    graph: what was recorded.
    populations: all of them, the host's input first.
    synapses: all of them.
    ports: all accumulators.
    depth: node id -> depth (0 for constants, which wait for nothing).
    home: node id -> population index (-1 for constants and synapse nodes
      belong to their reader).
    ticks: every time step counts as a token (a circuit): no step is spent on
      reading what the last one brought.
  """

  graph: Graph
  populations: tuple[Population, ...]
  synapses: tuple[Synapse, ...]
  ports: tuple[Port, ...]
  depth: tuple[int, ...]
  home: tuple[int, ...]
  ticks: bool = False

  @functools.cached_property
  def entries(self) -> tuple[int, ...]:
    """Ids of the values that the host sends for every token."""
    sent = [s.source for s in self.synapses if self.populations[s.src].host]
    return tuple(dict.fromkeys(sent))

  @functools.cached_property
  def steps_per_token(self) -> int:
    """Steps from injection to the last value of the token, plus one."""
    return max(self.depth) + 1

  @functools.cached_property
  def layer_starts(self) -> dict[int, int]:
    """Layer -> depth at which its first relay is read, in order of layers."""
    starts: dict[int, int] = {}
    for port in self.ports:
      layer = self.populations[port.population].layer
      if port.relay and layer is not None:
        starts[layer] = min(port.depth, starts.get(layer, port.depth))
    return {layer: starts[layer] for layer in sorted(starts)}

  @functools.cached_property
  def head_start(self) -> int | None:
    """Depth at which what follows the last layer reads it, if there is such."""
    ends = [
      port.depth
      for port in self.ports
      if port.relay and self.populations[port.population].layer is None
    ]
    return max(ends, default=None)

  @functools.cached_property
  def steps_per_layer(self) -> tuple[int, ...]:
    """Steps from one layer's relay to the next one's, layer by layer."""
    marks = [*self.layer_starts.values(), self.head_start or 0]
    return tuple(b - a for a, b in zip(marks[:-1], marks[1:], strict=True))


def _joined(node: Node, arg: Node) -> bool:
  """Whether an edge stays inside one neuron."""
  if node.op in SYNAPSES or arg.op == "const":
    return False
  return node.layer == arg.layer


def _components(graph: Graph) -> list[int]:
  """Union-find over the edges that stay inside one neuron: node -> root."""
  parent = list(range(len(graph.nodes)))

  def find(i: int) -> int:
    while parent[i] != i:
      parent[i] = parent[parent[i]]
      i = parent[i]
    return i

  def union(i: int, j: int) -> None:
    a, b = find(i), find(j)
    parent[max(a, b)] = min(a, b)

  readers: dict[tuple[int, int | None], int] = {}
  for node in graph.nodes:
    for arg in node.args:
      source = graph.nodes[arg]
      if _joined(node, source):
        union(node.id, arg)
      elif source.op != "const" and node.op not in SYNAPSES:
        # One relay of a value per layer: all its readers are one population.
        union(node.id, readers.setdefault((arg, node.layer), node.id))
  for old, new in graph.bind.items():
    union(old, new)
  return [find(i) for i in range(len(graph.nodes))]


def _depths(graph: Graph) -> list[int]:
  """Depth of every node by iteration to a fixpoint.

  Raises:
    PlacementError: a recurrence contains a synapse.
  """
  depth = [0] * len(graph.nodes)
  limit = len(graph.nodes) + 1
  for _ in range(limit):
    before = list(depth)
    for node in graph.nodes:
      if node.op == "prev":
        depth[node.id] = max(depth[node.id], depth[graph.bind[node.id]])
      for arg in node.args:
        hop = 0 if _joined(node, graph.nodes[arg]) else 1
        if graph.nodes[arg].op != "const":
          depth[node.id] = max(depth[node.id], depth[arg] + hop)
    if depth == before:
      return depth
    if max(depth) > limit:
      break
  raise PlacementError(
    "a recurrence contains a synapse: its next value would need more than one"
    " time step, so a new token per step is impossible; keep everything"
    " between reading and writing a state element-wise"
  )


def _late(graph: Graph, depth: list[int]) -> list[int]:
  """Depths with what has no name as late as its readers.

  A scaled or shifted copy of one value is then made where it is read, so that
  the value itself waits, which has a name and may wait on an axon.  Depths of
  named values, of states and of sums stay as they are.
  """
  nodes, late = graph.nodes, list(depth)
  readers: list[list[int]] = [[] for _ in nodes]
  for node in nodes:
    for arg in node.args:
      readers[arg].append(node.id)
  bound = set(graph.bind.values())
  for node in reversed(nodes):
    args = [nodes[a] for a in node.args if nodes[a].op != "const"]
    fixed = node.site or node.id in bound or len(args) != 1
    if fixed or node.op in (*SYNAPSES, "prev", "input"):
      continue
    if args[0].op in (*SYNAPSES, "prev") or not readers[node.id]:
      continue
    late[node.id] = min(late[r] for r in readers[node.id])
  return late


def _role(name: str) -> str:
  return re.sub(r"\blayers\.\d+\b", "layers.*", name)


def network(graph: Graph, waits: str = "fifo") -> Network:
  """Groups a recorded graph into populations, synapses and depths.

  Args:
    graph: result of `record`.
    waits: where values wait that are read later: `fifo` (in the neuron), or
      `axon`: named values on axons, as far as the delay of a Loihi 2 reaches;
      a value without a name still waits in the neuron.

  Returns:
    The network; every integer of the graph is kept.

  Raises:
    PlacementError: an unnamed value would cross a synapse, widths disagree,
      a recurrence contains a synapse, or `waits` is neither.
  """
  if waits not in WAITS:
    raise PlacementError(f"waits={waits!r} must be one of {WAITS}")
  nodes = graph.nodes
  roots = _components(graph)
  depth = _depths(graph)
  if waits == "axon":
    depth = _late(graph, depth)
  groups: dict[int, list[int]] = {}
  for node in nodes:
    if node.op != "const":
      groups.setdefault(roots[node.id], []).append(node.id)
  order = {root: i for i, root in enumerate(sorted(groups))}
  home = [-1 if n.op == "const" else order[roots[n.id]] for n in nodes]

  ports: list[Port] = []
  synapses: list[Synapse] = []
  port_of: dict[tuple[int, int], int] = {}

  def connect(target: int, source: Node, kind: str, key: int, weights=None):
    if source.site is None or not source.cast:
      raise PlacementError(
        f"node {source.id} ({source.op}) crosses a synapse without a name;"
        " put ops.site(...) around it"
      )
    slot = (target, key)
    if slot in port_of:
      return
    port_of[slot] = len(ports)
    relay = kind == "relay"
    ports.append(Port(target, key, relay, depth[source.id] + 1))
    synapses.append(
      Synapse(
        *(len(synapses), home[source.id], target, source.id, source.site),
        *(port_of[slot], kind, depth[source.id]),
        -1 if relay else key,
        weights,
      )
    )

  for node in nodes:
    for arg in node.args:
      source = nodes[arg]
      if source.op == "const":
        continue
      if node.op in SYNAPSES:
        kind = KINDS[node.op]
        connect(home[node.id], source, kind, node.id, node.data)
      elif not _joined(node, source):
        connect(home[node.id], source, "relay", source.id)

  members_of = [members for _, members in sorted(groups.items())]
  on_axons: set[tuple[int, str, int, int]] = set()
  if waits == "axon":
    for i, members in enumerate(members_of):
      for (kind, arg), ages in _ages(
        graph, i, members, depth, home, port_of
      ).items():
        # What a synapse brought can be brought again, later; what the neuron
        # has itself it sends to itself, which takes a step.
        relayed = kind == "port" and ports[arg].relay
        value = nodes[ports[arg].node if relayed else arg]
        if not relayed and (kind == "port" or not value.cast):
          continue
        hop = 0 if relayed else 1
        for age in sorted(a for a in ages if 0 < a <= LONGEST_DELAY + hop):
          on_axons.add((i, kind, arg, age))
          ports.append(Port(i, value.id, relayed, depth[value.id] + 1))
          synapses.append(
            Synapse(
              *(len(synapses), home[value.id], i, value.id, value.site or ""),
              *(len(ports) - 1, "relay", depth[value.id]),
              delay=age - hop,
            )
          )
  delays = {s.port: s.delay for s in synapses if s.delay}
  populations = tuple(
    _population(
      *(graph, i, members, depth, home, ports, port_of, on_axons, delays)
    )
    for i, members in enumerate(members_of)
  )
  return Network(
    graph, populations, tuple(synapses), tuple(ports), tuple(depth), tuple(home)
  )


def _ages(graph, index, members, depth, home, port_of):
  """(kind, id) -> steps after which what a neuron has is read, a set."""
  nodes = graph.nodes
  ages: dict[tuple[str, int], set[int]] = {}
  for i in members:
    if nodes[i].op in SYNAPSES:
      continue
    for arg in nodes[i].args:
      if nodes[arg].op == "const":
        continue
      relayed = home[arg] != index
      synaptic = nodes[arg].op in SYNAPSES
      start = depth[arg] + 1 if relayed else depth[arg]
      slot = ("node", arg)
      if relayed or synaptic:
        slot = ("port", port_of[(index, arg)])
      ages.setdefault(slot, set()).add(depth[i] - start)
  return ages


def _population(
  graph, index, members, depth, home, ports, port_of, on_axons, delays
):
  nodes = graph.nodes
  own = [i for i in members if nodes[i].op not in SYNAPSES]
  named = [nodes[i].site for i in members if nodes[i].site]
  first = nodes[members[0]]
  name = named[-1] if named else f"{first.op}.{first.id}"
  widths = {nodes[i].width for i in members}
  if len(widths) != 1:
    raise PlacementError(
      f"population {name}: element-wise nodes of different widths"
      f" {sorted(widths)}; use ops.broadcast or ops.sum between them"
    )
  ages = _ages(graph, index, members, depth, home, port_of)
  left = {
    (kind, i): {a for a in found if (index, kind, i, a) not in on_axons}
    for (kind, i), found in ages.items()
  }
  longest = {slot: max(found) for slot, found in left.items() if found}
  mine = tuple(k for k, port in enumerate(ports) if port.population == index)
  fifos = tuple((k, i, a) for (k, i), a in sorted(longest.items()) if a)
  fifos += tuple(("axon", k, delays[k]) for k in mine if k in delays)
  return Population(
    index,
    name,
    _role(name),
    first.layer,
    widths.pop(),
    tuple(own),
    mine,
    fifos,
    tuple(i for i in own if nodes[i].op == "prev"),
    tuple(sorted({depth[i] for i in own})),
    any(nodes[i].op == "input" for i in members),
  )
