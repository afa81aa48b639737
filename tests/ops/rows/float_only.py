"""Rows of the ops that stay in floats: attention and what comes with it."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jax import numpy as jnp

from jaxnmc.numerics.formats import Format
from jaxnmc.numerics.fx import Fx
from jaxnmc.quantize import Plan, SigmoidTable

T, S, HEADS, KV_HEADS, SIZE = 3, 4, 4, 2, 6
FRAC = 9
# Small enough to saturate.
OUT = Format(8, 6)
PLAN = Plan(
  "float only",
  {"y": OUT},
  {},
  {},
  SigmoidTable(),
  None,
)


@dataclasses.dataclass(frozen=True)
class FloatRow:
  """One op.

  Attributes:
    call: `call(ops, values) -> value`.
    args: float64 operands, each on the grid of `FRAC` bits.
    real: float64 oracle of the operands.
    site: the resulting site, or None.
  """

  call: Callable[..., Any]
  args: tuple[np.ndarray, ...]
  real: Callable[..., Any]
  site: str | None = "y"


def grid(seed, frac, *shape):
  draw = np.random.default_rng(seed).normal(size=shape)
  return np.round(draw * 2.0**frac) * 2.0**-frac


def coded(x) -> Fx:
  """An operand with a format."""
  q = jnp.asarray(x * 2.0**FRAC)
  return Fx(q, frac=FRAC, low=-32639, high=32639, site="x")


X = grid(0, FRAC, T, 5)
Q = 2 * grid(5, FRAC, T, HEADS * SIZE)
K, V = (2 * grid(seed, FRAC, S, KV_HEADS * SIZE) for seed in (6, 7))
# The last token sees everything, the first one key only.
SEEN = np.array([[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]], bool)
POSITIONS = np.array([0, 3, 7], np.int32)
SLOTS = np.array([3, 9, 0], np.int32)


def normal(v):
  return 0.5 * (1 + math.erf(v / math.sqrt(2)))


def rotated(x):
  """Neighbouring pairs as complex numbers."""
  out = np.empty_like(x)
  for t, p in enumerate(POSITIONS):
    for j in range(HEADS):
      for i in range(SIZE // 2):
        at = j * SIZE + 2 * i
        turn = np.exp(1j * p * 50.0 ** (-2 * i / SIZE))
        z = complex(x[t, at], x[t, at + 1]) * turn
        out[t, at : at + 2] = z.real, z.imag
  return out


def attended(q, k, v):
  out = np.empty_like(q)
  for t in range(T):
    for j in range(HEADS):
      mine = slice(j * SIZE, (j + 1) * SIZE)
      shared = j * KV_HEADS // HEADS
      its = slice(shared * SIZE, (shared + 1) * SIZE)
      seen = np.flatnonzero(SEEN[t])
      e = [math.exp(q[t, mine] @ k[s, its] / math.sqrt(SIZE)) for s in seen]
      rows = [w * v[s, its] for w, s in zip(e, seen, strict=True)]
      out[t, mine] = sum(rows) / sum(e)
  return out


def remembered(cache, x):
  out = cache.copy()
  out[3], out[0] = x[0], x[2]
  return out


ROWS = {
  "gelu": FloatRow(
    lambda o, v: o.gelu("y", *v),
    (3 * X,),
    lambda x: x * np.vectorize(normal)(x),
  ),
  "rotate": FloatRow(
    lambda o, v: o.rotate("y", *v, POSITIONS, HEADS, 50.0, "neighbours"),
    (Q,),
    rotated,
  ),
  "attention": FloatRow(
    lambda o, v: o.attention("y", *v, SEEN, HEADS, KV_HEADS),
    (Q, K, V),
    attended,
  ),
  "remember": FloatRow(
    lambda o, v: o.remember("y", *v, SLOTS, S),
    (K, grid(8, FRAC, T, KV_HEADS * SIZE)),
    remembered,
    site=None,
  ),
}
