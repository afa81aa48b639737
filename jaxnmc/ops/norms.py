"""RMSNorm in integers: sum of squares, inverse root, one multiply.

The square of a value travels as two payloads to two accumulators of one
aggregator neuron, which takes the mean, adds eps, computes the inverse root
and sends it to every neuron (see `docs/numerics.md`).  LayerNorm is the same
behind one more aggregator, whose sum every neuron takes off its value.
"""

import dataclasses
import math

from jax import numpy as jnp

from jaxnmc.errors import FormatError, PlanError
from jaxnmc.numerics import rsqrt
from jaxnmc.numerics.formats import mantissa, symmetric_limit
from jaxnmc.numerics.fx import Fx
from jaxnmc.numerics.wide import MAX_SHIFT
from jaxnmc.ops.fixed_point import FixedPoint

# A square of a 16-bit value travels as two payloads of this many bits.
SQUARE_BITS = 15
# A 16-bit value times an 8-bit gain: what the short multiply of a norm takes.
MAX_GAINED = symmetric_limit(16) * symmetric_limit(8)


class Norms(FixedPoint):
  """Norms with vector gains (docs/numerics.md, 6).

  x is an `Fx` of int32[T, ..., n] that is a site; gains have n entries;
  results are sites of the shape of x, in the plan's formats.

  Raises (every norm):
    PlanError: the plan lacks the norm or a site, or a gain or bias has another
      width.
    FormatError: x is no site of at most 16 bits, eps rounds to zero, a format
      cannot be reached in one multiply-shift, or a value could leave 32 bits.
    TransformError: called inside a raw JAX transform.
  """

  def norm(self, name: str, x, gain, eps: float) -> Fx:
    """RMSNorm with vector gain, by sum of squares and inverse root."""
    path = self.path(name)
    x, root = self._normalizer(path, x, eps)
    return self._scale(path, x, gain, root)

  def norms(self, name: str, x, gains, eps: float) -> dict[str, Fx]:
    """RMSNorms of one value, one root: site name -> result, as in gains."""
    path = self.path(name)
    x, root = self._normalizer(path, x, eps)
    return {
      key: self._scale(f"{path}.{key}", x, gain, root)
      for key, gain in gains.items()
    }

  def layer_norm(self, name: str, x, gain, bias, eps: float) -> Fx:
    """LayerNorm: centred, normalised, plus a bias (docs/numerics.md, 6.3).

    The sites `name`.centred and `name`.scaled lie on the way.
    """
    path = self.path(name)
    centred, root = self._normalizer(path, self._centred(path, x), eps)
    scaled = self._scale(path, centred, gain, root, ".scaled")
    add, reach = self._bias(path, bias, scaled.shape[-1], scaled.frac)
    high = scaled.bound + reach
    q = self.alu.add(scaled.q, add)
    total = self._value(f"{path} with its bias", q, scaled.frac, -high, high)
    fmt = self.plan.format(path)
    return self._sited(path, self._requant(path, total, fmt), fmt)

  def _centred(self, path: str, x) -> Fx:
    """x less its mean, (n x - sum x) / n, as the site `path`.centred.

    The mean itself is never rounded: its n-fold is what travels.
    """
    self.guard(path)
    x = self._norm_input(path, self._plain(path, x))
    n, inner = x.shape[-1], path + ".centred"
    reach = n * (x.high - x.low)
    self._fits(f"{path} ({n} times {x.label})", x.frac, reach)
    total = self.sum(x)
    # An accumulator does not send: the aggregator's neuron passes it on.
    q = self.alu.add_const(total.q, value=0)
    q = self.alu.mark(q, path + ".sum", True)
    total = dataclasses.replace(total, q=q, site=path + ".sum")
    self._tap(path + ".sum", total)
    whole = self.broadcast(total, n)
    gap = self.alu.sub(self.alu.mul(x.q, self.alu.param(n)), whole.q)
    mult, exp = mantissa(1 / n)
    scale = {"mult": self.alu.param(mult), "exp": exp}
    pending = self._value(path, gap, x.frac, -reach, reach, **scale)
    fmt = self.plan.format(inner)
    return self._sited(inner, self._requant(inner, pending, fmt), fmt)

  def _normalizer(self, path: str, x, eps: float) -> tuple[Fx, Fx]:
    self.guard(path)
    x = self._plain(path, x)
    fmt = self.plan.norm(path)
    mean = self._mean_square(path, x, fmt.frac, fmt.bits)
    code = fmt.eps_code(self.plan.eps or eps, path)
    return x, self._root(path, [mean], code, fmt, x.shape[-1])

  def double_norm(
    self, name: str, x, gain, gains, eps1: float, eps2: float
  ) -> dict[str, Fx]:
    """Two norms with one root: v = g x, r from both mean squares, v g_k r.

    Site name -> result, as in gains (docs/numerics.md, 6.2).
    """
    path = self.path(name)
    self.guard(path)
    x = self._plain(path, x)
    eps1, eps2 = self.plan.eps or eps1, self.plan.eps or eps2
    fmt = self.plan.norm(path)
    inner = self.plan.format(path + ".v")
    v = self._times_gain(
      path, x, self.store.gain(path + ".gain", gain, self.plan)
    )
    v = self._sited(path + ".v", self._requant(path + ".v", v, inner), inner)
    mean_v = self._mean_square(path + ".v", v, fmt.frac, fmt.bits)
    mean_x = self._mean_square(path, x, fmt.frac, fmt.bits, eps2)
    # The constant term eps1 eps2 rounds up: the argument stays positive.
    code = max(1, math.floor(eps1 * eps2 * 2.0**fmt.frac + 0.5))
    root = self._root(path, [mean_v, mean_x], code, fmt, x.shape[-1])
    return {k: self._scale(f"{path}.{k}", v, g, root) for k, g in gains.items()}

  def _norm_input(self, path: str, x: Fx) -> Fx:
    """Refuses what no norm takes."""
    if x.site is None or x.bound > 1 << SQUARE_BITS:
      raise FormatError(
        f"{path}: a norm takes a site of at most 16 bits; found"
        f" {x.site or 'a value between sites'} with bound {x.bound}"
      )
    return x

  def _mean_square(self, path, x: Fx, frac: int, bits: int, factor=1.0):
    """mean(x^2) * factor with `frac` fraction bits, at one neuron."""
    x = self._norm_input(path, x)
    n = x.shape[-1]
    mult, exp = mantissa(factor / n)
    shift = exp + 2 * x.frac - frac
    # A coarse value (8 bits, say) is lifted first, exactly: more fraction bits
    # of the same number give the mean a shift to spend.
    lift = max(0, (SQUARE_BITS + 2 - shift) // 2)
    if lift and x.bound << lift <= 1 << SQUARE_BITS:
      x, shift = self._to_frac(path, x, x.frac + lift), shift + 2 * lift
    square = self.alu.mul(x.q, x.q)
    top = (x.bound * x.bound) >> SQUARE_BITS
    part = lambda q, tag, high: self._sited_as(path + tag, q, high)
    low = self.alu.low_bits(square, bits=SQUARE_BITS)
    low = part(low, ".square_low", (1 << SQUARE_BITS) - 1)
    high = part(self.alu.shr(square, bits=SQUARE_BITS), ".square_high", top)
    for value in (low, high):
      self._fits(path, 0, value.high * n)
    sum_low = self.alu.sum(low.q)
    sum_high = self.alu.sum(high.q)
    if not SQUARE_BITS < shift <= MAX_SHIFT:
      raise FormatError(
        f"{path}: a mean square of inputs with {x.frac} fraction bits cannot"
        f" be brought to {frac} fraction bits (shift {shift}, allowed"
        f" {SQUARE_BITS + 1} to {MAX_SHIFT}); give the site {x.site}"
        f" {'fewer' if shift > MAX_SHIFT else 'more'} fraction bits"
      )
    limit = (1 << bits) - 1
    return self.alu.mean_square(
      sum_high, sum_low, mult=mult, shift=shift, limit=limit
    )

  def _sited_as(self, path: str, q, high: int) -> Fx:
    """A message that is an integer field, not a rounded value."""
    q = self.alu.mark(q, path, True)
    out = Fx(q, frac=0, low=0, high=high, site=path)
    self._tap(path, out)
    return out

  def _root(self, path, means, eps: int, fmt, width: int) -> Fx:
    """1 / sqrt(sum of means + eps), sent to `width` neurons."""
    total = means[0]
    for mean in means[1:]:
      total = self.alu.add(total, mean)
    total = self.alu.add_const(total, value=eps)
    limit = (1 << fmt.bits) - 1
    if self.saturation:
      count = jnp.sum((total > limit).astype(jnp.int32), dtype=jnp.int32)
      self.emit(path + ".mean_square.saturated", count, "sum")
    total = self.alu.clip(total, low=1, high=limit)
    self._tap(path + ".mean_square", total)
    root = self.alu.mark(self.alu.inv_sqrt(total), path + ".root", True)
    out = Fx(
      root,
      frac=rsqrt.result_frac(fmt.frac),
      low=rsqrt.MIN_ROOT,
      high=rsqrt.MAX_ROOT,
      site=path + ".root",
    )
    self._tap(path + ".root", out)
    q = self.alu.broadcast(out.q, width=width)
    return dataclasses.replace(out, q=q)

  def _times_gain(self, path: str, x: Fx, gain) -> Fx:
    if x.shape[-1] != gain.shape[-1]:
      raise PlanError(
        f"{path}: a gain of {gain.shape[-1]} entries cannot scale"
        f" {x.shape[-1]} features"
      )
    high = x.bound * gain.bound
    q = self.alu.mul(x.q, self.alu.param(gain.q))
    return self._value(path, q, x.frac + gain.frac, -high, high)

  def _scale(self, path: str, x: Fx, gain, root: Fx, part: str = "") -> Fx:
    """x * gain * root as the site `path`, or a `part` of what has that name."""
    gain = self.store.gain(path + ".gain", gain, self.plan)
    path = path + part
    pending = self._times_gain(path, x, gain)
    pending = dataclasses.replace(pending, mult=root.q, exp=root.frac)
    fmt = self.plan.format(path)
    form = "root" if pending.bound <= MAX_GAINED else "any"
    return self._sited(path, self._requant(path, pending, fmt, form), fmt)

  def act_quant(self, name: str, x) -> Fx:
    """x: the static site in front does this (docs/numerics.md, 10)."""
    del name
    return x
