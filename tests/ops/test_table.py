"""Every op of docs/ops.md: its float meaning and its integers.

The oracles are Python integers (object arrays) and float64, written from the
table in the documentation, not from the code.
"""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import chex
import jax
import numpy as np
from absl.testing import parameterized

from jaxnmc.numerics.formats import Format, NormFormat
from jaxnmc.numerics.fx import Fx
from jaxnmc.numerics.sigmoid import SigmoidTable
from jaxnmc.numerics.ternary import Ternary
from jaxnmc.numerics.weights import QMatrix, QVector
from jaxnmc.ops.alu import IntAlu
from jaxnmc.ops.alu_float import FloatAlu
from jaxnmc.ops.quantized import Quantized
from jaxnmc.ops.reference import Reference
from jaxnmc.ops.stores import FloatStore, IntStore
from jaxnmc.quantize import Plan

T, N = 3, 4
EPS = 1e-3
TABLE = SigmoidTable()
RNG = np.random.default_rng(0)

# --- parameters: integers, and the floats that they stand for

CODES = RNG.integers(-1, 2, (6, N)).astype(np.int8)
MULT, EXP = 40000, 18
MATRIX = QMatrix(
  CODES, np.int32(MULT), exp=EXP, l1=int(abs(CODES).sum(1).max())
)
TERNARY = Ternary(CODES, np.float64(MULT * 2.0**-EXP))
WEIGHTS = CODES * TERNARY.scale


def vector(q, frac, dtype=np.int8, low=None, high=None):
  q = np.asarray(q, dtype)
  bound = int(abs(q.astype(np.int64)).max())
  low = -bound if low is None else low
  return QVector(q, frac=frac, low=low, high=bound if high is None else high)


GAIN = vector([64, -100, 37, 127], 6, low=-127, high=127)
WIDE_GAIN = vector(
  [4096, -20000, 32639, 1], 12, np.int16, low=-32639, high=32639
)
GAIN2 = vector([-3, 90, 127, 64], 5, low=-127, high=127)
EMBED = vector(RNG.integers(-32639, 32640, (5, N)), 11, np.int16)
BOUNDS = vector([[0] * N, [5, 20000, 32768, 9]], 15, np.int32, 0, 1 << 15)


def real(p):
  """The float parameter behind an integer one."""
  if isinstance(p, QMatrix):
    return TERNARY
  return p.q.astype(np.float64) * 2.0**-p.frac


PLAN = Plan(
  "table",
  {
    "s": Format(8, 3),
    "wide": Format(16, 9),
    "unit": Format(8, 7, unit=True),
    "n": Format(16, 11),
    "n.gain": Format(8, 6),
    "p": Format(16, 10),
    "p.gain": Format(16, 12),
    "m.a": Format(16, 11),
    "m.b": Format(12, 4),
    "m.a.gain": Format(8, 6),
    "m.b.gain": Format(8, 5),
    "d.gain": Format(8, 6),
    "d.v": Format(16, 8),
    "d.a": Format(16, 11),
    "d.a.gain": Format(8, 5),
    "e": Format(16, 11),
    "c": Format(16, 15, unit=True),
    "loop.h": Format(16, 10),
    "heads.y": Format(16, 9),
    "layers.7.y": Format(8, 2),
  },
  {k: NormFormat() for k in ("n", "p", "m", "d")},
  {},
  TABLE,
  EPS,
)

# --- integer oracles


def ints(x):
  """An object array of Python integers."""
  x = np.asarray(x)
  out = np.empty(x.shape, object)
  out.reshape(-1)[:] = [int(v) for v in x.reshape(-1)]
  return out


def div_round(x, shift):
  """floor(x / 2^shift + 1/2) of Python integers."""
  if shift <= 0:
    return x * 2**-shift
  return (x + 2 ** (shift - 1)) >> shift


def clip(x, fmt):
  return np.minimum(np.maximum(x, fmt.low), fmt.high)


def rounded(x, frac, fmt):
  return clip(div_round(x, frac - fmt.frac), fmt)


def sigmoid_codes(x, frac):
  """Table sigmoid of one Python integer with `frac` fraction bits."""
  k = int(div_round(x, frac - TABLE.in_frac))
  a, size = min(abs(k), 512), 64
  node = lambda j: math.floor(2**15 / (1 + math.exp(-j)))
  j = min(a // size, 7)
  y = node(j) + ((node(j + 1) - node(j)) * (a - j * size)) // size
  return 2**15 - y if k < 0 else y


def each(f, *arrays):
  """`f` on every element of object arrays of one shape."""
  out = np.empty(arrays[0].shape, object)
  for i in np.ndindex(out.shape):
    out[i] = f(*(a[i] for a in arrays))
  return out


def mantissa(value):
  """(m, e): value as a 16-bit integer over a power of two."""
  e = 16 - math.frexp(value)[1]
  return math.floor(value * 2.0**e + 0.5), e


def root(x):
  """The documented inverse square root of one Python integer."""
  seeds = (
    *(146, 206, 292, 412, 584, 826, 1168, 1652, 2336, 3304, 4674, 6610),
    *(9350, 13222, 18700, 26446, 37402, 52894, 74804, 105788, 149608),
    *(211578, 299218, 423158),
  )
  seed = seeds[24 - x.bit_length()]
  b, y = x, seed // 2
  for _ in range(5):
    b = (((b * seed) >> 13) * seed) >> 13
    seed = 3 * 4096 - b
    y = (y * seed) >> 13
  return y


def mean_codes(row, frac, factor=1.0):
  """Mean square of a row with 12 fraction bits, from the whole sum."""
  mult, exp = mantissa(factor / len(row))
  return min(
    div_round(sum(v * v for v in row) * mult, exp + 2 * frac - 12), 2**24 - 1
  )


def scaled(row, gain, y, frac, fmt):
  """row * gain * y, where y has 12 fraction bits."""
  shift = frac + gain.frac + 12 - fmt.frac
  return [
    int(clip(div_round(v * g * y, shift), fmt))
    for v, g in zip(row, ints(gain.q))
  ]


def by_rows(f, x):
  return ints(np.apply_along_axis(lambda r: f(list(r)), -1, x).astype(np.int64))


def norm_codes(x, frac, gain, fmt):
  def one(row):
    y = root(min(mean_codes(row, frac) + 4, 2**24 - 1))
    return scaled(row, gain, y, frac, fmt)

  return by_rows(one, x)


def double_norm_codes(x, frac):
  inner = PLAN.format("d.v")

  def one(row):
    v = [
      int(clip(div_round(a * g, frac + GAIN.frac - inner.frac), inner))
      for a, g in zip(row, ints(GAIN.q))
    ]
    mean = mean_codes(v, inner.frac) + mean_codes(row, frac, EPS)
    # eps1 eps2 = 1e-6 has no code of 12 fraction bits; it rounds up to one.
    y = root(min(mean + 1, 2**24 - 1))
    return scaled(v, GAIN2, y, inner.frac, PLAN.format("d.a"))

  return by_rows(one, x)


def product_codes(x, frac, fmt, rows=slice(None)):
  sums = np.dot(x, ints(CODES[rows]).T)
  return clip(div_round(sums * MULT, frac + EXP - fmt.frac), fmt)


def float_norm(x, gain):
  return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPS) * real(gain)


def float_double_norm(x):
  # Two norms, one after the other: the fused form is the same function.
  return float_norm(float_norm(x, GAIN), GAIN2)


def loop_body(ops, h, x):
  h = ops.site("h", ops.add(ops.shift(h, 1), x), align="s")
  return h, h


def loop(ops, x):
  return ops.scan("loop", loop_body, ops.zeros(x), x)[1]


def loop_codes(x, frac):
  fmt, h, out = PLAN.format("loop.h"), 0 * x[0], []
  for row in x:
    # h / 2 has one more fraction bit than h.
    lift = fmt.frac + 1 - frac
    h = rounded(h + row * 2**lift, fmt.frac + 1, fmt)
    out.append(h)
  return np.stack(out)


def loop_float(x):
  h, out = 0 * x[0], []
  for row in x:
    h = h / 2 + row
    out.append(h)
  return np.stack(out)


def act_float(x):
  """Dynamic 8-bit codes per row, halves away from zero, over their scale."""
  scale = 127 / abs(x).max(-1, keepdims=True)
  y = x * scale
  return np.clip(np.sign(y) * np.floor(abs(y) + 0.5), -128, 127) / scale


def in_scope(ops, scope, x):
  with scope:
    return ops.site("y", x)


# --- the table


@dataclasses.dataclass(frozen=True)
class Row:
  """One op.

  Attributes:
    call: `call(ops, values, params) -> value`.
    args: (fraction bits, low, high) of each operand; "site" names it.
    codes: integer oracle of object arrays -> object array.
    frac: fraction bits of the result.
    real: float64 oracle.
    params: integer parameters.
    bound: (low, high) the result must claim, where that is exact.
    shapes: of the operands, if not all [T, N].
  """

  call: Callable[..., Any]
  args: tuple[Any, ...]
  codes: Callable[..., Any]
  frac: int
  real: Callable[..., Any]
  params: tuple[Any, ...] = ()
  bound: tuple[int, int] | None = None
  shapes: tuple[tuple[int, ...], ...] | None = None


A = (3, -127, 127)
B = (5, -32639, 32639)
C = (9, -2000, 3000)
S = (9, -32639, 32639, "x")  # a named site of 16 bits
S8 = (2, -127, 127, "x")  # one of 8 bits
U = (15, 0, 32768)
BIT = (0, 0, 1)
SMALL = (4, -40, 50)
up = lambda x, bits: x * 2**bits

TABLE_OF_OPS = {
  "add": Row(
    lambda o, v, p: o.add(*v),
    (A, B),
    lambda a, b: up(a, 2) + b,
    5,
    lambda a, b: a + b,
    bound=(-508 - 32639, 508 + 32639),
  ),
  "add_flipped": Row(
    lambda o, v, p: o.add(*v), (B, A), lambda b, a: up(a, 2) + b, 5, np.add
  ),
  "sub": Row(
    lambda o, v, p: o.sub(*v),
    (A, C),
    lambda a, c: up(a, 6) - c,
    9,
    lambda a, c: a - c,
    bound=(-127 * 64 - 3000, 127 * 64 + 2000),
  ),
  "mul": Row(
    lambda o, v, p: o.mul(*v),
    (C, B),
    lambda a, b: a * b,
    14,
    lambda a, b: a * b,
    bound=(-3000 * 32639, 3000 * 32639),
  ),
  "mul_unsigned": Row(
    lambda o, v, p: o.mul(*v),
    (U, C),
    lambda a, b: a * b,
    24,
    np.multiply,
    bound=(-2000 * 32768, 3000 * 32768),
  ),
  "one_minus": Row(
    lambda o, v, p: o.one_minus(*v),
    (C,),
    lambda a: 512 - a,
    9,
    lambda a: 1 - a,
    bound=(512 - 3000, 512 + 2000),
  ),
  "shift": Row(
    lambda o, v, p: o.shift(*v, 4),
    (C,),
    lambda a: a,
    13,
    lambda a: a / 16,
    bound=(-2000, 3000),
  ),
  "min": Row(
    lambda o, v, p: o.min(*v),
    (A, C),
    lambda a, c: np.minimum(up(a, 6), c),
    9,
    np.minimum,
    bound=(-127 * 64, 3000),
  ),
  "max": Row(
    lambda o, v, p: o.max(*v),
    (A, C),
    lambda a, c: np.maximum(up(a, 6), c),
    9,
    np.maximum,
    bound=(-2000, 127 * 64),
  ),
  "compare": Row(
    lambda o, v, p: o.compare(*v),
    (SMALL, (4, -40, 50)),
    lambda a, b: each(lambda x, y: int(x >= y), a, b),
    0,
    lambda a, b: (a >= b).astype(float),
    bound=(0, 1),
  ),
  "select": Row(
    lambda o, v, p: o.select(*v),
    (BIT, A, C),
    lambda k, a, c: np.where(k.astype(bool), up(a, 6), c),
    9,
    lambda k, a, c: np.where(k != 0, a, c),
    bound=(-127 * 64, 127 * 64),
  ),
  "keep": Row(
    lambda o, v, p: o.keep(np.array([1, 0, 1], np.int32), *v),
    ((3, 5, 90),),
    lambda a: a * ints([1, 0, 1])[:, None],
    3,
    lambda a: a * np.array([1, 0, 1])[:, None],
    bound=(0, 90),
  ),
  "keep_all": Row(
    lambda o, v, p: o.keep(None, *v), (A,), lambda a: a, 3, lambda a: a
  ),
  "sigmoid": Row(
    lambda o, v, p: o.sigmoid(*v),
    (C,),
    lambda a: each(lambda x: sigmoid_codes(x, 9), a),
    15,
    lambda a: 1 / (1 + np.exp(-a)),
    bound=(0, 1 << 15),
  ),
  "sigmoid_coarse": Row(
    lambda o, v, p: o.sigmoid(*v),
    (A,),
    lambda a: each(lambda x: sigmoid_codes(x, 3), a),
    15,
    lambda a: 1 / (1 + np.exp(-a)),
  ),
  "silu": Row(
    lambda o, v, p: o.silu("wide", *v),
    (C,),
    lambda a: rounded(
      a * each(lambda x: sigmoid_codes(x, 9), a), 24, PLAN.format("wide")
    ),
    9,
    lambda a: a / (1 + np.exp(-a)),
  ),
  "site": Row(
    lambda o, v, p: o.site("wide", *v),
    ((12, -(2**25), 2**25),),
    lambda a: rounded(a, 12, PLAN.format("wide")),
    9,
    lambda a: a,
    bound=(-32639, 32639),
  ),
  "site_saturates": Row(
    lambda o, v, p: o.site("s", *v),
    (B,),
    lambda a: rounded(a, 5, PLAN.format("s")),
    3,
    lambda a: a,
    bound=(-127, 127),
  ),
  "site_left": Row(
    lambda o, v, p: o.site("wide", *v),
    (A,),
    lambda a: rounded(a, 3, PLAN.format("wide")),
    9,
    lambda a: a,
  ),
  "site_unit": Row(
    lambda o, v, p: o.site("unit", *v, unit=True),
    ((15, -9, 32768),),
    lambda a: rounded(a, 15, PLAN.format("unit")),
    7,
    lambda a: a,
    bound=(0, 128),
  ),
  "sum": Row(
    lambda o, v, p: o.sum(*v),
    (C,),
    lambda a: a.sum(-1, keepdims=True),
    9,
    lambda a: a.sum(-1, keepdims=True),
    bound=(-2000 * N, 3000 * N),
  ),
  "broadcast": Row(
    lambda o, v, p: o.broadcast(o.sum(*v), 7),
    (A,),
    lambda a: np.repeat(a.sum(-1, keepdims=True), 7, -1),
    3,
    lambda a: np.repeat(a.sum(-1, keepdims=True), 7, -1),
  ),
  "outer": Row(
    lambda o, v, p: o.outer(*v),
    (A, C),
    lambda a, c: a[..., :, None] * c[..., None, :],
    12,
    lambda a, c: a[..., :, None] * c[..., None, :],
    bound=(-127 * 3000, 127 * 3000),
  ),
  "matmul": Row(
    lambda o, v, p: o.matmul(*v),
    (A, C),
    np.dot,
    12,
    np.dot,
    bound=(-127 * 3000 * N, 127 * 3000 * N),
    shapes=((T, N), (N, 2)),
  ),
  "linear": Row(
    lambda o, v, p: o.site("s", o.linear("w", p[0], *v)),
    (S,),
    lambda x: product_codes(x, 9, PLAN.format("s")),
    3,
    lambda x: x @ WEIGHTS.T,
    (MATRIX,),
  ),
  "linear_8_bit": Row(
    lambda o, v, p: o.site("wide", o.linear("w", p[0], *v)),
    (S8,),
    lambda x: product_codes(x, 2, PLAN.format("wide")),
    9,
    lambda x: x @ WEIGHTS.T,
    (MATRIX,),
  ),
  "linear_split": Row(
    lambda o, v, p: o.site("s", o.linear_split("w", p[0], v[0], 2)[1]),
    (S,),
    lambda x: product_codes(x, 9, PLAN.format("s"), slice(3, 6)),
    3,
    lambda x: x @ WEIGHTS[3:].T,
    (MATRIX,),
  ),
  "norm": Row(
    lambda o, v, p: o.norm("n", *v, p[0], EPS),
    (S,),
    lambda x: norm_codes(x, 9, GAIN, PLAN.format("n")),
    11,
    lambda x: float_norm(x, GAIN),
    (GAIN,),
  ),
  "norm_8_bit": Row(
    lambda o, v, p: o.norm("n", *v, p[0], EPS),
    (S8,),
    lambda x: norm_codes(x, 2, GAIN, PLAN.format("n")),
    11,
    lambda x: float_norm(x, GAIN),
    (GAIN,),
  ),
  "norm_16_bit_gain": Row(
    lambda o, v, p: o.norm("p", *v, p[0], EPS),
    (S,),
    lambda x: norm_codes(x, 9, WIDE_GAIN, PLAN.format("p")),
    10,
    lambda x: float_norm(x, WIDE_GAIN),
    (WIDE_GAIN,),
  ),
  "norms": Row(
    lambda o, v, p: o.norms("m", *v, {"a": p[0], "b": p[1]}, EPS)["b"],
    (S,),
    lambda x: norm_codes(x, 9, GAIN2, PLAN.format("m.b")),
    4,
    lambda x: float_norm(x, GAIN2),
    (GAIN, GAIN2),
  ),
  "double_norm": Row(
    lambda o, v, p: o.double_norm("d", *v, p[0], {"a": p[1]}, EPS, EPS)["a"],
    (S,),
    lambda x: double_norm_codes(x, 9),
    11,
    float_double_norm,
    (GAIN, GAIN2),
  ),
  "double_norm_of_small_values": Row(
    lambda o, v, p: o.double_norm("d", *v, p[0], {"a": p[1]}, EPS, EPS)["a"],
    ((4, -3, 3, "x"),),
    lambda x: double_norm_codes(x, 4),
    11,
    float_double_norm,
    (GAIN, GAIN2),
  ),
  "embed": Row(
    lambda o, v, p: o.embed("e", p[0], np.array([4, 0, 4])),
    (),
    lambda: ints(EMBED.q)[[4, 0, 4]],
    11,
    lambda: real(EMBED)[[4, 0, 4]],
    (EMBED,),
    bound=(-32639, 32639),
  ),
  "const": Row(
    lambda o, v, p: o.const("c", p[0], unit=True),
    (),
    lambda: ints(BOUNDS.q),
    15,
    lambda: real(BOUNDS),
    (BOUNDS,),
    bound=(0, 1 << 15),
  ),
  "index": Row(
    lambda o, v, p: o.mul(o.index(o.const("c", p[0], unit=True), 1), *v),
    (SMALL,),
    lambda a: a * ints(BOUNDS.q[1]),
    19,
    lambda a: a * real(BOUNDS)[1],
    (BOUNDS,),
  ),
  "zeros": Row(
    lambda o, v, p: o.add(o.zeros(*v), *v), (A,), lambda a: a, 3, lambda a: a
  ),
  "scan": Row(
    lambda o, v, p: loop(o, *v),
    ((6, -900, 900),),
    lambda a: loop_codes(a, 6),
    10,
    loop_float,
  ),
  "vmap": Row(
    lambda o, v, p: o.vmap(
      "heads", lambda o, a, b: o.site("y", o.mul(a, b)), *v
    ),
    (A, SMALL),
    lambda a, b: rounded(a * b, 7, PLAN.format("heads.y")),
    9,
    lambda a, b: a * b,
  ),
  "layer": Row(
    lambda o, v, p: in_scope(o, o.layer(7), *v),
    (SMALL,),
    lambda a: rounded(a, 4, PLAN.format("layers.7.y")),
    2,
    lambda a: a,
  ),
  "act_quant": Row(
    lambda o, v, p: o.act_quant("act", *v), (S,), lambda a: a, 9, act_float
  ),
  "at": Row(
    lambda o, v, p: in_scope(o, o.at("heads"), *v),
    (SMALL,),
    lambda a: rounded(a, 4, PLAN.format("heads.y")),
    9,
    lambda a: a,
  ),
}


def operand(spec, seed, shape):
  """Codes with both ends of the range, zero and ties among them."""
  frac, low, high, *site = spec
  rng = np.random.default_rng(seed)
  q = rng.integers(low, high, shape, endpoint=True)
  q[0, :2] = low, high
  q[1, :2] = min(high, 4), max(low, -4)
  q[2, :2] = min(max(0, low), high), min(high, 1)
  return q.astype(np.int32), {
    "frac": frac,
    "low": low,
    "high": high,
    "site": site[0] if site else None,
  }


def operands(row):
  shapes = row.shapes or [(T, N)] * len(row.args)
  made = [operand(a, i, s) for i, (a, s) in enumerate(zip(row.args, shapes))]
  return [q for q, _ in made], [facts for _, facts in made]


def run_quantized(row, alu, store, params, qs, facts):
  ops = Quantized(PLAN, alu, store)
  values = [Fx(q, **f) for q, f in zip(qs, facts)]
  return row.call(ops, values, params)


class OpTable(chex.TestCase):
  """Each row in its three meanings, with and without jit."""

  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.named_parameters((name, name) for name in TABLE_OF_OPS)
  def test_fixed(self, name):
    row = TABLE_OF_OPS[name]
    qs, facts = operands(row)

    @self.variant
    def run(params, qs):
      return run_quantized(row, IntAlu(), IntStore(), params, qs, facts)

    out = run(row.params, qs)
    want = row.codes(*map(ints, qs))
    chex.assert_trees_all_equal(
      np.asarray(out.q), np.asarray(want, np.int64).astype(np.int32)
    )
    assert out.q.dtype == np.int32
    assert out.frac == row.frac
    assert out.mult is None
    if row.bound:
      assert (out.low, out.high) == row.bound
    assert out.low <= int(out.q.min())
    assert int(out.q.max()) <= out.high

  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.named_parameters((name, name) for name in TABLE_OF_OPS)
  def test_fake_quant(self, name):
    row = TABLE_OF_OPS[name]
    qs, facts = operands(row)
    with jax.enable_x64(True):
      dtype = np.dtype(np.float64)

      @self.variant
      def run(params, qs):
        return run_quantized(
          row, FloatAlu(dtype), FloatStore(dtype), params, qs, facts
        )

      params = tuple(real(p) for p in row.params)
      out = run(params, [q.astype(dtype) for q in qs])
      want = np.asarray(row.codes(*map(ints, qs)), np.float64)
      assert out.q.dtype == dtype
      chex.assert_trees_all_equal(np.asarray(out.q), want)
      assert out.frac == row.frac

  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.named_parameters((name, name) for name in TABLE_OF_OPS)
  def test_reference(self, name):
    row = TABLE_OF_OPS[name]
    qs, facts = operands(row)
    xs = [q * 2.0 ** -f["frac"] for q, f in zip(qs, facts)]

    @self.variant
    def run(params, xs):
      return row.call(Reference(), xs, params)

    single = lambda x: np.asarray(x, np.float32)
    params = tuple(
      Ternary(p.codes, single(p.scale)) if isinstance(p, Ternary) else single(p)
      for p in map(real, row.params)
    )
    out = run(params, [single(x) for x in xs])
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, row.real(*xs), rtol=2e-5, atol=1e-6)


def test_every_op_of_the_code_is_in_the_table_and_in_the_docs(repo_root):
  public = {
    name
    for name in dir(Quantized)
    if not name.startswith("_") and callable(getattr(Quantized, name))
  }
  machinery = {"absorb", "emit", "fresh", "guard", "path"}
  documented = set(
    re.findall(r"^\| `(\w+)`", (repo_root / "docs/ops.md").read_text(), re.M)
  )
  assert documented == public - machinery
  assert documented <= set(TABLE_OF_OPS)


def test_interpreters_have_the_same_ops():
  public = lambda kind: {n for n in dir(kind) if not n.startswith("_")}
  assert public(Reference) <= public(Quantized)
