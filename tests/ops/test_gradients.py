"""Gradients of the rounded instructions: those of what they round."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from jaxnmc.numerics.sigmoid import SigmoidTable
from jaxnmc.ops.alu_float import FloatAlu

ALU = FloatAlu(np.dtype(np.float64))
HIGH, LOW = 37.0, 20_011.0
# A segment of the table; its slope is the chord's between two nodes.
TABLE = SigmoidTable()
CODE = 5 << TABLE.spacing


def chord(a):
  """Straight line through the segment in which `a` lies, in output codes."""
  size = 1 << TABLE.spacing
  one = 1 << TABLE.out_frac
  at = lambda q: 1 / (1 + np.exp(-q / 2**TABLE.in_frac))
  low = np.floor(a / size) * size
  return one * (at(low + size) - at(low)) / size


@pytest.mark.parametrize(
  ("call", "at", "slopes"),
  [
    (lambda a: ALU.shl(a, bits=3), (5.0,), (8.0,)),
    (lambda a: ALU.shr(a, bits=3), (5.0,), (1 / 8,)),
    (lambda a: ALU.low_bits(a, bits=3), (13.0,), (0.0,)),
    (lambda a: ALU.clip(a, low=-4, high=4), (3.0,), (1.0,)),
    (lambda a: ALU.clip(a, low=-4, high=4), (5.0,), (0.0,)),
    (
      lambda a: ALU.round_shift(a, shift=4, low=-9, high=9),
      (100.0,),
      (1 / 16,),
    ),
    (lambda a: ALU.round_shift(a, shift=4, low=-9, high=9), (400.0,), (0.0,)),
    (
      lambda a, b: ALU.mul_shr(a, b, shift=5, low=-99, high=99),
      (30.0, 7.0),
      (7 / 32, 30 / 32),
    ),
    (
      lambda h, low: ALU.mean_square(
        h, low, mult=40_000, shift=20, limit=1 << 20
      ),
      (HIGH, LOW),
      (40_000 * 2.0**-5, 40_000 * 2.0**-20),
    ),
    (lambda a: ALU.inv_sqrt(a), (9000.0,), (-(2.0**17) * 9000.0**-1.5,)),
    (lambda a: ALU.sigmoid(a, table=TABLE), (CODE + 1.0,), (chord(CODE + 1),)),
  ],
  ids=[
    *("shl", "shr", "low_bits", "clip_inside", "clip_outside", "round_shift"),
    *("round_shift_saturated", "mul_shr", "mean_square", "inv_sqrt", "sigmoid"),
  ],
)
def test_slope(call, at, slopes):
  with jax.enable_x64(True):
    args = [jnp.asarray(x, jnp.float64) for x in at]
    found = jax.grad(call, argnums=tuple(range(len(args))))(*args)
  np.testing.assert_allclose(found, slopes, rtol=1e-2)


def test_mean_square_saturates_without_a_slope():
  call = lambda h: ALU.mean_square(h, LOW, mult=40_000, shift=20, limit=9)
  with jax.enable_x64(True):
    value, slope = jax.value_and_grad(call)(jnp.asarray(HIGH, jnp.float64))
    assert (float(value), float(slope)) == (9, 0)
