"""Outputs and state of a placed model: `Fx` pytrees outside, codes inside.

Of a state the host keeps the number of tokens so far (`graph.Count`), the cores
the rest.
"""

from collections.abc import Mapping

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.errors import PlanError
from jaxnmc.numerics.fx import Fx, is_fx
from jaxnmc.ops.graph import Count, Graph, Output


def slots(graph: Graph) -> list[tuple[Output, int]]:
  """(state leaf, id of the `prev` node that reads it), in pytree order."""
  reader = {new: old for old, new in graph.bind.items()}
  leaves = jax.tree.leaves(graph.state)
  kept = [leaf for leaf in leaves if isinstance(leaf, Output)]
  return [(leaf, reader[leaf.node]) for leaf in kept]


def zeros(graph: Graph, batch: tuple[int, ...] = (), count: int = 0):
  """A state before the first token, leaves int32[*batch, width].

  Args:
    graph: recorded graph.
    batch: leading axes.
    count: tokens that the host counts as gone by.
  """
  places = slots(graph)
  widths = {prev: graph.nodes[prev].width for _, prev in places}
  codes = {p: np.zeros((*batch, w), np.int32) for p, w in widths.items()}
  return leave(graph, codes, np.full(batch, count, np.int32))


def parts(graph: Graph, state) -> tuple[list, jax.Array]:
  """What the cores keep of a state, as in `slots`, and the host's count.

  Args:
    graph: recorded graph.
    state: pytree of `Fx` and counts.

  Returns:
    (leaves, int32[...], 0 where the state has no count).

  Raises:
    PlanError: the state is of another plan or model.
  """
  leaves = jax.tree.leaves(state, is_leaf=is_fx)
  places = jax.tree.leaves(graph.state)
  if len(leaves) != len(places):
    raise PlanError(
      f"the state has {len(leaves)} parts, the model {len(places)}; it must"
      " come from fixed or loihi on this model"
    )
  kept, count = [], jnp.int32(0)
  for value, place in zip(leaves, places, strict=True):
    if not isinstance(place, Count):
      kept.append(value)
    elif getattr(value, "dtype", None) == jnp.int32:
      count = jnp.asarray(value)
    else:
      raise PlanError(
        f"the state holds {type(value).__name__} where the model counts its"
        " tokens, int32; it must come from fixed or loihi on this model"
      )
  return kept, count


def enter(graph: Graph, state) -> tuple[dict[int, jax.Array], jax.Array]:
  """Codes of a state by `prev` node.

  Args:
    graph: recorded graph.
    state: pytree of `Fx`, int32[width] each, and counts, of one sequence.

  Returns:
    (`prev` node id -> int32[width], the host's count int32[]).

  Raises:
    PlanError: the state is of another plan or model.
  """
  found = {}
  leaves, count = parts(graph, state)
  for value, (leaf, prev) in zip(leaves, slots(graph), strict=True):
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
  return found, count


def leave(graph: Graph, codes: Mapping[int, jax.Array | np.ndarray], count):
  """The state pytree, leaves `Fx` and counts.

  Args:
    graph: recorded graph.
    codes: `prev` node id -> int32[width].
    count: int32[], tokens so far.
  """
  readers = {leaf.node: prev for leaf, prev in slots(graph)}
  return jax.tree.map(
    lambda leaf: (
      count
      if isinstance(leaf, Count)
      else _value(leaf, codes[readers[leaf.node]])
    ),
    graph.state,
  )


def outputs(graph: Graph, codes: dict[int, jax.Array]):
  """The pytree of outputs, leaves `Fx`, from int32[T, width] by node."""
  return jax.tree.map(
    lambda leaf: _value(leaf, codes[leaf.node]), graph.outputs
  )


def _value(leaf: Output, q) -> Fx:
  """A fixed-point value in the format of an output."""
  return Fx(q, frac=leaf.frac, low=leaf.low, high=leaf.high, site=leaf.site)
