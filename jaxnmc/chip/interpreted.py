"""Counts by the interpreter of `fixed`: for masks and saturation counts.

It walks the model function itself instead of the recorded graph, layer by
layer, so it takes what a graph cannot hold, and longer to compile.  Tokens that
a mask hides are counted like all others.
"""

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.chip import traffic
from jaxnmc.numerics.fx import codes
from jaxnmc.ops.alu import IntAlu
from jaxnmc.ops.quantized import Quantized
from jaxnmc.ops.stores import IntStore
from jaxnmc.ops.transform import checked_tree, over_batch

_CLIPPED = ".saturated"


class Interpreted:
  """Runs `fixed` and counts what crosses the routes.

  Args:
    fn: model function.
    plan: number formats.
    routes: counted synapses.
  """

  def __init__(self, fn, plan, routes) -> None:
    self.fn, self.plan, self.routes = fn, plan, routes
    self.sites = frozenset(r.synapse.path for r in routes)
    self._dense: list | None = None
    self._jit = jax.jit(self._core)

  def _core(self, tree, dense, inputs, state):
    def one(inputs, state):
      ops = Quantized(self.plan, IntAlu(), IntStore(), self.sites, True)
      out, state = self.fn(ops, tree, inputs, state)
      values = ops.tape.values
      rows = [
        traffic.count(route, codes(values[route.synapse.path]), weights)
        for route, weights in zip(self.routes, dense, strict=True)
      ]
      clipped = {
        k.removesuffix(_CLIPPED): v
        for k, v in values.items()
        if k.endswith(_CLIPPED)
      }
      return out, state, jnp.concatenate(rows, axis=-1), clipped

    return over_batch(one, inputs, state)

  def __call__(self, qparams, inputs, state):
    """Runs a prompt and counts.

    Args:
      qparams: integer parameters.
      inputs: {"ids": int32[T] or [B, T], "mask": same shape or absent}.
      state: state of an earlier call, or None.

    Returns:
      (out, state, counts int32[..., T, columns], {site: values clipped}).

    Raises:
      PlanError: float params, or another plan.
    """
    if self._dense is None:
      self._dense = [traffic.nonzero_per_tile(r) for r in self.routes]
    tree = checked_tree(qparams, self.plan)
    out, state, counts, clipped = self._jit(tree, self._dense, inputs, state)
    totals = {k: int(np.sum(v)) for k, v in jax.device_get(clipped).items()}
    return out, state, np.asarray(counts), totals
