"""The fixed-point interpreter: every op as machine instructions with formats.

`alu` says what the instructions do, `store` how a parameter becomes integers;
so one class serves `fixed`, `fake_quant`, `record` and
`chip.engines.interpreted`.
"""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.errors import FormatError, PlanError
from jaxnmc.kernels.ternary import MAX_TWO_PLANES
from jaxnmc.numerics.fx import Fx
from jaxnmc.ops.carry import as_carry, carry_formats
from jaxnmc.ops.elementwise import Elementwise, product_range
from jaxnmc.ops.float_only import FloatOnly
from jaxnmc.ops.memory import READ, check_tokens, memory_width, reads
from jaxnmc.ops.norms import Norms
from jaxnmc.ops.windows import (
  Windows,
  by_age,
  check_past,
  delayed,
  stacked,
  widest,
)


class Quantized(Elementwise, Norms, FloatOnly):
  """Fixed-point meaning of every op; arguments as for `FixedPoint`.

  Values are `Fx` of int32[T, ..., n]: time first, features last.

  Raises (every op):
    PlanError: an operand is no fixed-point value or quantised parameter, or
      the plan does not know the site.
    FormatError: an operand carries a pending matrix scale, or the result could
      leave 32 bits.
  """

  # --- parameters

  def embed(self, name: str, table, ids) -> Fx:
    """Rows of an integer table for ids int32[T, ...]; host work, a site."""
    path = self.path(name)
    fmt = self.plan.format(path)
    table = self.store.table(path, table, fmt)
    q = self.alu.gather_rows(table.q, ids)
    return self._sited(path, q, fmt)

  def const(self, name, param, transform: str | None = None, unit=False) -> Fx:
    """A parameter as a fixed-point constant, of its own shape."""
    path = self.path(name)
    fmt = self.plan.format(path)
    value = self.store.const(path, param, fmt, transform)
    q = self.alu.param(value.q)
    return Fx(q, frac=value.frac, low=value.low, high=value.high)

  def index(self, x: Fx, i: int) -> Fx:
    """Row `i` of axis 0 of a constant."""
    return dataclasses.replace(x, q=x.q[i])

  # --- synapses

  def linear(self, name: str, weight, x) -> Fx:
    """Ternary product; the matrix scale stays pending until the next site."""
    return self.linear_split(name, weight, x, 1)[0]

  def linear_split(self, name: str, weight, x, parts: int) -> tuple[Fx, ...]:
    """One stored matrix whose rows feed `parts` different ports.

    Args:
      name: name of the matrix.
      weight: matrix [out, in], for which the store has a `QMatrix`.
      x: a site of [T, ..., in], codes within +-32639.
      parts: number of ports; divides out.

    Returns:
      `parts` values of [T, ..., out / parts], scale pending (docs/numerics.md,
      4).

    Raises:
      FormatError: x is no site, has more than two 8-bit digits, or a row's
        sum could leave 32 bits.
      PlanError: x and the matrix have different widths, or it is no QMatrix.
      TransformError: called inside a raw JAX transform.
    """
    path = self.path(name)
    x = self._message(path, x)
    matrix = self.store.matrix(path, weight)
    sums, high = self._sums(path, x, matrix, x.frac, parts)
    scale = {"mult": matrix.mult, "exp": matrix.exp}
    make = lambda q: self._value(path, q, x.frac, -high, high, **scale)
    return tuple(make(q) for q in sums)

  def dense(
    self, name: str, weight, x, bias=None, tied: str | None = None
  ) -> Fx:
    """Product with a matrix of 8-bit codes, plus a bias: the site `name`.

    Args:
      name: name of the resulting site.
      weight: matrix [out, in], for which the store has a `QDense`.
      x: a site of [T, ..., in], codes within +-32639.
      bias: a constant [out], or None.
      tied: full path of the site whose table the matrix is, or None.

    Returns:
      [T, ..., out] (docs/numerics.md, 4.1).

    Raises:
      FormatError: x is no site, has more than two 8-bit digits, or a row's
        sum with its bias could leave 32 bits.
      PlanError: x, matrix and bias have different widths, the matrix is no
        `QDense`, or a tied table has more bits than a synapse.
      TransformError: called inside a raw JAX transform.
    """
    path = self.path(name)
    x = self._message(path, x)
    if tied is None:
      key = path + ".weight"
      matrix = self.store.dense(key, weight, self.plan.format(key))
    else:
      matrix = self.store.tied(path, weight, self.plan.format(tied), tied)
    frac = x.frac + matrix.frac
    (q,), high = self._sums(path, x, matrix, frac, 1)
    if bias is not None:
      add, reach = self._bias(path, bias, matrix.shape[0], frac)
      high += reach
      self._fits(f"{self._rows(path, x, matrix)} with its bias", frac, high)
      q = self.alu.add(q, add)
    fmt = self.plan.format(path)
    sums = Fx(q, frac=frac, low=-high, high=high)
    return self._sited(path, self._requant(path, sums, fmt), fmt)

  def _message(self, path: str, x) -> Fx:
    """Refuses what cannot be the input of a product."""
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
    return x

  def _rows(self, path: str, x: Fx, matrix) -> str:
    """A product, for messages."""
    return f"{path} ({x.label}, rows of L1 norm {matrix.l1})"

  def _sums(self, path: str, x: Fx, matrix, frac: int, parts: int):
    """The sums of a product in `parts` blocks, and their bound."""
    if x.shape[-1] != matrix.shape[1]:
      raise PlanError(
        f"{path}: a matrix {list(matrix.shape)} cannot take an input of"
        f" {x.shape[-1]} features"
      )
    high = x.bound * matrix.l1
    self._fits(self._rows(path, x, matrix), frac, high)
    return self._across(path, x, matrix, parts), high

  def _across(self, path: str, x: Fx, matrix, parts: int) -> tuple:
    """Sums int32[T, ..., out / parts] of a matrix; how x travels there."""
    del path
    return self.alu.dense(x.q, matrix, bound=x.bound, parts=parts)

  def matmul(self, a, b) -> Fx:
    """Product of two activations over their last two axes."""
    label = self._pair(a, "@", b)
    high = a.bound * b.bound * a.shape[-1]
    self._fits(label, a.frac + b.frac, high)
    q = self.alu.matmul(a.q, b.q)
    return self._value(label, q, a.frac + b.frac, -high, high)

  def outer(self, a, b) -> Fx:
    """Outer product of features: [..., n], [..., m] -> [..., n, m]."""
    label = self._pair(a, "x", b)
    low, high = product_range(a, b)
    q = self.alu.outer(a.q, b.q)
    return self._value(label, q, a.frac + b.frac, low, high)

  def memory(
    self,
    name: str,
    state,
    q,
    k,
    v,
    heads: int,
    size: int,
    windows: Windows | None = None,
    mask=None,
  ):
    """Attention without softmax over a memory of sums, exact.

    Args:
      name: of the memory, a site of whole numbers.
      state: Fx of int32[..., heads d d] of an earlier call, or None for zeros;
        with windows {"sums": the same, "past": the last k and v}.
      q: Fx of int32[T, ..., heads d] without fraction bits, at most 1.
      k: the same.
      v: the same.
      heads: number of heads.
      size: the most tokens there can be.
      windows: as in `Reference.memory`.
      mask: as there.

    Returns:
      (y, the next state): |y| <= size d, no fraction bits.

    Raises:
      FormatError: an operand is no spike, or the plan's format of the memory
        does not hold `size`.
      PlanError: the state is of another model, batch or plan.
      TokenError: as in `Reference.memory`.
    """
    path = self.path(name)
    check_tokens(path, q.shape[0], size, mask)
    q, k, v, fmt = self._memory_of(path, q, k, v, size)
    shape = (*q.shape[1:-1], memory_width(q.shape[-1], heads))
    empty = Fx(jnp.zeros(shape, q.q.dtype), frac=0, low=0, high=0)
    like = Fx(empty.q, frac=0, low=fmt.low, high=fmt.high, site=path)
    reach = size * q.shape[-1] // heads
    if windows is not None:
      return self._in_windows(
        path, state, (q, k, v), like, heads, windows, mask, reach
      )
    before = as_carry(path, empty if state is None else state, like)
    y, after = self.alu.recall(q.q, k.q, v.q, before.q, heads=heads)
    state = dataclasses.replace(before, q=after)
    self._tap(path, state)
    if self.taps and self.taps is not True and path + READ in self.taps:
      # Heads d times as much as y, so only for who asks for it by name.
      sent = reads(q.q, k.q, v.q, before.q, heads)
      self._tap(path + READ, dataclasses.replace(state, q=sent))
    return self._value(path, y, 0, -reach, reach), state

  def _in_windows(
    self, path, state, qkv, like: Fx, heads, windows, mask, reach: int
  ):
    """As `memory`, with windows."""
    q, k, v = qkv
    width = widest(windows)
    sums, past = dataclasses.replace(like, low=0, high=0), None
    if state is not None:
      check_past(path, state, width, q.shape[1:])
      codes = lambda ages, like: stacked(
        [as_carry(path, x, like).q for x in ages]
      )
      likes = (dataclasses.replace(x, q=x.q[0]) for x in (k, v))
      sums, past = state["sums"], tuple(map(codes, state["past"], likes))
    before = as_carry(path, sums, like)
    y, after, past = self.alu.recall_windows(
      *(q.q, k.q, v.q, before.q, past),
      heads=heads,
      windows=windows,
      mask=mask,
    )
    after = dataclasses.replace(before, q=after)
    self._tap(path, after)
    ages = [
      [
        Fx(age, frac=0, low=x.low, high=x.high, site=site)
        for age, site in zip(by_age(spikes), delayed(path, name, x.site, width))
      ]
      for name, spikes, x in zip("kv", past, (k, v))
    ]
    y = self._value(path, y, 0, -reach, reach)
    return y, {"sums": after, "past": ages}

  def literal(self, values: tuple[int, ...], like) -> Fx:
    """Whole numbers as a value, one for each feature."""
    self._plain(self._here(), like)
    q = self.alu.param(np.asarray(values, np.int32))
    return Fx(q, frac=0, low=min(values), high=max(values))

  def _memory_of(self, path: str, q, k, v, size: int) -> tuple:
    """q, k, v and the format of a memory, refused where they do not do."""
    self.guard(path)
    q, k, v = (self._spike(path, x) for x in (q, k, v))
    fmt = self.plan.format(path)
    if fmt.frac != 0 or fmt.high < size:
      raise FormatError(
        f"{path}: {size} tokens may fill the memory to {size}; the plan's"
        f" format is {fmt}, up to {fmt.high * 2.0**-fmt.frac:g}; whole numbers"
        " of this size are needed (calibrate the model again)"
      )
    return q, k, v, fmt

  def _spike(self, path: str, x) -> Fx:
    """Refuses what is no whole number of magnitude at most 1."""
    x = self._plain(path, x)
    if x.frac != 0 or x.bound > 1:
      raise FormatError(
        f"{path}: a memory takes spikes, whole numbers of magnitude at most 1;"
        f" {x.label} may reach {x.bound * 2.0**-x.frac:g}"
      )
    return x

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
