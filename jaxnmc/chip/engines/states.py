"""Outputs and state of a placed model: `Fx` pytrees outside, codes inside."""

from collections.abc import Mapping

import jax
import numpy as np

from jaxnmc.errors import PlanError
from jaxnmc.numerics.fx import Fx, is_fx
from jaxnmc.ops.graph import Graph, Output


def slots(graph: Graph) -> list[tuple[Output, int]]:
  """(state leaf, id of the `prev` node that reads it), in pytree order."""
  reader = {new: old for old, new in graph.bind.items()}
  return [(leaf, reader[leaf.node]) for leaf in jax.tree.leaves(graph.state)]


def zeros(graph: Graph, batch: tuple[int, ...] = ()):
  """The state before the first token, leaves int32[*batch, width]."""
  places = slots(graph)
  widths = {prev: graph.nodes[prev].width for _, prev in places}
  codes = {p: np.zeros((*batch, w), np.int32) for p, w in widths.items()}
  return leave(graph, codes)


def enter(graph: Graph, state) -> dict[int, jax.Array]:
  """Codes of a state by `prev` node.

  Args:
    graph: recorded graph.
    state: pytree of `Fx`, int32[width] each, of one sequence.

  Returns:
    `prev` node id -> int32[width].

  Raises:
    PlanError: the state is of another plan or model.
  """
  leaves = jax.tree.leaves(state, is_leaf=is_fx)
  found = {}
  places = slots(graph)
  if len(leaves) != len(places):
    raise PlanError(
      f"the state has {len(leaves)} parts, the model {len(places)}; it must"
      " come from fixed or loihi on this model"
    )
  for value, (leaf, prev) in zip(leaves, places, strict=True):
    if not is_fx(value) or value.frac != leaf.frac:
      raise PlanError(
        f"{leaf.site}: the state handed in is not of this plan; it must come"
        " from fixed or loihi under the same plan"
      )
    width = graph.nodes[prev].width
    if tuple(value.shape) != (width,):
      raise PlanError(
        f"{leaf.site}: the state has shape {list(value.shape)}, one sequence"
        f" has [{width}]; a batch of states goes with a batch of ids"
      )
    found[prev] = value.q
  return found


def leave(graph: Graph, codes: Mapping[int, jax.Array | np.ndarray]):
  """The state pytree, leaves `Fx`, from int32[width] by `prev` node."""
  leaves = [_value(leaf, codes[prev]) for leaf, prev in slots(graph)]
  return jax.tree.unflatten(jax.tree.structure(graph.state), leaves)


def outputs(graph: Graph, codes: dict[int, jax.Array]):
  """The pytree of outputs, leaves `Fx`, from int32[T, width] by node."""
  return jax.tree.map(
    lambda leaf: _value(leaf, codes[leaf.node]), graph.outputs
  )


def _value(leaf: Output, q) -> Fx:
  """A fixed-point value in the format of an output."""
  return Fx(q, frac=leaf.frac, low=leaf.low, high=leaf.high, site=leaf.site)
