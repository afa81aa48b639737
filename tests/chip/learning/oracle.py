"""docs/learning.md in Python's own integers: no numpy, no jax, no bounds."""

from math import isqrt

M = 0xFFFFFFFF
STRIDE = 0x9E3779B9
# docs/numerics.md, 7.
NODES = [16384, 23955, 28861, 31213, 32178, 32548, 32686, 32738, 32757]


def clip(x, low, high):
  return low if x < low else high if x > high else x


def r(x, s):
  """The one rounding rule: floor(x / 2^s + 1/2)."""
  return x * 2**-s if s <= 0 else (x + 2 ** (s - 1)) // 2**s


# --- 1


def mix(x):
  x ^= x >> 16
  x = x * 0x85EBCA6B & M
  x ^= x >> 13
  x = x * 0xC2B2AE35 & M
  return x ^ (x >> 16)


def word(seed, *counters):
  x = mix((seed + STRIDE) & M)
  for c in counters:
    x = mix((x + (c + 1) * STRIDE) & M)
  return x


def round_by(x, s, bits):
  return x if s == 0 else (x + (bits >> (32 - s))) // 2**s


def order(seed, epoch, count):
  return sorted(range(count), key=lambda n: (word(seed, epoch, n), n))


# --- 2


def logits(w, b, h, f):
  """f: Fh, Fw, Fb, Fz and high_z."""
  z = []
  for i, row in enumerate(w):
    total = sum(a * c for a, c in zip(row, h))
    if b is not None:
      total += r(b[i], f["Fb"] - f["Fh"] - f["Fw"])
    code = r(total, f["Fh"] + f["Fw"] - f["Fz"])
    z.append(clip(code, -f["high_z"], f["high_z"]))
  return z


# --- 3


def root64(n):
  """floor of the 64th root: six square roots."""
  for _ in range(6):
    n = isqrt(n)
  return n


T = [root64(2 ** (64 * 15 - k)) for k in range(64)]


def sigmoid(k):
  a = abs(k)
  j = min(a // 64, 7)
  y = NODES[j] + (NODES[j + 1] - NODES[j]) * (a - 64 * j) // 64
  return y if k >= 0 else 2**15 - y


def winner(z):
  return z.index(max(z))


def errors(kind, z, target, f, E):
  top = max(z)
  if kind == "softmax":
    a = [clip(r((top - x) * 47274, f["Fz"] + 9), 0, 1024) for x in z]
    t = [T[k % 64] >> (k // 64) for k in a]
    q = 2**45 // sum(t)
    p = [clip(r(x * q, 30), 0, 2**15) for x in t]
  elif kind == "perceptron":
    p = [2**15 * (i == winner(z)) for i in range(len(z))]
  else:
    p = [sigmoid(clip(r(x, f["Fz"] - 6), -512, 512)) for x in z]
  y = [2**15 * (i == target) for i in range(len(z))]
  return [clip(r(u - v, 15 - E), -(2**E), 2**E) for u, v in zip(p, y)]


# --- 4


def delta_step(w, b, h, target, n, f, rule, rows=None):
  """One example: changes w and b in place; returns (winner, counts)."""
  E = rule["error_frac"]
  z = logits(w, b, h, f)
  e = errors(rule["error"], z, target, f, E)
  high_h, high_w = f["high_h"], f["high_w"]
  x = [clip(r(v, rule["pre_shift"]), -high_h, high_h) for v in h]
  s = E + f["Fh"] - rule["pre_shift"] - rule["rate"] - f["Fw"]
  names = ("rows", "updates", "writes", "biases", "randoms", "saturations")
  count = dict.fromkeys(names, 0)
  random = rule["rounding"] == "stochastic"

  def change(value, shift, *at):
    if shift <= 0:
      return value * 2**-shift
    if not random:
      return r(value, shift)
    if value:
      count["randoms"] += 1
    return round_by(value, shift, word(rule["seed"], n, *at))

  for i in range(len(w)) if rows is None else rows:
    count["rows"] += e[i] != 0
    for j, v in enumerate(x):
      count["updates"] += e[i] * v != 0
      new = w[i][j] + change(-e[i] * v, s, i, j)
      held = clip(new, -high_w, high_w)
      count["saturations"] += held != new
      count["writes"] += held != w[i][j]
      w[i][j] = held
    if b is not None:
      count["biases"] += e[i] != 0
      new = b[i] + change(-e[i], E - rule["rate"] - f["Fb"], i, -1)
      held = clip(new, -f["high_b"], f["high_b"])
      count["saturations"] += held != new
      b[i] = held
  return winner(z), count


# --- 5


def tz(x, k):
  return (1 if x >= 0 else -1) * (abs(x) >> k)


def three_factor_step(w, pre, post, x0, y0, third, n, rule):
  """One time step: changes w in place; returns (pre, post, counts)."""
  x1 = [tz(v * rule["pre"]["keep"], 12) for v in pre]
  y1 = [tz(v * rule["post"]["keep"], 12) for v in post]
  s, high = rule["shift"], 2 ** (rule["weight_bits"] - 1) - 1
  names = ("updates", "writes", "randoms", "saturations")
  count = dict.fromkeys(names, 0)
  for i in range(len(w)):
    for j in range(len(x0)):
      seen = {"x0": x0[j], "x1": x1[j], "y0": y0[i], "y1": y1[i]}
      seen |= {"r": third[i], "w": w[i][j]}
      total = 0
      for term in rule["terms"]:
        product = term["scale"]
        for name in term["factors"]:
          product *= seen[name]
        total += product
      if rule["rounding"] == "nearest":
        change = r(total, s)
      else:
        change = round_by(total, s, word(rule["seed"], n, i, j))
        count["randoms"] += total != 0 and s > 0
      held = clip(w[i][j] + change, -high, high)
      count["updates"] += total != 0
      count["writes"] += held != w[i][j]
      count["saturations"] += held != w[i][j] + change
      w[i][j] = held

  def after(old, now, trace):
    top = trace["top"]
    pairs = zip(old, now)
    return [clip(a + trace["impulse"] * b, -top, top) for a, b in pairs]

  return after(x1, x0, rule["pre"]), after(y1, y0, rule["post"]), count
