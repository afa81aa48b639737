"""A recorded model as a NIR graph: its matrices, and what is linear around.

A token is a step, a value its integer code.  What NIR can say:

    dense            Linear         sum, broadcast   Linear of ones
    add, sub         Scales by 1 and -1 into one node
    add_const, rsub_const, or a constant operand     Affine of +-1
    mul, mul_shr with a constant, shl, shr, round_shift, clip      Scale
    ge               Threshold, half a code below    prev             Delay

Rounding and limits of the integers have no place in it, nor have products of
two values, roots, tables and choices: what computes these is cut out, an Input
stands for its value, an Output for what it takes.  Parts without a matrix or
a threshold are left out.  All of it is in the report.
"""

import jax
import numpy as np

from jaxnmc.errors import ConfigError
from jaxnmc.io.nir.export_circuit import Builder, Exported, positive
from jaxnmc.ops.graph import Graph, Node, Output

_LOST = {
  "mul": "a product of two values",
  "mul_shr": "a product of two values",
  "sigmoid": "a table",
  "inv_sqrt": "an inverse square root",
  "mean_square": "a mean of squares",
  "select": "a choice between two values",
  "min": "the smaller of two values",
  "max": "the larger of two values",
  "low_bits": "the low bits of a value",
}
_HELD = "it is rounded and held to whole numbers from {low} to {high}"

__all__ = ["export_recorded"]


def export_recorded(graph: Graph, *, dt: float = 1e-4) -> Exported:
  """The part of a recorded model that NIR can say (this file's head).

  Args:
    graph: result of `jaxnmc.record`.
    dt: seconds of a token, which a state waits from one to the next.

  Returns:
    Graph, report, and names by site or `op.id`; there are no lags.

  Raises:
    MissingExtra: `nir` is not installed.
    ConfigError: dt is not positive, or NIR can say no matrix or threshold of
      the graph.
  """
  positive("dt", dt)
  return _Export(graph, float(dt)).done()


def label(node: Node) -> str:
  """Its site, or operation and number."""
  if node.site:
    return node.site
  scope = "" if node.layer is None else f"layers.{node.layer}."
  return f"{scope}{node.op}.{node.id}"


class _Export:
  """One export."""

  def __init__(self, graph: Graph, dt: float):
    self.graph, self.dt = graph, dt
    self.to = Builder()
    self.report = self.to.report
    self.sent: dict[int, str] = {}  # value -> the node that sends it
    self.cut: set[int] = set()
    self.core: set[str] = set()  # matrices and thresholds
    self.ends: dict[int, str] = {}

  def done(self) -> Exported:
    """Nodes in order, then states, outputs, and what is left out."""
    nodes = self.graph.nodes
    for node in nodes:
      if node.op == "const":
        continue
      made = self._node(node)
      if made is not None:
        self.sent[node.id] = made
        continue
      self.cut.add(node.id)
      what = _LOST.get(node.op, "what it computes")
      self.report.lose(label(node), node.op, what)
    for old, new in self.graph.bind.items():
      if nodes[new].op != "const":
        self.to.edges.append((self._value(new), self.sent[old]))
    for i in sorted(self.cut):
      for arg in nodes[i].args:
        if nodes[arg].op != "const" and arg not in self.cut:
          self._end(arg)
    leaves = jax.tree.leaves(
      self.graph.outputs, is_leaf=lambda x: isinstance(x, Output)
    )
    for leaf in leaves:
      if nodes[leaf.node].op != "const" and leaf.node not in self.cut:
        self._end(leaf.node)
    self._prune()
    kept = self.to.nodes
    names = {label(nodes[i]): n for i, n in self.sent.items() if n in kept}
    return Exported(self.to.graph(dt=self.dt), self.report, names, {})

  def _value(self, i: int) -> str:
    """The node that sends a value; an Input for one that is cut out."""
    if i not in self.sent:
      node = self.graph.nodes[i]
      self.sent[i] = self.to.input(label(node), node.width)
    return self.sent[i]

  def _end(self, i: int) -> None:
    if i not in self.ends:
      node = self.graph.nodes[i]
      name = f"{label(node)}_out"
      self.ends[i] = self.to.output(name, node.width, self.sent[i])

  def _scale(self, node: Node, factor, *args: int, name: str = "") -> str:
    """A Scale of values; several add up in it."""
    width = max(self.graph.nodes[a].width for a in args)
    scale = np.broadcast_to(np.asarray(factor, np.float64), width).copy()
    made = self.to.nir.Scale(scale=scale)
    sources = [self._value(a) for a in args]
    return self.to.add(name or label(node), made, *sources)

  def _shifted(self, node: Node, sign: int, arg: int, value) -> str:
    """sign * arg + value, as an Affine."""
    n = self.graph.nodes[arg].width
    bias = np.broadcast_to(np.asarray(value, np.float64), n)
    weight = sign * np.eye(n)
    return self.to.linear(label(node), weight, bias, self._value(arg))

  def _held(self, node: Node) -> None:
    what = _HELD.format(low=node.static["low"], high=node.static["high"])
    self.report.lose(label(node), node.op, what)

  def _node(self, node: Node) -> str | None:
    """The node of an instruction; None where NIR has none."""
    if node.op in ("input", "prev", "dense", "sum", "broadcast"):
      return self._structure(node)
    args = [self.graph.nodes[a] for a in node.args]
    known = [a.data for a in args if a.op == "const"]
    live = [a.id for a in args if a.op != "const"]
    static = node.static
    if len(live) != len(args) and (len(live) != 1 or known[0] is None):
      return None
    if any(self.graph.nodes[i].width != node.width for i in live):
      return None
    if node.op in ("add", "sub"):
      return self._sum(node, live, known)
    if node.op == "add_const":
      return self._shifted(node, 1, live[0], static["value"])
    if node.op == "rsub_const":
      return self._shifted(node, -1, live[0], static["value"])
    if node.op == "mul" and known:
      return self._scale(node, known[0], live[0])
    if node.op == "mul_shr" and known:
      self._held(node)
      factor = np.asarray(known[0], np.float64) * 2.0 ** -int(static["shift"])
      return self._scale(node, factor, live[0])
    if node.op == "shl":
      return self._scale(node, 2.0 ** int(static["bits"]), live[0])
    if node.op == "shr":
      self.report.lose(label(node), "shr", "it is rounded down")
      return self._scale(node, 2.0 ** -int(static["bits"]), live[0])
    if node.op == "round_shift":
      self._held(node)
      return self._scale(node, 2.0 ** -int(static["shift"]), live[0])
    if node.op == "clip":
      self._held(node)
      return self._scale(node, 1.0, live[0])
    if node.op == "ge":
      return self._threshold(node, live, known)
    return None

  def _structure(self, node: Node) -> str:
    """Inputs, states and synapses."""
    name = label(node)
    if node.op == "input":
      self.report.lose(
        name, "input", "the table of embeddings: the Input takes its rows"
      )
      return self.to.input(name, node.width)
    if node.op == "prev":
      made = self.to.nir.Delay(delay=np.full(node.width, self.dt))
      return self.to.add(name, made)
    source = self._value(node.args[0])
    n = self.graph.nodes[node.args[0]].width
    if node.op == "dense":
      bound = node.static.get("bound")
      self.report.lose(
        name, "dense", f"its messages are whole numbers of at most {bound}"
      )
      made = self.to.linear(name, np.asarray(node.data), None, source)
      self.core.add(made)
      return made
    shape = (1, n) if node.op == "sum" else (node.width, n)
    return self.to.linear(name, np.ones(shape), None, source)

  def _sum(self, node: Node, live: list[int], known) -> str:
    sign = 1 if node.op == "add" else -1
    if not known:
      first, second = live
      if sign == 1 and first != second:
        return self._scale(node, 1.0, first, second)
      if sign == 1:
        return self._scale(node, 2.0, first)
      minus = self._scale(node, -1.0, second, name=f"{label(node)}_minus")
      made = self._scale(node, 1.0, first)
      self.to.edges.append((minus, made))
      return made
    constant = np.asarray(known[0])
    if node.args[0] == live[0]:  # live +- constant
      return self._shifted(node, 1, live[0], sign * constant)
    return self._shifted(node, sign, live[0], constant)

  def _threshold(self, node: Node, live: list[int], known) -> str | None:
    """a >= b as a - b > -1/2, which is the same for whole numbers."""
    name, nir = label(node), self.to.nir
    below = np.full(node.width, -0.5)
    if not known:
      first, second = live
      minus = self._scale(node, -1.0, second, name=f"{name}_minus")
      source = [self._value(first), minus]
    elif node.args[0] == live[0]:
      below = below + np.asarray(known[0])
      source = [self._value(live[0])]
    else:
      below = below - np.asarray(known[0])
      source = [self._scale(node, -1.0, live[0], name=f"{name}_minus")]
    made = self.to.add(name, nir.Threshold(threshold=below), *source)
    self.core.add(made)
    return made

  def _prune(self) -> None:
    """Leaves out parts without a matrix or threshold."""
    beside: dict[str, set[str]] = {name: set() for name in self.to.nodes}
    for a, b in self.to.edges:
      beside[a].add(b)
      beside[b].add(a)
    kept: set[str] = set()
    todo = list(self.core)
    while todo:
      name = todo.pop()
      if name not in kept:
        kept.add(name)
        todo += beside[name]
    if not kept:
      raise ConfigError(
        "NIR export: the recorded graph has no matrix and no threshold, so"
        " there is nothing that NIR can say; export a circuit, or a model with"
        " an ops.linear"
      )
    nodes = self.graph.nodes
    for i, name in self.sent.items():
      if name not in kept and i not in self.cut:
        self.report.lose(
          label(nodes[i]),
          nodes[i].op,
          "it is between values that NIR cannot say, without a matrix",
        )
    self.to.nodes = {n: x for n, x in self.to.nodes.items() if n in kept}
    self.to.edges = [e for e in self.to.edges if e[0] in kept]
