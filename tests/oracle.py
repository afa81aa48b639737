"""docs/numerics.md in Python's own integers; written from the page alone.

No numpy, no jax: numbers are `int` and `Fraction`, vectors are lists.  One
token goes through all layers before the next one starts.  Accumulators that
the page says fit 32 bits are asserted to.
"""

import functools
import math
from collections import defaultdict
from fractions import Fraction
from typing import NamedTuple

# --- section 1 and 2: formats, the rounding rule


class Fmt(NamedTuple):
  bits: int
  frac: int
  unit: bool = False

  @property
  def high(self) -> int:
    if self.unit:
      return 2 ** (self.bits - 1)
    return 32639 if self.bits == 16 else 2 ** (self.bits - 1) - 1

  @property
  def low(self) -> int:
    return 0 if self.unit else -self.high


def rounded(x, s: int) -> int:
  """R(x, s) of an integer or `Fraction`."""
  if isinstance(x, int) and s >= 1:
    return (x + (1 << (s - 1))) >> s
  return math.floor(Fraction(x) / Fraction(2) ** s + Fraction(1, 2))


def clip(x: int, low: int, high: int) -> int:
  return max(low, min(x, high))


def word(x: int) -> int:
  """An int32, asserted to be one."""
  assert -(2**31) < x < 2**31, x
  return x


# --- section 3: the plan


def frac_for(limit: Fraction, bits: int) -> int:
  if limit == 0:
    return bits - 1
  high = Fmt(bits, 0).high
  fits = [f for f in range(-30, 31) if limit * Fraction(2) ** f <= high]
  return max(fits, default=-30)


# --- section 4 and 5: parameters


class Matrix(NamedTuple):
  codes: list[list[int]]
  mult: int
  exp: int


class Dense(NamedTuple):
  codes: list[list[int]]
  frac: int


class Vector(NamedTuple):
  q: list
  frac: int


def mantissa(value: Fraction) -> tuple[int, int]:
  exp = 0
  while value * Fraction(2) ** exp < 2**15:
    exp += 1
  while value * Fraction(2) ** exp >= 2**16:
    exp -= 1
  mult = rounded(value * Fraction(2) ** exp, 0)
  return (mult, exp) if mult < 2**16 else (2**15, exp - 1)


def ternary(weight: list[list[float]]) -> Matrix:
  sizes = [abs(Fraction(w)) for row in weight for w in row]
  scale = max(float(sum(sizes) / len(sizes)), 1e-5)
  # `round` of Python takes ties to even, as the page asks.
  codes = [[clip(round(w / scale), -1, 1) for w in row] for row in weight]
  return Matrix(codes, *mantissa(Fraction(scale)))


def quantise(values: list[float], fmt: Fmt) -> Vector:
  scaled = [Fraction(v) * Fraction(2) ** fmt.frac for v in values]
  return Vector(
    [clip(rounded(v, 0), fmt.low, fmt.high) for v in scaled], fmt.frac
  )


def dense(weight: list[list[float]], fmt: Fmt) -> Dense:
  return Dense([quantise(row, fmt).q for row in weight], fmt.frac)


def lower_bounds(raw: list[list[float]]) -> list[list[float]]:
  """float[L][D] -> float[L][D]."""
  columns = []
  for column in zip(*raw):
    parts = [math.exp(v - max(column)) for v in column]
    share = [p / sum(parts) for p in parts]
    columns.append([sum(share[1 : i + 1]) for i in range(len(share))])
  return [list(row) for row in zip(*columns)]


# --- section 6.1 and 7: tables

SEEDS = (
  *(146, 206, 292, 412, 584, 826, 1168, 1652, 2336, 3304, 4674, 6610, 9350),
  *(13222, 18700, 26446, 37402, 52894, 74804, 105788, 149608, 211578, 299218),
  423158,
)


def inv_sqrt(x: int) -> int:
  seed = SEEDS[24 - x.bit_length()]
  b, y = x, seed >> 1
  for _ in range(5):
    b = ((b * seed >> 13) * seed) >> 13
    seed = 12288 - b
    y = (y * seed) >> 13
  return y


class Table(NamedTuple):
  in_frac: int = 6
  spacing: int = 6
  segments: int = 8
  out_frac: int = 15

  @property
  def reach(self) -> int:
    return self.segments * 2**self.spacing

  @property
  def nodes(self) -> list[int]:
    return _nodes(self)


@functools.cache
def _nodes(table: Table) -> list[int]:
  step = 2.0 ** (table.spacing - table.in_frac)
  one = 2**table.out_frac
  count = table.segments + 1
  return [math.floor(one / (1 + math.exp(-j * step))) for j in range(count)]


def sigmoid(k: int, table: Table) -> int:
  a = min(abs(k), table.reach)
  j = min(a >> table.spacing, table.segments - 1)
  low, high = table.nodes[j : j + 2]
  y = low + (((high - low) * (a - j * 2**table.spacing)) >> table.spacing)
  return y if k >= 0 else 2**table.out_frac - y


# --- section 6 and 8: the model


class Oracle:
  """One model under one plan.

  Args:
    formats: path -> Fmt of every site.
    eps: eps of every norm.
    inner: (G, B) of every norm.
    table: the sigmoid table.
  """

  def __init__(self, formats, eps: float, inner=(12, 24), table=None):
    self.formats = formats
    self.eps = Fraction(eps)
    self.inner_frac, self.inner_bits = inner
    self.table = table or Table()
    self.taps: dict[str, list] = defaultdict(list)
    self.saturated: dict[str, int] = defaultdict(int)

  def site(self, path: str, q: list[int], frac: int, mult=1, exp=0) -> Vector:
    fmt = self.formats[path]
    shift = frac + exp - fmt.frac
    wide = [rounded(word(v) * mult, shift) for v in q]
    codes = [clip(v, fmt.low, fmt.high) for v in wide]
    self.saturated[path] += sum(a != b for a, b in zip(wide, codes))
    self.taps[path].append(codes)
    return Vector(codes, fmt.frac)

  def product(self, path: str, matrix: Matrix, x: Vector) -> Vector:
    sums = [sum(w * v for w, v in zip(row, x.q)) for row in matrix.codes]
    return self.site(path, sums, x.frac, matrix.mult, matrix.exp)

  def dense(self, path: str, matrix: Dense, x: Vector, bias=None) -> Vector:
    """bias: a `Vector` or None."""
    point = x.frac + matrix.frac
    sums = [sum(w * v for w, v in zip(row, x.q)) for row in matrix.codes]
    if bias is not None:
      added = [rounded(b, bias.frac - point) for b in bias.q]
      sums = [word(s) + word(b) for s, b in zip(sums, added)]
    return self.site(path, sums, point)

  # Norms.

  def mean(self, path: str, x: Vector, factor=Fraction(1)) -> int:
    mult, exp = mantissa(factor / len(x.q))
    shift = exp + 2 * x.frac - self.inner_frac
    lift = -((shift - 16) // 2) if shift < 16 else 0
    squares = [word((v * 2**lift) ** 2) for v in x.q]
    low = [p % 2**15 for p in squares]
    high = [p // 2**15 for p in squares]
    self.taps[path + ".square_low"].append(low)
    self.taps[path + ".square_high"].append(high)
    total = word(sum(high)) * 2**15 + word(sum(low))
    mean = rounded(total * mult, shift + 2 * lift)
    return min(mean, 2**self.inner_bits - 1)

  def root(self, path: str, argument: int) -> int:
    limit = 2**self.inner_bits - 1
    self.saturated[path + ".mean_square"] += argument > limit
    argument = clip(argument, 1, limit)
    self.taps[path + ".mean_square"].append([argument])
    root = inv_sqrt(argument)
    self.taps[path + ".root"].append([root])
    return root

  def scaled(self, path: str, x: Vector, gain: Vector, root: int) -> Vector:
    products = [a * b for a, b in zip(x.q, gain.q)]
    exp = 18 - self.inner_frac // 2
    return self.site(path, products, x.frac + gain.frac, root, exp)

  def eps_code(self, eps: Fraction) -> int:
    return rounded(eps * 2**self.inner_frac, 0)

  def norms(self, path: str, x: Vector, gains: dict) -> dict[str, Vector]:
    """gains: suffix of the site -> gain."""
    code = self.eps_code(self.eps)
    root = self.root(path, self.mean(path, x) + code)
    return {k: self.scaled(path + k, x, g, root) for k, g in gains.items()}

  def norm(self, path: str, x: Vector, gain: Vector) -> Vector:
    return self.norms(path, x, {"": gain})[""]

  def fused(self, path: str, x: Vector, gain: Vector, gains: dict) -> dict:
    products = [a * b for a, b in zip(x.q, gain.q)]
    v = self.site(path + ".v", products, x.frac + gain.frac)
    total = self.mean(path + ".v", v) + self.mean(path, x, self.eps)
    root = self.root(path, total + max(1, self.eps_code(self.eps * self.eps)))
    return {k: self.scaled(path + k, v, g, root) for k, g in gains.items()}

  def normed(self, path: str, r: Vector, outer: Vector, gains: dict) -> dict:
    """Block norm and the norms of the BitLinears behind it."""
    gains = {"." + k: g for k, g in gains.items()}
    if path + "in_norm.v" in self.formats:
      out = self.fused(path + "in_norm", r, outer, gains)
    else:
      n = self.norm(path + "norm", r, outer)
      out = self.norms(path + "in_norm", n, gains)
    return {k[1:]: v for k, v in out.items()}

  # Element-wise.

  def table_sigmoid(self, x: Vector) -> list[int]:
    reach = self.table.reach
    shift = x.frac - self.table.in_frac
    keys = [clip(rounded(v, shift), -reach, reach) for v in x.q]
    return [sigmoid(k, self.table) for k in keys]

  def silu(self, path: str, x: Vector) -> Vector:
    q = [a * b for a, b in zip(x.q, self.table_sigmoid(x))]
    return self.site(path, q, x.frac + self.table.out_frac)

  def times(self, path: str, a: Vector, b: Vector) -> Vector:
    q = [x * y for x, y in zip(a.q, b.q)]
    return self.site(path, q, a.frac + b.frac)

  def plus(self, path: str, a: Vector, b: Vector) -> Vector:
    frac = max(a.frac, b.frac)
    x = [word(v * 2 ** (frac - a.frac)) for v in a.q]
    y = [word(v * 2 ** (frac - b.frac)) for v in b.q]
    return self.site(path, [i + j for i, j in zip(x, y)], frac)

  # Blocks.

  def mixer(self, at: str, p: dict, r: Vector, state: Vector, bound, mask):
    """Token mixer: (output before the residual, new state)."""
    inner = {k: p[k]["norm"] for k in "ifg"}
    x = self.normed(at, r, p["attn_norm"], inner)
    out = lambda k: self.product(f"{at}{k}.out", p[k]["weight"], x[k])
    i, f, z = (out(k) for k in "ifg")
    rest, frac = [], self.table.out_frac
    for n, s in enumerate(self.table_sigmoid(f)):
      value = 2**self.table.out_frac - s
      if bound is not None:
        value *= 2**bound.frac - bound.q[n]
      rest.append(value)
    frac += bound.frac if bound is not None else 0
    rest = self.site(at + "rest", rest, frac)
    silu = self.silu(at + "silu_i", i)
    fresh = [mask * a * b for a, b in zip(silu.q, rest.q)]
    u = self.site(at + "u", fresh, silu.frac + rest.frac)
    forget = Vector([2**rest.frac - v for v in rest.q], rest.frac)
    kept = [a * b for a, b in zip(forget.q, state.q)]
    kept = Vector(kept, forget.frac + state.frac)
    h = self.plus(at + "mlgru.h", kept, u)
    gate = self.norm(at + "g_norm", z, p["g_norm"])
    gated = self.times(at + "gated", gate, self.silu(at + "silu_h", h))
    x = self.norm(at + "o.norm", gated, p["o"]["norm"])
    return self.product(at + "o.out", p["o"]["weight"], x), h

  def channels(self, at: str, p: dict, r: Vector) -> Vector:
    """Channel mixer: output before the residual."""
    inner = {"gate": p["gate"]["norm"]}
    x = self.normed(at, r, p["mlp_norm"], inner)["gate"]
    matrix = p["gate"]["weight"]
    half = len(matrix.codes) // 2
    rows = lambda part: matrix._replace(codes=part)
    gate = self.product(at + "gate.out", rows(matrix.codes[:half]), x)
    up = self.product(at + "gate.up", rows(matrix.codes[half:]), x)
    glu = self.times(at + "glu", self.silu(at + "silu", gate), up)
    x = self.norm(at + "down.norm", glu, p["down"]["norm"])
    return self.product(at + "down.out", p["down"]["weight"], x)

  def run(self, params: dict, ids: list[int], mask: list[int], states: list):
    """Tokens in order.

    Args:
      params: integer parameters, `Matrix` and `Vector` leaves.
      ids: tokens.
      mask: 1 or 0 per token.
      states: codes of h per layer, list[int][E].

    Returns:
      (logits codes per token, codes of h per layer); `taps` and `saturated`
      hold the rest.
    """
    logits = []
    states = list(states)
    for token, keep in zip(ids, mask):
      table = params["embed"]["weight"]
      r = Vector(table.q[token], table.frac)
      self.taps["embed"].append(r.q)
      for n, p in enumerate(params["layers"]):
        at = f"layers.{n}."
        bound = None
        if n and "lower_bounds" in params:
          bounds = params["lower_bounds"]
          bound = Vector(bounds.q[n], bounds.frac)
        h = Vector(states[n], self.formats[at + "attn.mlgru.h"].frac)
        mixer = {**p["attn"], "attn_norm": p["attn_norm"]}
        mixed, h = self.mixer(at + "attn.", mixer, r, h, bound, keep)
        states[n] = h.q
        r = self.plus(at + "mid", r, mixed)
        mlp = {**p["mlp"], "mlp_norm": p["mlp_norm"]}
        r = self.plus(at + "out", r, self.channels(at + "mlp.", mlp, r))
      head = params["head"]
      inner = {"head": head["norm"]}
      x = self.normed("final.", r, params["norm"], inner)["head"]
      logits.append(self.product("head.out", head["weight"], x).q)
    return logits, states
