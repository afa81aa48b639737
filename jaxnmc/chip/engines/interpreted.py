"""Counts by the interpreter of `fixed`: for masks and saturation counts.

It walks the model function itself instead of the recorded graph, layer by
layer, so it takes what a graph cannot hold, and longer to compile.  Tokens that
a mask hides are counted like all others.
"""

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.chip.counting import histograms as sizes
from jaxnmc.chip.engines import checking
from jaxnmc.chip.engines.taps import Extremes
from jaxnmc.chip.placement import digits
from jaxnmc.chip.routing import probes
from jaxnmc.errors import PlanError
from jaxnmc.kernels.tally import Table, tally
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
    basis: what is measured of the values that are sent.
    extremes: also measure the largest messages and sums; None: do not.
    histograms: also count how large messages are and who sends them.
  """

  def __init__(
    self,
    fn,
    plan,
    basis: probes.Basis,
    extremes: Extremes | None = None,
    histograms: bool = False,
  ) -> None:
    self.fn, self.plan, self.basis = fn, plan, basis
    self._extremes = extremes
    self.sites = frozenset(p.path for p in basis.probes.values())
    self._watched = sorted(self.sites) if histograms else []
    self._extras: tuple | None = None
    self._jit = jax.jit(self._core)

  def _needs(self) -> tuple:
    """Arrays on the device that measuring takes."""
    put = lambda x: None if x is None else jnp.asarray(x)
    tables = [Table.of(probes.tables([p])) for p in self.basis.probes.values()]
    limits = self._extremes
    if limits is None:
      return tables, []
    return tables, [put(limits.codes(route)) for route in limits.routes]

  def _core(self, tree, extras, inputs, state):
    tables, weights = extras
    routes = self._extremes.routes if self._extremes else ()

    def one(inputs, state):
      ops = Quantized(self.plan, IntAlu(), IntStore(), self.sites, True)
      out, state = self.fn(ops, tree, inputs, state)
      values = ops.tape.values
      found = self.basis.probes.values()
      sent = [codes(values[probe.path]) for probe in found]
      counts = tally(sent, [probe.edges for probe in found], tables)
      most = [
        checking.of_route(route, codes(values[route.synapse.path]), dense)
        for route, dense in zip(routes, weights, strict=True)
      ]
      clipped = {
        k.removesuffix(_CLIPPED): v
        for k, v in values.items()
        if k.endswith(_CLIPPED)
      }
      watched = {k: sizes.measure(codes(values[k])) for k in self._watched}
      return out, state, counts, most, clipped, watched

    return over_batch(one, inputs, state)

  def __call__(self, qparams, inputs, state):
    """Runs a prompt and counts.

    Args:
      qparams: integer parameters.
      inputs: {"ids": int32[T] or [B, T], "mask": same shape or absent}.
      state: state of an earlier call, or None.

    Returns:
      (out, state, columns of the basis int32[..., T, columns], extremes of
      every route or None, {site: values clipped}, {value: `Histogram`} or
      None).

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
      self._extras = self._needs()
    tree = checked_tree(qparams, self.plan)
    found = self._jit(tree, self._extras, inputs, state)
    out, state, counts, most, clipped, raw = found
    totals = {k: int(np.sum(v)) for k, v in jax.device_get(clipped).items()}
    watched = None
    if self._watched:
      tokens = int(np.prod(np.shape(inputs["ids"])))
      each = jax.device_get(raw).items()
      watched = {k: sizes.counted(v, tokens) for k, v in each}
    most = None if self._extremes is None else [np.asarray(m) for m in most]
    counts = self.basis.complete(np.asarray(counts))
    return out, state, counts, most, totals, watched
