"""A recorded model: the instructions of one token, as plain data.

Nodes are in order of evaluation.  An element-wise node is something a neuron
computes; `dense`, `sum` and `broadcast` nodes are synapses, and the node itself
is the accumulator at the destination.  `prev` reads state; `bind` says which
value replaces it.
"""

import dataclasses
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


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
  """One value of one token.

  Attributes:
    id: position in the graph.
    op: instruction name, or "input", "const", "prev".
    args: ids of the operands.
    static: static operands of the instruction.
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


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
  """A recorded model.

  Attributes:
    nodes: in order of evaluation, `nodes[i].id == i`.
    bind: id of a `prev` node -> id of the value that replaces it.
    outputs: pytree of the function's outputs, leaves `Output`.
    state: pytree of the function's new state, leaves `Output`.
    plan: fingerprint of the plan.
    weights: fingerprint of the integer parameters.
  """

  nodes: tuple[Node, ...]
  bind: Mapping[int, int]
  outputs: Any
  state: Any
  plan: str
  weights: str

  @property
  def input(self) -> Node:
    """The node that the host injects: rows of the embedding table."""
    (node,) = [n for n in self.nodes if n.op == "input"]
    return node
