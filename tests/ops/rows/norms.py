"""Rows of the norms: RMS alone, several of one input, fused; LayerNorm."""

import math

import numpy as np

from tests.ops.rows.base import (
  EPS,
  PLAN,
  S8,
  Row,
  S,
  clip,
  div_round,
  ints,
  real,
  vector,
)

GAIN = vector([64, -100, 37, 127], 6, low=-127, high=127)
WIDE_GAIN = vector(
  [4096, -20000, 32639, 1], 12, np.int16, low=-32639, high=32639
)
GAIN2 = vector([-3, 90, 127, 64], 5, low=-127, high=127)
# Finer than what it is added to, so that it is rounded; a tie among them.
BIAS = vector([-5000, 2, 32639, 1234], 14, np.int32, -32639, 32639)

# --- integer oracles


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


def layer_norm_codes(x, frac):
  inner, middle, out = (PLAN.format(k) for k in ("l.centred", "l.scaled", "l"))

  def one(row):
    n = len(row)
    mult, exp = mantissa(1 / n)
    gaps = [(n * v - sum(row)) * mult for v in row]
    gaps = [
      int(clip(div_round(g, frac + exp - inner.frac), inner)) for g in gaps
    ]
    y = root(min(mean_codes(gaps, inner.frac) + 4, 2**24 - 1))
    found = []
    for v, b in zip(scaled(gaps, GAIN, y, inner.frac, middle), ints(BIAS.q)):
      v = v + div_round(b, BIAS.frac - middle.frac)
      found.append(int(clip(div_round(v, middle.frac - out.frac), out)))
    return found

  return by_rows(one, x)


# --- float oracles


def float_norm(x, gain):
  return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPS) * real(gain)


def float_double_norm(x):
  # Two norms, one after the other: the fused form is the same function.
  return float_norm(float_norm(x, GAIN), GAIN2)


def float_layer_norm(x):
  gaps = x - x.mean(-1, keepdims=True)
  return float_norm(gaps, GAIN) + real(BIAS)


# --- rows


def norm(site, arg, gain, call=None, params=None):
  """A norm into `site`; `call` where it is one of several."""
  fmt = PLAN.format(site)
  return Row(
    call or (lambda o, v, p: o.norm(site, *v, p[0], EPS)),
    (arg,),
    lambda x: norm_codes(x, arg[0], gain, fmt),
    fmt.frac,
    lambda x: float_norm(x, gain),
    params or (gain,),
  )


def double_norm(arg):
  return Row(
    lambda o, v, p: o.double_norm("d", *v, p[0], {"a": p[1]}, EPS, EPS)["a"],
    (arg,),
    lambda x: double_norm_codes(x, arg[0]),
    11,
    float_double_norm,
    (GAIN, GAIN2),
  )


def layer_norm(arg):
  return Row(
    lambda o, v, p: o.layer_norm("l", *v, *p, EPS),
    (arg,),
    lambda x: layer_norm_codes(x, arg[0]),
    11,
    float_layer_norm,
    (GAIN, BIAS),
    bound=(-32639, 32639),
  )


ROWS = {
  "norm": norm("n", S, GAIN),
  "norm_8_bit": norm("n", S8, GAIN),
  "norm_16_bit_gain": norm("p", S, WIDE_GAIN),
  "norms": norm(
    *("m.b", S, GAIN2),
    lambda o, v, p: o.norms("m", *v, {"a": p[0], "b": p[1]}, EPS)["b"],
    (GAIN, GAIN2),
  ),
  "double_norm": double_norm(S),
  "double_norm_of_small_values": double_norm((4, -3, 3, "x")),
  "layer_norm": layer_norm(S),
  "layer_norm_8_bit": layer_norm(S8),
  "layer_norm_of_shares": layer_norm((15, 0, 32768, "x")),
}
