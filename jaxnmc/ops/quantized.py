"""The fixed-point interpreter: every op as machine instructions with formats.

Between sites arithmetic is exact: fraction bits and bounds are worked out
while the function is traced, and a value that could leave 32 bits is an error
that names the site.  A site rounds, shifts and saturates into the format the
plan gives it.  `alu` says what the instructions do, `store` how a parameter
becomes integers; so one class serves `fixed`, `fake_quant` and `record`.
"""

import math
from collections.abc import Callable

import jax
from jax import numpy as jnp

from jaxnmc.errors import FormatError, PlanError
from jaxnmc.kernels.ternary import MAX_TWO_PLANES
from jaxnmc.numerics import rsqrt
from jaxnmc.numerics.formats import (
  ACCUMULATOR_BITS,
  Format,
  mantissa,
  symmetric_limit,
)
from jaxnmc.numerics.fx import Fx
from jaxnmc.numerics.wide import MAX_SHIFT
from jaxnmc.ops.base import Ops
from jaxnmc.ops.carry import carry_formats

# A square of a 16-bit value travels as two payloads of this many bits.
SQUARE_BITS = 15
# A 16-bit value times an 8-bit gain: what the short multiply of a norm takes.
MAX_GAINED = symmetric_limit(16) * symmetric_limit(8)


class Quantized(Ops):
  """Fixed-point meaning of every op.

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

  def _value(self, path: str, q, frac: int, low: int, high: int, **kw) -> Fx:
    """An Fx whose bound has been checked against the accumulator."""
    if max(-low, high) >= 1 << (ACCUMULATOR_BITS - 1):
      raise FormatError(
        f"{path}: a value of {frac} fraction bits may reach"
        f" {max(-low, high)}, but {ACCUMULATOR_BITS} bits hold"
        f" {(1 << (ACCUMULATOR_BITS - 1)) - 1}; put a site with fewer bits or"
        " fewer fraction bits in front of it"
      )
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
    if bits == 0 or x.low == 0 == x.high:
      return x.replace(frac=frac)
    # Refuse before building a shift that no machine has.
    scale = 1 << min(bits, 64)
    label = f"{path} (aligning {x.label} to {frac} fraction bits)"
    q = None if bits > 31 else self.alu.shl(x.q, bits=bits)
    return self._value(label, q, frac, x.low * scale, x.high * scale)

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
      wide = self.alu.mul_shr(
        x.q, x.mult, shift=shift, form=form, **limits
      )
    else:
      wide = self.alu.round_shift(x.q, shift=shift, **limits)
    if not self.saturation:
      return wide
    q = self.alu.clip(wide, low=fmt.low, high=fmt.high)
    count = jnp.sum((wide != q).astype(jnp.int32), dtype=jnp.int32)
    self.emit(path + ".saturated", count, "sum")
    return q

  def _sited(self, path: str, q, fmt: Format, cast: bool = True) -> Fx:
    q = self.alu.mark(q, path, cast)
    out = Fx(q, frac=fmt.frac, low=fmt.low, high=fmt.high, site=path)
    self._tap(path, out)
    return out

  def _tap(self, path: str, value) -> None:
    taps = self.taps
    if taps and (taps is True or path in taps):
      self.emit(path, value, "stack")

  def site(self, name: str, x, align: str | None = None, unit: bool = False):
    """Rounds, shifts and saturates x into the plan's format of this site.

    Args:
      name: last part of the site's path.
      x: fixed-point value, with or without a pending matrix scale.
      align: used by `calibrate` only.
      unit: used by `calibrate` only.

    Returns:
      Fx in the site's format.
    """
    del align, unit
    path = self.path(name)
    self.guard(path)
    fmt = self.plan.format(path)
    if not isinstance(x, Fx):
      self._plain(path, x)
    return self._sited(path, self._requant(path, x, fmt), fmt)

  # --- parameters

  def embed(self, name: str, table, ids) -> Fx:
    """Rows of an integer table; computed on the host."""
    path = self.path(name)
    fmt = self.plan.format(path)
    table = self.store.table(path, table, fmt)
    q = self.alu.gather_rows(table.q, ids)
    return self._sited(path, q, fmt)

  def const(self, name, param, transform: str | None = None, unit=False) -> Fx:
    """A parameter as a fixed-point constant."""
    path = self.path(name)
    fmt = self.plan.format(path)
    value = self.store.const(path, param, fmt, transform)
    q = self.alu.param(value.q)
    return Fx(q, frac=value.frac, low=value.low, high=value.high)

  def index(self, x: Fx, i: int) -> Fx:
    """Row `i` of axis 0 of a constant."""
    return x.replace(q=x.q[i])

  # --- synapses

  def linear(self, name: str, weight, x) -> Fx:
    """Ternary product; the matrix scale stays pending until the next site."""
    return self.linear_split(name, weight, x, 1)[0]

  def linear_split(self, name: str, weight, x, parts: int) -> tuple[Fx, ...]:
    """One stored matrix whose rows feed `parts` different ports."""
    path = self.path(name)
    self.guard(path)
    x = self._plain(path, x)
    if x.site is None:
      raise FormatError(
        f"{path}: only named sites cross a synapse; put ops.site(...) around"
        " the input of this product"
      )
    if x.bound > MAX_TWO_PLANES:
      raise FormatError(
        f"{path}: a product takes inputs of two 8-bit digits, at most"
        f" {MAX_TWO_PLANES}; {x.site} may reach {x.bound}; give it 16 bits"
      )
    matrix = self.store.matrix(path, weight)
    if x.shape[-1] != matrix.shape[1]:
      raise PlanError(
        f"{path}: a matrix {list(matrix.shape)} cannot take an input of"
        f" {x.shape[-1]} features"
      )
    high = x.bound * matrix.l1
    label = f"{path} ({x.label}, rows of L1 norm {matrix.l1})"
    self._value(label, None, x.frac, -high, high)
    sums = self._dense(path, x, matrix, parts)
    scale = {"mult": matrix.mult, "exp": matrix.exp}
    make = lambda q: self._value(path, q, x.frac, -high, high, **scale)
    return tuple(make(q) for q in sums)

  def _dense(self, path: str, x: Fx, matrix, parts: int):
    return self.alu.dense(x.q, matrix, bound=x.bound, parts=parts)

  def sum(self, x) -> Fx:
    """Sum over features at one aggregator neuron."""
    path = self._here()
    x = self._plain(path, x)
    n = x.shape[-1]
    return self._value(
      path, self._reduce(path, x), x.frac, x.low * n, x.high * n
    )

  def _reduce(self, path: str, x: Fx):
    del path
    return self.alu.sum(x.q)

  def broadcast(self, x, width: int) -> Fx:
    """One value to `width` neurons."""
    x = self._plain(self._here(), x)
    return x.replace(q=self._spread(self._here(), x, width))

  def _spread(self, path: str, x: Fx, width: int):
    del path
    return self.alu.broadcast(x.q, width=width)

  def matmul(self, a, b) -> Fx:
    """Product of two activations over their last two axes."""
    label = self._pair(a, "@", b)
    high = a.bound * b.bound * a.shape[-1]
    self._value(label, None, a.frac + b.frac, -high, high)
    q = self.alu.matmul(a.q, b.q)
    return self._value(label, q, a.frac + b.frac, -high, high)

  def outer(self, a, b) -> Fx:
    """Outer product of features."""
    label = self._pair(a, "x", b)
    low, high = _product_range(a, b)
    q = self.alu.outer(a.q, b.q)
    return self._value(label, q, a.frac + b.frac, low, high)

  # --- norms

  def norm(self, name: str, x, gain, eps: float) -> Fx:
    """RMSNorm with vector gain, by sum of squares and inverse root."""
    path = self.path(name)
    x, root = self._normalizer(path, x, eps)
    return self._scale(path, x, gain, root)

  def norms(self, name: str, x, gains, eps: float) -> dict[str, Fx]:
    """RMSNorms of one value with several gains and one root."""
    path = self.path(name)
    x, root = self._normalizer(path, x, eps)
    return {
      key: self._scale(f"{path}.{key}", x, gain, root)
      for key, gain in gains.items()
    }

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
    """Two norms with one root: v = g x, r from both mean squares, v g_k r."""
    path = self.path(name)
    self.guard(path)
    x = self._plain(path, x)
    eps1, eps2 = self.plan.eps or eps1, self.plan.eps or eps2
    fmt = self.plan.norm(path)
    inner = self.plan.format(path + ".v")
    v = self._times_gain(path, x, self.store.gain(path + ".gain", gain, self.plan))
    v = self._sited(path + ".v", self._requant(path + ".v", v, inner), inner)
    mean_v = self._mean_square(path + ".v", v, fmt.frac, fmt.bits)
    mean_x = self._mean_square(path, x, fmt.frac, fmt.bits, eps2)
    # The constant term eps1 eps2 rounds up: the argument stays positive.
    code = max(1, math.floor(eps1 * eps2 * 2.0**fmt.frac + 0.5))
    root = self._root(path, [mean_v, mean_x], code, fmt, x.shape[-1])
    return {k: self._scale(f"{path}.{k}", v, g, root) for k, g in gains.items()}

  def _mean_square(self, path, x: Fx, frac: int, bits: int, factor=1.0):
    """mean(x^2) * factor with `frac` fraction bits, at one neuron."""
    if x.site is None or x.bound > 1 << SQUARE_BITS:
      raise FormatError(
        f"{path}: a norm takes a site of at most 16 bits; found"
        f" {x.site or 'a value between sites'} with bound {x.bound}"
      )
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
      self._value(path, None, 0, 0, value.high * n)
    sum_low = self._reduce(path + ".square_low", low)
    sum_high = self._reduce(path + ".square_high", high)
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
    return out.replace(q=self._spread(path + ".root", out, width))

  def _times_gain(self, path: str, x: Fx, gain) -> Fx:
    if x.shape[-1] != gain.shape[-1]:
      raise PlanError(
        f"{path}: a gain of {gain.shape[-1]} entries cannot scale"
        f" {x.shape[-1]} features"
      )
    high = x.bound * gain.bound
    q = self.alu.mul(x.q, self.alu.param(gain.q))
    return self._value(path, q, x.frac + gain.frac, -high, high)

  def _scale(self, path: str, x: Fx, gain, root: Fx) -> Fx:
    """x * gain * root as the site `path`."""
    gain = self.store.gain(path + ".gain", gain, self.plan)
    pending = self._times_gain(path, x, gain)
    pending = pending.replace(mult=root.q, exp=root.frac)
    fmt = self.plan.format(path)
    form = "root" if pending.bound <= MAX_GAINED else "any"
    return self._sited(path, self._requant(path, pending, fmt, form), fmt)

  def act_quant(self, name: str, x) -> Fx:
    """Integer plans: the static site in front of the product does this."""
    del name
    return x

  # --- element-wise

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
    low, high = _product_range(a, b)
    q = self.alu.mul(a.q, b.q)
    return self._value(label, q, a.frac + b.frac, low, high)

  def one_minus(self, x) -> Fx:
    """1 - x, exact; x needs 0 to 30 fraction bits."""
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
    return x.replace(frac=x.frac + bits, site=None)

  def min(self, a, b) -> Fx:
    """Element-wise minimum."""
    a, b = self._aligned(a, b)
    low, high = min(a.low, b.low), min(a.high, b.high)
    return self._value(
      self._here(), self.alu.min(a.q, b.q), a.frac, low, high
    )

  def max(self, a, b) -> Fx:
    """Element-wise maximum."""
    a, b = self._aligned(a, b)
    low, high = max(a.low, b.low), max(a.high, b.high)
    return self._value(
      self._here(), self.alu.max(a.q, b.q), a.frac, low, high
    )

  def compare(self, a, b) -> Fx:
    """1 where a >= b, else 0."""
    a, b = self._aligned(a, b)
    return Fx(self.alu.ge(a.q, b.q), frac=0, low=0, high=1)

  def select(self, cond, a, b) -> Fx:
    """`a` where cond is not zero, else `b`."""
    cond = self._plain(self._here(), cond)
    a, b = self._aligned(a, b)
    low, high = min(a.low, b.low), max(a.high, b.high)
    q = self.alu.select(cond.q, a.q, b.q)
    return self._value(self._here(), q, a.frac, low, high)

  def keep(self, mask, x) -> Fx:
    """x where mask is 1 (or None), zero where it is 0."""
    if mask is None:
      return x
    x = self._plain(self._here(), x)
    cond = self.alu.param(mask[..., None])
    q = self.alu.select(cond, x.q, jnp.zeros_like(x.q))
    return x.replace(q=q, low=min(x.low, 0), high=max(x.high, 0))

  def sigmoid(self, x) -> Fx:
    """Table sigmoid; values 0 to 2^out_frac."""
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

  # --- state

  def zeros(self, like: Fx) -> Fx:
    """The zero state for values shaped as one step of `like`."""
    return Fx(self.alu.zeros_like(like.q), frac=like.frac, low=0, high=0)

  def scan(self, name: str, body: Callable, init, xs):
    """Scans over time; a zero state takes the format the body returns.

    Raises:
      PlanError: the state handed in has another format than the plan's.
      FormatError: the carry is no site and would grow.
    """

    def once(carry, x):
      child = self.fresh()
      with child.at(name):
        return body(child, carry, x)[0]

    first = jax.tree.map(lambda x: x[0], xs)
    init = carry_formats(self.path(name), once, init, first)
    return super().scan(name, body, init, xs)


def _product_range(a: Fx, b: Fx) -> tuple[int, int]:
  corners = [x * y for x in (a.low, a.high) for y in (b.low, b.high)]
  return min(corners), max(corners)
