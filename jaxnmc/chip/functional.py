"""`loihi`, engine "functional": whole prompts at a time, counted by core.

The integers are those of `fixed`, by the same interpreter.  What each core
received, walked and sent follows from the values at the named sites and from
the placement; when it did so follows from the schedule (a token's event at
depth d happens at step inject + d).
"""

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.chip import traffic
from jaxnmc.chip.counters import Counters, Segment, SynapseCount
from jaxnmc.errors import PlanError
from jaxnmc.numerics.fx import Fx
from jaxnmc.ops.alu import IntAlu
from jaxnmc.ops.quantized import Quantized
from jaxnmc.ops.stores import IntStore
from jaxnmc.ops.transform import check_inputs, checked_tree, over_batch


class Functional:
  """The functional engine of one placed model.

  Args:
    fn: model function.
    plan: number formats.
    placement: where the recorded network lies.
    mode: "pipelined" (a token every step) or "fall-through" (the next token
      when the last one has left).
    saturation: also count the values that each site clipped.
  """

  def __init__(
    self, fn, plan, placement, mode: str, saturation: bool = False
  ) -> None:
    self.saturation = saturation
    self.fn, self.plan, self.placement, self.mode = fn, plan, placement, mode
    self.routes = traffic.routes(placement)
    self.sites = frozenset(r.synapse.path for r in self.routes)
    self._dense = [traffic.nonzero_per_tile(r) for r in self.routes]
    self._jit = jax.jit(self._core)

  def traced(self, qparams, inputs, state=None):
    """Pure JAX form: (out, state, {"counts", "saturated"}).

    `counts` is int32[T, columns] ([B, T, columns] for a batch): the rows of
    `chip.traffic.count` of all routes, side by side.
    """
    tree = checked_tree(qparams, self.plan)
    if qparams.weights != self.placement.network.graph.weights:
      raise PlanError(
        "the placement was made from other weights than these qparams; record"
        " and place them again"
      )
    dense = [None if d is None else jnp.asarray(d) for d in self._dense]
    return self._core(tree, dense, inputs, state)

  def _core(self, tree, dense, inputs, state):
    def one(inputs, state):
      ops = Quantized(
        self.plan, IntAlu(), IntStore(), self.sites, self.saturation
      )
      out, state = self.fn(ops, tree, inputs, state)
      values = ops.tape.values
      rows = [
        traffic.count(route, _codes(values[route.synapse.path]), weights)
        for route, weights in zip(self.routes, dense, strict=True)
      ]
      saturated = {
        k.removesuffix(".saturated"): v
        for k, v in values.items()
        if k.endswith(".saturated")
      }
      counts = jnp.concatenate(rows, axis=-1)
      return out, state, {"counts": counts, "saturated": saturated}

    return over_batch(one, inputs, state)

  def __call__(self, qparams, inputs, state=None):
    """Runs a prompt (or one token) and counts.

    Args:
      qparams: integer parameters.
      inputs: {"ids": int32[T] or [B, T]}.
      state: state of an earlier call, or None.

    Returns:
      (out, state, Counters); the tokens of a batch count one sequence after
      the other.
    """
    check_inputs(self.fn, inputs)
    tree = checked_tree(qparams, self.plan)
    if qparams.weights != self.placement.network.graph.weights:
      raise PlanError(
        "the placement was made from other weights than these qparams; record"
        " and place them again"
      )
    out, state, raw = self._jit(tree, self._dense, inputs, state)
    raw = jax.device_get(raw)
    saturated = None
    if self.saturation:
      saturated = {k: int(np.sum(v)) for k, v in raw["saturated"].items()}
    counts = raw["counts"]
    rows = counts[None] if counts.ndim == 2 else counts
    segments = tuple(self._segment(r) for r in rows)
    return out, state, Counters.of(segments, self.placement, saturated)

  def _segment(self, counts: np.ndarray) -> Segment:
    tokens = len(counts)
    stride = (
      1 if self.mode == "pipelined" else self.placement.network.steps_per_token
    )
    inject = np.arange(tokens, dtype=np.int64) * stride
    return Segment(inject, split(self.routes, counts))


def split(routes, counts: np.ndarray) -> tuple[SynapseCount, ...]:
  """Cuts rows of counts into one `SynapseCount` per route."""
  result, at = [], 0
  for route in routes:
    k, m = route.src.count, route.dst.count
    out = counts[:, at : at + k]
    inc, synops, stored = (
      counts[:, at + k + i * m : at + k + (i + 1) * m] for i in range(3)
    )
    at += route.columns
    result.append(
      SynapseCount(
        route.synapse.index, route.synapse.depth, out, inc, synops, stored
      )
    )
  return tuple(result)


def _codes(value) -> jax.Array:
  return value.q if isinstance(value, Fx) else value
