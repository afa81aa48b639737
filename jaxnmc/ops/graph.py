"""A recorded model: the instructions of one token, as plain data.

Nodes are in order of evaluation.  An element-wise node is something a neuron
computes; `dense`, `sum` and `broadcast` nodes are synapses, and the node itself
is the accumulator at the destination.  `prev` reads state; `bind` says which
value replaces it.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

# What a neuron can do in its own program.
ELEMENTWISE = (
  *("add", "sub", "mul", "add_const", "rsub_const", "min", "max", "ge"),
  *("select", "shl", "shr", "low_bits", "clip", "round_shift", "mul_shr"),
  *("sigmoid", "mean_square", "inv_sqrt"),
)
SYNAPSES = ("dense", "sum", "broadcast")
# What says which row of an embedding table the host takes.
TOKEN, POSITION = "token", "position"


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
  """One value of one token.

  Attributes:
    id: position in the graph.
    op: instruction name, or "input", "const", "prev".
    args: ids of the operands.
    static: static operands of the instruction; of an `input` node `index`, one
      of `TOKEN` (the default) and `POSITION`.
    width: number of neurons (features).
    layer: index of the layer scope, or None.
    site: path of the named site, or None.
    cast: may cross a synapse.
    data: constant values int32[width], the matrix int8[out, in] of a `dense`
      node, or the embedding table [V, width] of an `input` node.
  """

  id: int
  op: str
  args: tuple[int, ...]
  static: Mapping[str, Any]
  width: int
  layer: int | None
  site: str | None = None
  cast: bool = False
  data: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Output:
  """A result of the function: which node, in which format.

  Attributes:
    node: id.
    frac: fraction bits.
    low: smallest code.
    high: largest code.
    site: path of the site.
  """

  node: int
  frac: int
  low: int
  high: int
  site: str | None


@dataclasses.dataclass(frozen=True)
class Count:
  """A part of the state that the host keeps, int32[]: tokens so far."""


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
  """A recorded model.

  Attributes:
    nodes: in order of evaluation, `nodes[i].id == i`.
    bind: id of a `prev` node -> id of the value that replaces it.
    outputs: pytree of the function's outputs, leaves `Output`.
    state: pytree of the function's new state, leaves `Output` or `Count`.
    plan: fingerprint of the plan.
    weights: fingerprint of the integer parameters.
  """

  nodes: tuple[Node, ...]
  bind: Mapping[int, int]
  outputs: Any
  state: Any
  plan: str
  weights: str

  @functools.cached_property
  def inputs(self) -> tuple[Node, ...]:
    """Embedding tables, of which the host takes a row for every token."""
    return tuple(n for n in self.nodes if n.op == "input")

  @functools.cached_property
  def before_cores(self) -> frozenset[int]:
    """Ids of the inputs, and of what the host makes of them alone."""
    found: set[int] = set()
    for node in self.nodes:
      args = [a for a in node.args if self.nodes[a].op != "const"]
      own = node.op in ELEMENTWISE and bool(args) and found.issuperset(args)
      same = all(self.nodes[a].layer == node.layer for a in args)
      if node.op == "input" or (own and same):
        found.add(node.id)
    return frozenset(found)
