"""Rows of sums and products: ternary synapses, value times value."""

import dataclasses
import functools

import numpy as np
from jax import numpy as jnp

from jaxnmc.numerics.fx import Fx
from jaxnmc.numerics.ternary import Ternary
from jaxnmc.numerics.weights import QDense, QMatrix, QVector
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
  vector,
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


WEIGHT = np.random.default_rng(1).integers(-127, 128, (6, N)).astype(np.int8)
BIAS = vector(
  [-32639, 32639, 5, -5, 8, 0], 12, np.int32, low=-32639, high=32639
)
L1 = int(abs(WEIGHT.astype(int)).sum(1).max())
DENSE = QDense(WEIGHT, frac=PLAN.format("k.weight").frac, l1=L1)
# The same codes as a table of 8 bits.
TABLE = QVector(
  WEIGHT.astype(np.int16),
  frac=PLAN.format("t").frac,
  low=-127,
  high=127,
  l1=L1,
)


def dense(arg, matrix, bias=None, tied=None):
  """A matrix of 8-bit codes times a site, plus a bias, rounded to another."""
  fmt, point = PLAN.format("k"), arg[0] + matrix.frac

  def codes(x):
    out = np.dot(x, ints(WEIGHT).T)
    if bias is not None:
      out = out + div_round(ints(bias.q), bias.frac - point)
    return clip(div_round(out, point - fmt.frac), fmt)

  def value(x):
    out = x @ WEIGHT.T * 2.0**-matrix.frac
    return out if bias is None else out + bias.q * 2.0**-bias.frac

  params = (matrix,) if bias is None else (matrix, bias)
  return Row(
    lambda o, v, p: o.dense("k", p[0], *v, *p[1:], tied=tied),
    (arg,),
    codes,
    fmt.frac,
    value,
    params,
    bound=(-32639, 32639),
  )


def total(x):
  return x.sum(-1, keepdims=True)


def repeated(x):
  return np.repeat(total(x), 7, -1)


def outer(a, b):
  return a[..., :, None] * b[..., None, :]


HEADS, SPIKE = 2, (0, -1, 1)
REACH = T * N // HEADS
# The first head forgets within the three tokens, the second never.
WINDOWS = (2, None)


def recalled(q, k, v, windows=(None,) * HEADS):
  """Rows of y by the recurrence, head by head."""
  d = q.shape[-1] // HEADS
  memory = np.zeros((HEADS, d, d), q.dtype)
  rows = []
  for t in range(len(q)):
    row = []
    for j, window in enumerate(windows):
      mine = slice(j * d, (j + 1) * d)
      memory[j] = memory[j] + k[t, mine, None] * v[t, None, mine]
      old = -1 if window is None else t - window
      if old >= 0:
        memory[j] = memory[j] - k[old, mine, None] * v[old, None, mine]
      row += [sum(q[t, mine] * memory[j, :, e]) for e in range(d)]
    rows.append(row)
  return np.array(rows, q.dtype)


def memory(windows=None):
  """y of all tokens, computed in two calls."""

  def run(ops, values, params):
    del params
    whole = isinstance(values[0], Fx)
    piece = lambda x, rows: (
      dataclasses.replace(x, q=x.q[rows]) if whole else x[rows]
    )
    call = lambda state, rows: ops.memory(
      *("mem", state, *(piece(x, rows) for x in values), HEADS, T, windows)
    )
    first, state = call(None, slice(0, 1))
    rest, state = call(state, slice(1, None))
    if not whole:
      return jnp.concatenate([first, rest])
    sums = state if windows is None else state["sums"]
    assert (sums.frac, sums.low, sums.high) == (0, -7, 7)
    return dataclasses.replace(first, q=jnp.concatenate([first.q, rest.q]))

  return run


ROWS = {
  "memory": Row(
    memory(),
    (SPIKE, SPIKE, SPIKE),
    recalled,
    0,
    recalled,
    bound=(-REACH, REACH),
  ),
  "memory_windows": Row(
    memory(WINDOWS),
    (SPIKE, SPIKE, SPIKE),
    functools.partial(recalled, windows=WINDOWS),
    0,
    functools.partial(recalled, windows=WINDOWS),
    bound=(-REACH, REACH),
  ),
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
  "dense": dense(S, DENSE),
  # The bias is moved left, or right and rounded.
  "dense_bias": dense(S, DENSE, BIAS),
  "dense_fine_bias": dense(S8, DENSE, BIAS),
  "dense_tied": dense(S, TABLE, tied="t"),
  "linear_split": linear(
    *("s", S, slice(3, 6)),
    call=lambda ops, matrix, x: ops.linear_split("w", matrix, x, 2)[1],
  ),
}
