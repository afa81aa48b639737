"""Rows of sums and products: ternary synapses, value times value."""

import numpy as np

from jaxnmc.numerics.ternary import Ternary
from jaxnmc.numerics.weights import QMatrix
from tests.ops.rows.base import (
  PLAN,
  S8,
  A,
  C,
  N,
  Row,
  S,
  T,
  clip,
  div_round,
  ints,
  op,
)

CODES = np.random.default_rng(0).integers(-1, 2, (6, N)).astype(np.int8)
MULT, EXP = 40000, 18
MATRIX = QMatrix(
  CODES, np.int32(MULT), exp=EXP, l1=int(abs(CODES).sum(1).max())
)
TERNARY = Ternary(CODES, np.float64(MULT * 2.0**-EXP))


def linear(site, arg, rows=slice(None), call=None):
  """`MATRIX`, or some of its rows, times a site, rounded to another one."""
  fmt = PLAN.format(site)

  def codes(x):
    sums = np.dot(x, ints(CODES[rows]).T)
    return clip(div_round(sums * MULT, arg[0] + EXP - fmt.frac), fmt)

  call = call or (lambda ops, matrix, x: ops.linear("w", matrix, x))
  return Row(
    lambda o, v, p: o.site(site, call(o, p[0], *v)),
    (arg,),
    codes,
    fmt.frac,
    lambda x: x @ (CODES[rows] * TERNARY.scale).T,
    (MATRIX,),
  )


def total(x):
  return x.sum(-1, keepdims=True)


def repeated(x):
  return np.repeat(total(x), 7, -1)


def outer(a, b):
  return a[..., :, None] * b[..., None, :]


ROWS = {
  "sum": Row(op("sum"), (C,), total, 9, total, bound=(-2000 * N, 3000 * N)),
  "broadcast": Row(
    lambda o, v, p: o.broadcast(o.sum(*v), 7), (A,), repeated, 3, repeated
  ),
  "outer": Row(
    op("outer"), (A, C), outer, 12, outer, bound=(-127 * 3000, 127 * 3000)
  ),
  "matmul": Row(
    op("matmul"),
    (A, C),
    np.dot,
    12,
    np.dot,
    bound=(-127 * 3000 * N, 127 * 3000 * N),
    shapes=((T, N), (N, 2)),
  ),
  "linear": linear("s", S),
  "linear_8_bit": linear("wide", S8),
  "linear_split": linear(
    *("s", S, slice(3, 6)),
    call=lambda ops, matrix, x: ops.linear_split("w", matrix, x, 2)[1],
  ),
}
