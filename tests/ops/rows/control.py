"""Rows of stored parameters, scan, vmap and named scopes."""

import numpy as np

from tests.ops.rows.base import (
  PLAN,
  SMALL,
  A,
  N,
  Row,
  ints,
  real,
  rounded,
  same,
  vector,
)

EMBED = vector(
  np.random.default_rng(1).integers(-32639, 32640, (5, N)), 11, np.int16
)
BOUNDS = vector([[0] * N, [5, 20000, 32768, 9]], 15, np.int32, 0, 1 << 15)


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


def scope(path, enter):
  """A site inside `enter(ops)`, whose whole path is `path`."""

  def call(ops, values, params):
    with enter(ops):
      return ops.site("y", *values)

  fmt = PLAN.format(path)
  codes = lambda a: rounded(a, SMALL[0], fmt)
  return Row(call, (SMALL,), codes, fmt.frac, same)


ROWS = {
  "embed": Row(
    lambda o, v, p: o.embed("e", p[0], np.array([4, 0, 4])),
    (),
    lambda: ints(EMBED.q)[[4, 0, 4]],
    11,
    lambda: real(EMBED)[[4, 0, 4]],
    (EMBED,),
    bound=(-32639, 32639),
  ),
  "positions": Row(
    # Two tokens before, and padding in front, which takes no place.
    lambda o, v, p: o.embed(
      "e", p[0], o.positions(np.ones(3, np.int32), np.array([0, 1, 1]), 2)[0]
    ),
    (),
    lambda: ints(EMBED.q)[[2, 2, 3]],
    11,
    lambda: real(EMBED)[[2, 2, 3]],
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
    np.multiply,
  ),
  "layer": scope("layers.7.y", lambda ops: ops.layer(7)),
  "at": scope("heads.y", lambda ops: ops.at("heads")),
}
