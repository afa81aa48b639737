"""Rows of the ops that go element by element, and of sites."""

import math

import numpy as np

from tests.ops.rows.base import (
  BIT,
  PLAN,
  SMALL,
  TABLE,
  A,
  B,
  C,
  Row,
  S,
  U,
  div_round,
  ints,
  op,
  rounded,
  same,
  up,
)


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


def sigmoids(x, frac):
  return each(lambda v: sigmoid_codes(v, frac), x)


def float_sigmoid(x):
  return 1 / (1 + np.exp(-x))


def act_float(x):
  """Dynamic 8-bit codes per row, halves away from zero, over their scale."""
  scale = 127 / abs(x).max(-1, keepdims=True)
  y = x * scale
  return np.clip(np.sign(y) * np.floor(abs(y) + 0.5), -128, 127) / scale


def site(name, arg, bound=None, **options):
  """A site of the plan, which rounds and clips."""
  fmt = PLAN.format(name)
  return Row(
    lambda o, v, p: o.site(name, *v, **options),
    (arg,),
    lambda a: rounded(a, arg[0], fmt),
    fmt.frac,
    same,
    bound=bound,
  )


# One for each feature; on their own they have no fraction bits.
WHOLES = (3, -1, 0, 70)

ROWS = {
  "literal": Row(
    lambda o, v, p: o.min(o.literal(WHOLES, *v), *v),
    (C,),
    lambda a: np.minimum(ints(WHOLES) * 2**9, a),
    9,
    lambda a: np.minimum(WHOLES, a),
    bound=(-2000, 3000),
  ),
  "add": Row(
    op("add"),
    (A, B),
    lambda a, b: up(a, 2) + b,
    5,
    np.add,
    bound=(-508 - 32639, 508 + 32639),
  ),
  "add_flipped": Row(op("add"), (B, A), lambda b, a: up(a, 2) + b, 5, np.add),
  "sub": Row(
    op("sub"),
    (A, C),
    lambda a, c: up(a, 6) - c,
    9,
    np.subtract,
    bound=(-127 * 64 - 3000, 127 * 64 + 2000),
  ),
  "mul": Row(
    op("mul"),
    (C, B),
    np.multiply,
    14,
    np.multiply,
    bound=(-3000 * 32639, 3000 * 32639),
  ),
  "mul_unsigned": Row(
    op("mul"),
    (U, C),
    np.multiply,
    24,
    np.multiply,
    bound=(-2000 * 32768, 3000 * 32768),
  ),
  "one_minus": Row(
    op("one_minus"),
    (C,),
    lambda a: 512 - a,
    9,
    lambda a: 1 - a,
    bound=(512 - 3000, 512 + 2000),
  ),
  "shift": Row(
    op("shift", 4), (C,), same, 13, lambda a: a / 16, bound=(-2000, 3000)
  ),
  "settle": Row(
    op("settle"),
    (C, U),
    lambda c, u: c,
    9,
    lambda c, u: c,
    bound=(-2000, 3000),
  ),
  "min": Row(
    op("min"),
    (A, C),
    lambda a, c: np.minimum(up(a, 6), c),
    9,
    np.minimum,
    bound=(-127 * 64, 3000),
  ),
  "max": Row(
    op("max"),
    (A, C),
    lambda a, c: np.maximum(up(a, 6), c),
    9,
    np.maximum,
    bound=(-2000, 127 * 64),
  ),
  "compare": Row(
    op("compare"),
    (SMALL, SMALL),
    lambda a, b: each(lambda x, y: int(x >= y), a, b),
    0,
    lambda a, b: (a >= b).astype(float),
    bound=(0, 1),
  ),
  "select": Row(
    op("select"),
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
  "keep_all": Row(lambda o, v, p: o.keep(None, *v), (A,), same, 3, same),
  "zeros": Row(lambda o, v, p: o.add(o.zeros(*v), *v), (A,), same, 3, same),
  "sigmoid": Row(
    op("sigmoid"),
    (C,),
    lambda a: sigmoids(a, 9),
    15,
    float_sigmoid,
    bound=(0, 1 << 15),
  ),
  "sigmoid_coarse": Row(
    op("sigmoid"), (A,), lambda a: sigmoids(a, 3), 15, float_sigmoid
  ),
  "silu": Row(
    lambda o, v, p: o.silu("wide", *v),
    (C,),
    lambda a: rounded(a * sigmoids(a, 9), 24, PLAN.format("wide")),
    9,
    lambda a: a * float_sigmoid(a),
  ),
  "site": site("wide", (12, -(2**25), 2**25), (-32639, 32639)),
  "site_saturates": site("s", B, (-127, 127)),
  "site_left": site("wide", A),
  "site_unit": site("unit", (15, -9, 32768), (0, 128), unit=True),
  "act_quant": Row(
    lambda o, v, p: o.act_quant("act", *v), (S,), same, 9, act_float
  ),
}
