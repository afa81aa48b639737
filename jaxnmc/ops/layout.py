"""Layers of a graph that are the same program with other numbers.

Each layer scope is written as a `Layout`: its instructions with local operand
names, everything that may differ between layers pulled out as data.  A run is a
stretch of layers with equal layouts; it can be evaluated by one scan, so a
compiled program hardly grows with the length of the run.
"""

import dataclasses
from typing import Any

import numpy as np

from jaxnmc.ops.graph import Graph, Node

# An operand: ("local", i), ("external", i), ("const", i) or ("scalar", i).
Operand = tuple[str, int]

# Numbers that shape the program; all others may differ between layers.
_SHAPING = {("low_bits", "bits"), ("dense", "bound"), ("broadcast", "width")}


class Pool:
  """Numbers pulled out of a program, so that layers can share it.

  Attributes:
    consts: int32[width] each.
    scalars: integers.
  """

  def __init__(self) -> None:
    self.consts: list[np.ndarray] = []
    self.scalars: list[int] = []

  def _scalar(self, value) -> int:
    self.scalars.append(int(value))
    return len(self.scalars) - 1

  def const(self, node: Node) -> Operand:
    """The operand that a `const` node becomes: a scalar if it is one number."""
    assert node.data is not None
    if node.width == 1:
      return ("scalar", self._scalar(node.data.reshape(-1)[0]))
    self.consts.append(node.data)
    return ("const", len(self.consts) - 1)

  def split(
    self, node: Node
  ) -> tuple[tuple[tuple[str, Any], ...], tuple[tuple[str, int], ...]]:
    """Static operands: those that shape the program, those that are data.

    Args:
      node: an instruction.

    Returns:
      (name, value) of the former, (name, index of the scalar) of the latter.
    """
    static, varying = [], []
    for name, value in sorted(node.static.items()):
      number = isinstance(value, int | np.integer)
      if number and (node.op, name) not in _SHAPING:
        varying.append((name, self._scalar(value)))
      else:
        static.append((name, value))
    return tuple(static), tuple(varying)


def common(rows: np.ndarray) -> tuple[int | None, ...]:
  """What all rows of int[layers, S] have in common; None where they differ."""
  return tuple(int(c[0]) if (c == c[0]).all() else None for c in rows.T)


@dataclasses.dataclass(frozen=True)
class Op:
  """One instruction of a layer.

  Attributes:
    op: name in the instruction set, or "prev".
    operands: where its data come from.
    static: (name, value) of operands that shape the program.
    varying: (name, index of the scalar) of operands that are data.
    matrix: index of its matrix, for `dense`.
    width: features.
  """

  op: str
  operands: tuple[Operand, ...]
  static: tuple[tuple[str, Any], ...]
  varying: tuple[tuple[str, int], ...]
  matrix: int | None
  width: int


@dataclasses.dataclass(frozen=True)
class Layout:
  """The program of a layer.

  Attributes:
    ops: in order of evaluation.
    states: (local index of the `prev`, local index of its new value).
    exports: local indices of values that are read outside of the layer.
  """

  ops: tuple[Op, ...]
  states: tuple[tuple[int, int], ...]
  exports: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
  """One layer: its layout and its numbers.

  Attributes:
    layout: the program.
    nodes: node id of each local index.
    externals: node ids of values that come from outside.
    consts: int32[width] each.
    scalars: integers.
    matrices: int8[out, in] each.
  """

  layout: Layout
  nodes: tuple[int, ...]
  externals: tuple[int, ...]
  consts: tuple[np.ndarray, ...]
  scalars: tuple[int, ...]
  matrices: tuple[np.ndarray, ...]


def describe(graph: Graph, members: list[Node], outside: set[int]) -> Layer:
  """Writes a set of nodes as a layer.

  Args:
    graph: the graph.
    members: nodes of the layer in order, constants left out.
    outside: ids of nodes that somebody outside reads.

  Returns:
    The layer.
  """
  local = {n.id: i for i, n in enumerate(members)}
  externals: dict[int, int] = {}
  matrices: list[np.ndarray] = []
  pool = Pool()

  def operand(arg: int) -> Operand:
    node = graph.nodes[arg]
    if node.op == "const":
      return pool.const(node)
    if arg in local:
      return ("local", local[arg])
    return ("external", externals.setdefault(arg, len(externals)))

  ops = []
  for node in members:
    operands = tuple(operand(arg) for arg in node.args)
    static, varying = pool.split(node)
    matrix = None
    if node.op == "dense":
      assert node.data is not None
      matrix = len(matrices)
      matrices.append(node.data)
    ops.append(Op(node.op, operands, static, varying, matrix, node.width))
  states = tuple(
    (local[old], local[new])
    for old, new in sorted(graph.bind.items())
    if old in local
  )
  exports = tuple(local[n.id] for n in members if n.id in outside)
  return Layer(
    Layout(tuple(ops), states, exports),
    tuple(n.id for n in members),
    tuple(externals),
    tuple(pool.consts),
    tuple(pool.scalars),
    tuple(matrices),
  )


def layers(graph: Graph) -> list[Layer]:
  """The graph as a list of layers, in order of evaluation.

  Nodes of one layer scope form a layer; so do nodes outside of every scope
  that stand together.

  Args:
    graph: the graph.

  Returns:
    All layers; the input node and constants belong to none.
  """
  order: list[list[Node]] = []
  for node in graph.nodes:
    if node.op in ("const", "input"):
      continue
    if order and order[-1][-1].layer == node.layer:
      order[-1].append(node)
    else:
      order.append([node])
  place = {n.id: i for i, group in enumerate(order) for n in group}
  read = set()
  for node in graph.nodes:
    for arg in node.args:
      if arg in place and place.get(node.id) != place[arg]:
        read.add(arg)
  return [describe(graph, group, read) for group in order]


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """Layers that are evaluated by one scan.

  Attributes:
    layers: with equal layouts.
    chained: for each external the local index in the layer before that it is
      (for all but the first layer), or None if all layers read one value.
  """

  layers: tuple[Layer, ...]
  chained: tuple[int | None, ...]

  @property
  def scalars(self) -> np.ndarray:
    """Scalars of all layers, int64[layers, S]."""
    rows = np.array([layer.scalars for layer in self.layers], np.int64)
    return rows.reshape(len(self.layers), -1)


def _links(before: Layer, after: Layer) -> tuple[int | None, ...] | None:
  """How the externals of a layer follow from the one before it."""
  if before.layout != after.layout:
    return None
  same = [c.shape for c in before.consts] == [c.shape for c in after.consts]
  if not same:
    return None
  local = {n: i for i, n in enumerate(before.nodes)}
  links: list[int | None] = []
  for mine, theirs in zip(after.externals, before.externals, strict=True):
    if mine in local:
      links.append(local[mine])
    elif mine == theirs:
      links.append(None)
    else:
      return None
  return tuple(links)


def runs(graph: Graph) -> list[Run]:
  """Groups consecutive layers with equal layouts.

  Args:
    graph: the graph.

  Returns:
    Runs in order of evaluation; a run of one layer has nothing chained.
  """
  result: list[Run] = []
  for layer in layers(graph):
    last = result[-1] if result else None
    links = _links(last.layers[-1], layer) if last else None
    if (
      last is not None
      and links is not None
      and (len(last.layers) == 1 or last.chained == links)
    ):
      result[-1] = Run((*last.layers, layer), links)
    else:
      result.append(Run((layer,), (None,) * len(layer.externals)))
  return result
