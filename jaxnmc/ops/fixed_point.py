"""Fixed-point bookkeeping: formats, bounds, and sites, which round.

Between sites arithmetic is exact: fraction bits and bounds are worked out
while a function is traced, and a value that could leave 32 bits is an error
that names the place.  A site rounds, shifts and saturates into the format the
plan gives it.
"""

import dataclasses

from jax import numpy as jnp

from jaxnmc.errors import FormatError, PlanError
from jaxnmc.numerics.formats import ACCUMULATOR_BITS, Format
from jaxnmc.numerics.fx import Fx
from jaxnmc.numerics.wide import MAX_LEFT, MAX_SHIFT
from jaxnmc.ops.base import Ops


class FixedPoint(Ops):
  """What every fixed-point op builds on.

  Args:
    plan: formats of all sites (`jaxnmc.plan`).
    alu: the instruction set.
    store: turns a parameter leaf into `QMatrix` or `QVector`.
    taps: keep the value of every site (or of these paths) on the tape.
    saturation: count values that a site clipped.
  """

  def __init__(
    self,
    plan,
    alu,
    store,
    taps: bool | frozenset[str] = False,
    saturation: bool = False,
  ) -> None:
    super().__init__()
    self.plan = plan
    self.alu = alu
    self.store = store
    self.taps = taps
    self.saturation = saturation

  # --- formats

  def _fits(self, path: str, frac: int, bound: int) -> None:
    """Refuses what the accumulator cannot hold, before it is computed."""
    most = (1 << (ACCUMULATOR_BITS - 1)) - 1
    if bound > most:
      raise FormatError(
        f"{path}: a value of {frac} fraction bits may reach {bound}, but"
        f" {ACCUMULATOR_BITS} bits hold {most}; put a site with fewer bits or"
        " fewer fraction bits in front of it"
      )

  def _value(self, path: str, q, frac: int, low: int, high: int, **kw) -> Fx:
    """An Fx whose bound has been checked against the accumulator."""
    self._fits(path, frac, max(-low, high))
    return Fx(q, frac=frac, low=low, high=high, **kw)

  def _plain(self, path: str, x) -> Fx:
    """Refuses operands that are not plain fixed-point values."""
    if not isinstance(x, Fx):
      raise PlanError(
        f"{path}: expected a fixed-point value, found {type(x).__name__};"
        " parameters enter through ops.linear, norm, embed or const"
      )
    if x.mult is not None:
      raise FormatError(
        f"{path}: the result of a matrix product carries a pending scale;"
        " put ops.site(...) around the product first"
      )
    return x

  def _here(self) -> str:
    return ".".join(self._path) or "<top>"

  def _pair(self, a: Fx, sign: str, b: Fx) -> str:
    """Place and both formats of an operation, for messages."""
    path = self._here()
    a, b = self._plain(path, a), self._plain(path, b)
    return f"{path} ({a.label} {sign} {b.label})"

  def _aligned(self, a: Fx, b: Fx) -> tuple[Fx, Fx]:
    """Both operands with the larger number of fraction bits, exactly."""
    path = self._here()
    a, b = self._plain(path, a), self._plain(path, b)
    frac = max(a.frac, b.frac)
    return self._to_frac(path, a, frac), self._to_frac(path, b, frac)

  def _to_frac(self, path: str, x: Fx, frac: int) -> Fx:
    bits = frac - x.frac
    if x.low == 0 == x.high:
      return dataclasses.replace(x, frac=frac)
    scale = 1 << bits
    label = f"{path} (aligning {x.label} to {frac} fraction bits)"
    # Refused before a shift is built that no machine has.
    self._fits(label, frac, x.bound * scale)
    # A shift by 0 is an instruction, too: layers with other formats are then
    # the same program.
    q = self.alu.shl(x.q, bits=bits)
    return Fx(q, frac=frac, low=x.low * scale, high=x.high * scale)

  def _requant(self, path: str, x: Fx, fmt: Format, form: str = "scale"):
    """Codes of x in a format: round, shift, saturate.

    A pending multiplier is a matrix scale (`form` "scale": a 16-bit mantissa)
    or an inverse root.
    """
    shift = x.frac + x.exp - fmt.frac
    # One code beyond either end tells a clipped value from one at the limit.
    spare = 1 if self.saturation else 0
    limits = {"low": fmt.low - spare, "high": fmt.high + spare}
    if x.mult is not None:
      if self.alu.exact and not 1 <= shift <= MAX_SHIFT:
        raise FormatError(
          f"{path}: a product with {x.frac + x.exp} fraction bits cannot reach"
          f" format {fmt} in one multiply-shift (shift {shift}, allowed 1 to"
          f" {MAX_SHIFT}); choose fewer fraction bits for this site"
        )
      wide = self.alu.mul_shr(x.q, x.mult, shift=shift, form=form, **limits)
    elif self.alu.exact and shift < -MAX_LEFT:
      raise FormatError(
        f"{path}: a value with {x.frac} fraction bits cannot reach format {fmt}"
        f" in one shift (to the left by {-shift}, allowed {MAX_LEFT}); choose"
        " fewer fraction bits for this site"
      )
    else:
      wide = self.alu.round_shift(x.q, shift=shift, **limits)
    if not self.saturation:
      return wide
    q = self.alu.clip(wide, low=fmt.low, high=fmt.high)
    count = jnp.sum((wide != q).astype(jnp.int32), dtype=jnp.int32)
    self.emit(path + ".saturated", count, "sum")
    return q

  def _bias(self, path: str, bias, width: int, frac: int):
    """A bias at the binary point of what it is added to, and its bound.

    The sums are not touched: a bias of more fraction bits is rounded, once.
    """
    key = path + ".bias"
    value = self.store.const(key, bias, self.plan.format(key), None)
    if value.shape != (width,):
      raise PlanError(
        f"{key}: a bias of shape {list(value.shape)} cannot be added to"
        f" {width} features"
      )
    shift = value.frac - frac
    # R(bound, shift) of docs/numerics.md, 2, in Python's integers.
    if shift > 0:
      reach = (value.bound + (1 << shift - 1)) >> shift
    else:
      reach = value.bound << -shift
    if self.alu.exact:
      label = f"{key} (.{value.frac} at {frac} fraction bits)"
      self._fits(label, frac, reach)
    # Limits that nothing reaches: a clip there would halve a gradient.
    limits = {"low": -reach - 1, "high": reach + 1}
    q = self.alu.param(value.q)
    return self.alu.round_shift(q, shift=shift, **limits), reach

  def _sited(self, path: str, q, fmt: Format, cast: bool = True) -> Fx:
    q = self.alu.mark(q, path, cast)
    out = Fx(q, frac=fmt.frac, low=fmt.low, high=fmt.high, site=path)
    self._tap(path, out)
    return out

  def _tap(self, path: str, value) -> None:
    taps = self.taps
    if taps and (taps is True or path in taps):
      self.emit(path, value, "stack")

  def site(
    self,
    name: str,
    x,
    align: str | None = None,
    unit: bool = False,
    whole: int | None = None,
  ):
    """Rounds, shifts and saturates x into the plan's format of this site.

    The equation is in docs/numerics.md, 2 ("site").

    Args:
      name: last part of the site's path.
      x: Fx of int32[T, ..., n], with or without a pending matrix scale.
      align: used by `calibrate` only.
      unit: used by `calibrate` only.
      whole: used by `calibrate` only.

    Returns:
      Fx in the site's format, same shape.

    Raises:
      PlanError: x is no fixed-point value, or the plan lacks the site.
      FormatError: one multiply-shift cannot reach the format.
      TransformError: called inside a raw JAX transform.
    """
    del align, unit, whole
    path = self.path(name)
    self.guard(path)
    fmt = self.plan.format(path)
    if not isinstance(x, Fx):
      self._plain(path, x)
    return self._sited(path, self._requant(path, x, fmt), fmt)

  # --- one value and many

  def sum(self, x) -> Fx:
    """Sum over features at one aggregator neuron: [T, ..., 1]."""
    path = self._here()
    x = self._plain(path, x)
    n = x.shape[-1]
    return self._value(path, self.alu.sum(x.q), x.frac, x.low * n, x.high * n)

  def broadcast(self, x, width: int) -> Fx:
    """One value to `width` neurons: [T, ..., 1] -> [T, ..., width]."""
    x = self._plain(self._here(), x)
    q = self.alu.broadcast(x.q, width=width)
    return dataclasses.replace(x, q=q)
