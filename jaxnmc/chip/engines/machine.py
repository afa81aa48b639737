"""The placed network as arrays: classes of populations, groups of synapses.

A class holds populations with one program, one width and one cut: member axis
M (layers), tile axis K (cores), neuron axis n.  A group holds the synapses
that join the same value of one class to the same port of another.  So the
program that runs does not grow with the number of layers.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from jaxnmc.chip.engines.program import Compiled, Program, compile_population
from jaxnmc.chip.network import Network, Synapse
from jaxnmc.chip.routing import traffic
from jaxnmc.chip.routing.fanout import check_cores
from jaxnmc.errors import PlacementError
from jaxnmc.ops.layout import common


@dataclasses.dataclass(frozen=True, eq=False)
class Class:
  """Populations that run as one.

  Attributes:
    role: their name without the layer.
    members: population indices.
    program: what each neuron computes.
    fixed: scalars equal in all members, None where they differ.
    width: neurons of one member.
    tiles: K.
    size: n, neurons of the largest tile.
    place: int32[width], position of each neuron in the padded [K * n].
    consts: int32[M, K, C, n].
    scalars: int32[M, S].
    depths: int32[M, instructions], depth of each instruction's value.
    layers: layer of each member, None outside of the layers.
  """

  role: str
  members: tuple[int, ...]
  program: Program
  fixed: tuple[int | None, ...]
  width: int
  tiles: int
  size: int
  place: np.ndarray
  consts: np.ndarray
  scalars: np.ndarray
  depths: np.ndarray
  layers: tuple[int | None, ...]

  @property
  def real(self) -> np.ndarray:
    """Lanes that hold a neuron, bool[K, n]; the others are padding."""
    lanes = np.zeros(self.tiles * self.size, bool)
    lanes[self.place] = True
    return lanes.reshape(self.tiles, self.size)


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
  """Synapses that run as one.

  Attributes:
    routes: index into `Machine.routes` of each pair.
    source: class index, or None for the host's input.
    value: instruction index of the source; of the host's input the index in
      `Machine.entries`.
    target: class index.
    port: port index at the target.
    kind: as in `Synapse`.
    src: member of the source class, per pair.
    dst: member of the target class, per pair.
    weights: int8[P, K, n, src width], zero at padding neurons, or None.
    nonzero: int8 or int32[P, src width, K], non-zero weights per tile, or
      None.
  """

  routes: tuple[int, ...]
  source: int | None
  value: int
  target: int
  port: int
  kind: str
  src: np.ndarray
  dst: np.ndarray
  weights: np.ndarray | None
  nonzero: np.ndarray | None


@dataclasses.dataclass(frozen=True, eq=False)
class Tap:
  """A value the host reads.

  Attributes:
    cls: class index.
    member: member of the class.
    value: instruction index.
    node: node id in the graph.
    depth: depth of the value.
  """

  cls: int
  member: int
  value: int
  node: int
  depth: int


@dataclasses.dataclass(frozen=True, eq=False)
class Machine:
  """A placed network, ready to be stepped.

  Attributes:
    routes: the counted synapses.
    classes: all classes.
    groups: all groups.
    taps: values that leave the chips.
    where: population index -> (class, member).
    local: node id -> instruction index in its class.
    last: largest depth on the chips.
    entries: node id of a value that the host sends -> its part of the row that
      is injected for every token.
  """

  routes: tuple[traffic.Route, ...]
  classes: tuple[Class, ...]
  groups: tuple[Group, ...]
  taps: tuple[Tap, ...]
  where: dict[int, tuple[int, int]]
  local: dict[int, int]
  last: int
  entries: dict[int, slice]

  @property
  def width(self) -> int:
    """Numbers that the host injects for a token."""
    return max((part.stop for part in self.entries.values()), default=0)

  @property
  def host_routes(self) -> tuple[int, ...]:
    """Indices of the counted routes that end on the host."""
    pairs = enumerate(self.routes)
    return tuple(i for i, r in pairs if r.synapse.dst not in self.where)

  def source(self, synapse: Synapse) -> tuple[int, int, int]:
    """Class, member and instruction of what a synapse carries off a chip."""
    cls, member = self.where[synapse.src]
    return cls, member, self.local[synapse.source]


def _padded(cut: traffic.Tiling, name: str) -> tuple[int, np.ndarray]:
  """Neurons of the largest tile and the position of every neuron.

  Raises:
    PlacementError: tiles of different sizes, or with gaps.
  """
  size = int(cut.sizes[0])
  even = (cut.sizes[:-1] == size).all() and cut.sizes[-1] <= size
  if not even or (cut.starts != np.arange(cut.count) * size).any():
    raise PlacementError(
      f"tiles of population {name} start at {cut.starts.tolist()} and have"
      f" {cut.sizes.tolist()} neurons; they must follow each other and be"
      " equal but for the last one"
    )
  place = [k * size + np.arange(n) for k, n in enumerate(cut.sizes)]
  return size, np.concatenate(place).astype(np.int32)


def _class(net, members, compiled: list[Compiled], cut) -> Class:
  first = compiled[0]
  population = net.populations[members[0]]
  size, place = _padded(cut, population.name)
  count = len(first.consts)
  flat = np.zeros((len(members), count, cut.count * size), np.int32)
  for m, own in enumerate(compiled):
    for c, array in enumerate(own.consts):
      flat[m, c, place] = array
  consts = flat.reshape(len(members), count, cut.count, size)
  scalars = np.array([own.scalars for own in compiled], np.int32)
  scalars = scalars.reshape(len(members), len(first.scalars))
  depths = [
    [net.depth[node] for node in sorted(own.local, key=own.local.__getitem__)]
    for own in compiled
  ]
  return Class(
    population.role,
    tuple(members),
    first.program,
    common(scalars),
    population.width,
    cut.count,
    size,
    place,
    consts.transpose(0, 2, 1, 3),
    scalars,
    np.array(depths, np.int32).reshape(len(members), -1),
    tuple(net.populations[i].layer for i in members),
  )


def _group(key, pairs, net, routes, classes, where) -> Group:
  source, value, target, port, kind = key
  cls = classes[target]
  synapses = [net.synapses[s] for s in pairs]
  index = {r.synapse.index: i for i, r in enumerate(routes)}
  weights = nonzero = None
  if kind == "dense":
    src_width = synapses[0].weights.shape[1]
    weights = np.zeros((len(pairs), cls.tiles * cls.size, src_width), np.int8)
    for p, synapse in enumerate(synapses):
      weights[p, cls.place] = synapse.weights
    weights = weights.reshape(len(pairs), cls.tiles, cls.size, src_width)
    nonzero = traffic.nonzero([routes[index[s]] for s in pairs])
  member = lambda i: where[i][1] if i in where else 0
  return Group(
    tuple(index[s] for s in pairs),
    source,
    value,
    target,
    port,
    kind,
    np.array([member(s.src) for s in synapses], np.int32),
    np.array([member(s.dst) for s in synapses], np.int32),
    weights,
    nonzero,
  )


def build(placement, watch: Sequence[int] = ()) -> Machine:
  """Lays a placed network out as arrays.

  Args:
    placement: result of `place`.
    watch: nodes on the chips that the host reads, too.

  Returns:
    The machine.

  Raises:
    PlacementError: a route to a core that does not exist, tiles that do not
      cover a population, or two tokens that would meet in a neuron.
  """
  check_cores(placement)
  net: Network = placement.network
  cuts = traffic.tilings(placement)
  routes = traffic.routes(placement)
  keys: dict[tuple, list[int]] = {}
  compiled: dict[int, Compiled] = {}
  for population in net.populations:
    cut = cuts[population.index]
    if not cut.count:
      continue
    if cut.sizes.sum() != population.width:
      raise PlacementError(
        f"population {population.name} has {population.width} neurons, its"
        f" tiles {cut.sizes.sum()}; place the network again"
      )
    own = compile_population(net, population)
    compiled[population.index] = own
    key = (population.role, own.program, population.width, cut.key)
    keys.setdefault(key, []).append(population.index)
  classes = tuple(
    _class(net, members, [compiled[i] for i in members], cuts[members[0]])
    for members in keys.values()
  )
  where = {
    index: (c, m)
    for c, cls in enumerate(classes)
    for m, index in enumerate(cls.members)
  }
  local = {n: i for own in compiled.values() for n, i in own.local.items()}

  entries = _entries(net)
  pairs: dict[tuple, list[int]] = {}
  taps: dict[int, Tap] = {}
  outputs = _output_nodes(net)
  for synapse in net.synapses:
    if synapse.dst not in where:
      if synapse.src in where:
        taps[synapse.source] = _tap(net, synapse.source, where, local)
      continue
    source = where[synapse.src][0] if synapse.src in where else None
    if source is not None:
      value = local[synapse.source]
    else:
      value = list(entries).index(synapse.source)
    port = net.populations[synapse.dst].ports.index(synapse.port)
    edge = (source, value, where[synapse.dst][0], port, synapse.kind)
    pairs.setdefault(edge, []).append(synapse.index)
  for node in (*outputs, *watch):
    if net.home[node] in where:
      taps[node] = _tap(net, node, where, local)
  groups = tuple(
    _group(key, members, net, routes, classes, where)
    for key, members in pairs.items()
  )
  last = max(net.depth[n] for i in where for n in net.populations[i].nodes)
  return Machine(
    *(routes, classes, groups, tuple(taps.values())),
    *(where, local, last, entries),
  )


def _entries(net: Network) -> dict[int, slice]:
  """Which part of the injected row each value of the host is.

  Raises:
    PlacementError: one that the host cannot know before the cores run.
  """
  found, at = {}, 0
  for node in net.entries:
    if node not in net.graph.before_cores:
      raise PlacementError(
        f"{net.graph.nodes[node].site}: what the host takes from its tables and"
        " what cores send meet in one neuron; put what cores compute into a"
        " layer (ops.layer)"
      )
    width = net.graph.nodes[node].width
    found[node] = slice(at, at + width)
    at += width
  return found


def _output_nodes(net: Network) -> list[int]:
  return [leaf.node for leaf in jax.tree.leaves(net.graph.outputs)]


def _tap(net: Network, node: int, where, local) -> Tap:
  cls, member = where[net.home[node]]
  return Tap(cls, member, local[node], node, net.depth[node])
