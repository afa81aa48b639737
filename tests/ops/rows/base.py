"""What every row of the op table needs: the form, a plan, Python integers.

The oracles are Python integers (object arrays) and float64, written from the
table in the documentation, not from the code.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxnmc.numerics.formats import Format, NormFormat
from jaxnmc.numerics.sigmoid import SigmoidTable
from jaxnmc.numerics.weights import QVector
from jaxnmc.quantize import Plan

T, N = 3, 4
EPS = 1e-3
TABLE = SigmoidTable()

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
    "l": Format(16, 11),
    "l.centred": Format(16, 10),
    "l.scaled": Format(16, 12),
    "l.gain": Format(8, 6),
    "l.bias": Format(16, 14),
    "d.gain": Format(8, 6),
    "d.v": Format(16, 8),
    "d.a": Format(16, 11),
    "d.a.gain": Format(8, 5),
    "e": Format(16, 11),
    "c": Format(16, 15, unit=True),
    "loop.h": Format(16, 10),
    "heads.y": Format(16, 9),
    "layers.7.y": Format(8, 2),
    "k": Format(16, 3),
    "k.weight": Format(8, 6),
    "k.bias": Format(16, 12),
    "t": Format(8, 5),
    "mem": Format(4, 0),
  },
  {k: NormFormat() for k in ("n", "p", "m", "d", "l")},
  {},
  TABLE,
  EPS,
)


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


# Operands.
A = (3, -127, 127)
B = (5, -32639, 32639)
C = (9, -2000, 3000)
S = (9, -32639, 32639, "x")  # a named site of 16 bits
S8 = (2, -127, 127, "x")  # one of 8 bits
U = (15, 0, 32768)
BIT = (0, 0, 1)
SMALL = (4, -40, 50)

up = lambda x, bits: x * 2**bits
same = lambda x: x


def op(name, *more):
  """The row that calls op `name` with its operands, then `more`."""
  return lambda ops, values, params: getattr(ops, name)(*values, *more)


def vector(q, frac, dtype=np.int8, low=None, high=None):
  """An integer parameter vector; bounds are its largest code if not given."""
  q = np.asarray(q, dtype)
  bound = int(abs(q.astype(np.int64)).max())
  low = -bound if low is None else low
  return QVector(q, frac=frac, low=low, high=bound if high is None else high)


def real(p):
  """The floats that an integer vector stands for."""
  return p.q.astype(np.float64) * 2.0**-p.frac


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
