"""Element-wise ops in integers: exact, with bounds."""

import dataclasses

from jax import numpy as jnp

from jaxnmc.errors import FormatError
from jaxnmc.numerics.fx import Fx
from jaxnmc.ops.fixed_point import FixedPoint


class Elementwise(FixedPoint):
  """What one neuron does with its own values.

  Operands and results are `Fx` whose codes, int32[T, ..., n], broadcast; the
  rules are those of docs/numerics.md, 2 ("between sites") and 7.

  Raises (every op):
    PlanError: an operand is no fixed-point value.
    FormatError: an operand carries a pending matrix scale, or the result could
      leave 32 bits.
  """

  def add(self, a, b) -> Fx:
    """a + b, exact."""
    label = self._pair(a, "+", b)
    a, b = self._aligned(a, b)
    low, high = a.low + b.low, a.high + b.high
    q = self.alu.add(a.q, b.q)
    return self._value(label, q, a.frac, low, high)

  def sub(self, a, b) -> Fx:
    """a - b, exact."""
    label = self._pair(a, "-", b)
    a, b = self._aligned(a, b)
    low, high = a.low - b.high, a.high - b.low
    q = self.alu.sub(a.q, b.q)
    return self._value(label, q, a.frac, low, high)

  def mul(self, a, b) -> Fx:
    """a * b, exact."""
    label = self._pair(a, "x", b)
    low, high = product_range(a, b)
    q = self.alu.mul(a.q, b.q)
    return self._value(label, q, a.frac + b.frac, low, high)

  def one_minus(self, x) -> Fx:
    """1 - x, exact.

    Raises:
      FormatError: x has less than 0 or more than 30 fraction bits.
    """
    path = self._here()
    x = self._plain(path, x)
    if not 0 <= x.frac <= 30:
      raise FormatError(
        f"{path}: 1 - x needs 0 to 30 fraction bits; {x.site} has {x.frac}"
      )
    one = 1 << x.frac
    q = self.alu.rsub_const(x.q, value=one)
    return self._value(path, q, x.frac, one - x.high, one - x.low)

  def shift(self, x, bits: int) -> Fx:
    """x * 2^-bits: only the binary point moves."""
    x = self._plain(self._here(), x)
    return dataclasses.replace(x, frac=x.frac + bits, site=None)

  def min(self, a, b) -> Fx:
    """Element-wise minimum."""
    a, b = self._aligned(a, b)
    low, high = min(a.low, b.low), min(a.high, b.high)
    return self._value(self._here(), self.alu.min(a.q, b.q), a.frac, low, high)

  def max(self, a, b) -> Fx:
    """Element-wise maximum."""
    a, b = self._aligned(a, b)
    low, high = max(a.low, b.low), max(a.high, b.high)
    return self._value(self._here(), self.alu.max(a.q, b.q), a.frac, low, high)

  def compare(self, a, b, slope=None) -> Fx:
    """1 where a >= b, else 0; no fraction bits.  Integers have no slope."""
    a, b = self._aligned(a, b)
    fires = self.alu.ge if self.alu.exact or slope is None else slope
    return Fx(fires(a.q, b.q), frac=0, low=0, high=1)

  def select(self, cond, a, b) -> Fx:
    """`a` where cond is not zero, else `b`."""
    cond = self._plain(self._here(), cond)
    a, b = self._aligned(a, b)
    low, high = min(a.low, b.low), max(a.high, b.high)
    q = self.alu.select(cond.q, a.q, b.q)
    return self._value(self._here(), q, a.frac, low, high)

  def keep(self, mask, x) -> Fx:
    """x where mask, int[T, ...], is 1 (or None), zero where it is 0."""
    if mask is None:
      return x
    x = self._plain(self._here(), x)
    cond = self.alu.param(mask[..., None])
    q = self.alu.select(cond, x.q, jnp.zeros_like(x.q))
    low, high = min(x.low, 0), max(x.high, 0)
    return dataclasses.replace(x, q=q, low=low, high=high)

  def settle(self, x, const) -> Fx:
    """x, computed once, where instructions are those of a processor."""
    const = self._plain(self._here(), const)
    return dataclasses.replace(x, q=self.alu.settle(x.q, const.q))

  def sigmoid(self, x) -> Fx:
    """Table sigmoid of the plan; 0 to 2^out_frac, out_frac fraction bits."""
    path = self._here()
    x = self._plain(path, x)
    # One instruction whichever point is finer, so that layers share programs;
    # the table is constant beyond its reach.
    table = self.plan.table
    k = self.alu.round_shift(
      x.q, shift=x.frac - table.in_frac, low=-table.reach, high=table.reach
    )
    q = self.alu.sigmoid(k, table=table)
    return Fx(q, frac=table.out_frac, low=0, high=1 << table.out_frac)

  def silu(self, name: str, x) -> Fx:
    """x * sigmoid(x); the result is the site `name`."""
    return self.site(name, self.mul(x, self.sigmoid(x)))


def product_range(a: Fx, b: Fx) -> tuple[int, int]:
  """Smallest and largest product of the codes of two values."""
  corners = [x * y for x in (a.low, a.high) for y in (b.low, b.high)]
  return min(corners), max(corners)
