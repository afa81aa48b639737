"""Nodes that the host computes: exact integers, a whole sequence at a time."""

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.kernels.ternary import ternary_matmul
from jaxnmc.ops.alu import IntAlu
from jaxnmc.ops.graph import Graph


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


def rows(graph: Graph, ids) -> jax.Array:
  """Embedding rows, int32[T, width], of tokens int[T]."""
  table = graph.input.data
  assert table is not None
  return jnp.asarray(np.take(table, np.asarray(ids), axis=0), jnp.int32)
