"""Counts by the interpreter of `fixed`: for masks and saturation counts.

It walks the model function itself instead of the recorded graph, layer by
layer, so it takes what a graph cannot hold, and longer to compile.  Tokens that
a mask hides are counted like all others.
"""

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.chip.counting import histograms as sizes
from jaxnmc.chip.placement import digits
from jaxnmc.errors import PlanError
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
    measure: (route, values sent, what it needs) -> int32[T, columns].
    needs: route -> arrays that `measure` needs.
    histograms: also count how large messages are and who sends them.
  """

  def __init__(
    self, fn, plan, routes, measure, needs, histograms: bool = False
  ) -> None:
    self.fn, self.plan, self.routes = fn, plan, routes
    self._measure, self._needs = measure, needs
    self.sites = frozenset(r.synapse.path for r in routes)
    self._watched = sorted(self.sites) if histograms else []
    self._extras: list | None = None
    self._jit = jax.jit(self._core)

  def _core(self, tree, extras, inputs, state):
    def one(inputs, state):
      ops = Quantized(self.plan, IntAlu(), IntStore(), self.sites, True)
      out, state = self.fn(ops, tree, inputs, state)
      values = ops.tape.values
      rows = [
        self._measure(route, codes(values[route.synapse.path]), extra)
        for route, extra in zip(self.routes, extras, strict=True)
      ]
      clipped = {
        k.removesuffix(_CLIPPED): v
        for k, v in values.items()
        if k.endswith(_CLIPPED)
      }
      watched = {k: sizes.measure(codes(values[k])) for k in self._watched}
      return out, state, jnp.concatenate(rows, axis=-1), clipped, watched

    return over_batch(one, inputs, state)

  def __call__(self, qparams, inputs, state):
    """Runs a prompt and counts.

    Args:
      qparams: integer parameters.
      inputs: {"ids": int32[T] or [B, T], "mask": same shape or absent}.
      state: state of an earlier call, or None.

    Returns:
      (out, state, what was measured int32[..., T, columns], {site: values
      clipped}, {value: `Histogram`} or None).

    Raises:
      PlanError: float params, another plan, or a placement on a chip whose
        messages are too narrow for the values of the model.
    """
    parts = sorted(path for path in self.sites if digits.is_digit(path))
    if parts:
      raise PlanError(
        f"{parts[0]}: on this chip values are sent in several messages"
        " (message_bits), which the interpreter of fixed does not count; leave"
        " out the mask and the count of saturations"
      )
    if self._extras is None:
      self._extras = [self._needs(r) for r in self.routes]
    tree = checked_tree(qparams, self.plan)
    found = self._jit(tree, self._extras, inputs, state)
    out, state, counts, clipped, raw = found
    totals = {k: int(np.sum(v)) for k, v in jax.device_get(clipped).items()}
    watched = None
    if self._watched:
      tokens = int(np.prod(np.shape(inputs["ids"])))
      each = jax.device_get(raw).items()
      watched = {k: sizes.counted(v, tokens) for k, v in each}
    return out, state, np.asarray(counts), totals, watched
