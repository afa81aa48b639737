"""Ops that no neuron of the chip computes: `fake_quant` keeps them in floats.

Their operands are sites with formats, and what comes out is a site again: only
the arithmetic between is that of floats.  So
the cost of a plan is seen in full; integers are refused, because there are
none to be equal to.
"""

import dataclasses

from jax import numpy as jnp

from jaxnmc.errors import PlanError
from jaxnmc.numerics.fx import Fx
from jaxnmc.ops import attention
from jaxnmc.ops.fixed_point import FixedPoint
from jaxnmc.ops.reference import gelu

_INSTEAD = {
  "gelu": "use ops.silu",
  "rotate": "add learned positions (ops.embed)",
  "attention": "softmax divides by a sum over all tokens so far; use a"
  " recurrence over a state (ops.scan)",
  "remember": "a memory that grows with the tokens has no place on cores; use"
  " a recurrence over a state (ops.scan)",
}


class FloatOnly(FixedPoint):
  """Attention and what comes with it; arguments as in `Reference`.

  Raises (every op):
    PlanError: integers are computed (`fixed`, `record`, `loihi`); or an
      operand is no fixed-point value, the plan does not know the site, or a
      state belongs to another plan or model.
  """

  def _floats_here(self, op: str, path: str) -> None:
    self.guard(path)
    if self.alu.exact:
      raise PlanError(
        f"{path}: ops.{op} has no integer form ({_INSTEAD[op]}), so this model"
        " runs by reference and fake_quant only"
      )

  def _real(self, path: str, x):
    """The real values of an operand."""
    return self._plain(path, x).to_float(self.alu.dtype)

  def _rounded(self, path: str, value) -> Fx:
    """Floats as the site `path`."""
    fmt = self.plan.format(path)
    q = self.alu.round_shift(value, shift=-fmt.frac, low=fmt.low, high=fmt.high)
    return self._sited(path, q, fmt)

  def gelu(self, name: str, x, form: str = "erf") -> Fx:
    """x P(X <= x), X normal."""
    path = self.path(name)
    self._floats_here("gelu", path)
    return self._rounded(path, gelu(self._real(path, x), form))

  def rotate(
    self, name: str, x, positions, heads: int, base: float, pairs: str
  ) -> Fx:
    """Rotary positions."""
    path = self.path(name)
    self._floats_here("rotate", path)
    x = self._real(path, x)
    return self._rounded(
      path, attention.rotate(x, positions, heads, base, pairs)
    )

  def remember(self, name: str, cache, x, slots, size: int) -> Fx:
    """A cache of codes, in the format of the site that is written."""
    path = self.path(name)
    self._floats_here("remember", path)
    x = self._plain(path, x)
    shape = (size, *x.shape[1:])
    if cache is None:
      old = jnp.zeros(shape, x.q.dtype)
    elif not isinstance(cache, Fx):
      raise PlanError(
        f"{path}: expected a fixed-point state, found {type(cache).__name__};"
        " start from None (zeros) or from the state of an earlier call of the"
        " same transform"
      )
    elif (cache.frac, cache.low, cache.high) != (x.frac, x.low, x.high):
      raise PlanError(
        f"{path}: the state is {cache.label}, the plan has {x.label}; it was"
        " made under another plan"
      )
    else:
      attention.check_cache(path, cache.q, shape)
      old = cache.q
    return dataclasses.replace(x, q=attention.write_rows(old, x.q, slots))

  def attention(
    self, name: str, q, k, v, seen, heads: int, kv_heads: int
  ) -> Fx:
    """Softmax attention."""
    path = self.path(name)
    self._floats_here("attention", path)
    q, k, v = (self._real(path, x) for x in (q, k, v))
    return self._rounded(path, attention.attend(q, k, v, seen, heads, kv_heads))
