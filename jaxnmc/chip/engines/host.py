"""What the host computes: exact integers, a whole sequence at a time.

Before the cores it takes rows of embedding tables, by token or by position,
and does what is element-wise on them alone; the result is what it sends.
Behind them it computes what is placed on no core.
"""

from collections.abc import Mapping

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.chip.network import Network
from jaxnmc.kernels.ternary import ternary_matmul
from jaxnmc.ops.alu import IntAlu
from jaxnmc.ops.graph import POSITION, Graph


def evaluate(graph: Graph, nodes: list[int], known: dict[int, jax.Array]):
  """Values of some nodes from the values they depend on.

  Args:
    graph: recorded graph.
    nodes: ids to compute, in order of evaluation.
    known: id -> int32[T, width] of every operand not among `nodes`.

  Returns:
    id -> int32[T, width], the known ones included.
  """
  alu = IntAlu()
  values = dict(known)

  def read(i: int):
    node = graph.nodes[i]
    return jnp.asarray(node.data) if node.op == "const" else values[i]

  for i in nodes:
    node = graph.nodes[i]
    args = [read(a) for a in node.args]
    if node.op == "dense":
      codes = jnp.asarray(np.asarray(node.data))
      values[i] = ternary_matmul(args[0], codes, node.static["bound"])
    else:
      values[i] = getattr(alu, node.op)(*args, **node.static)
  return values


def tables(graph: Graph) -> dict[int, np.ndarray]:
  """Embedding tables by input node, [V, width]."""
  return {n.id: n.data for n in graph.inputs if n.data is not None}


def rows(
  graph: Graph, held: Mapping[int, jax.Array | np.ndarray], ids, before
) -> dict[int, jax.Array]:
  """Rows of embedding tables.

  Args:
    graph: recorded graph.
    held: what `tables` returned, on the device or not.
    ids: int32[T].
    before: int32[], tokens of the calls before.

  Returns:
    Input node id -> int32[T, width].
  """
  alu, ids = IntAlu(), jnp.asarray(ids)
  places = before + jnp.arange(ids.shape[0], dtype=jnp.int32)
  by_place = lambda node: node.static.get("index") == POSITION
  return {
    n.id: alu.gather_rows(held[n.id], places if by_place(n) else ids)
    for n in graph.inputs
  }


def sent(net: Network, ids, before) -> np.ndarray:
  """What the host sends for tokens.

  Args:
    net: the network.
    ids: int32[T].
    before: int32[], tokens of the calls before.

  Returns:
    int32[T, width], the values of `net.entries` side by side.
  """
  graph = net.graph
  known = rows(graph, tables(graph), ids, before)
  nodes = sorted(graph.before_cores - known.keys())
  values = evaluate(graph, nodes, known)
  return np.concatenate([values[node] for node in net.entries], axis=-1)
