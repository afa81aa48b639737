"""Number formats: limits, the choice of the point, mantissas, eps."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnmc.errors import FormatError
from jaxnmc.numerics import formats
from jaxnmc.numerics.formats import Format, NormFormat, frac_for, mantissa
from tests import oracle

WIDTHS = (2, 3, 8, 12, 15, 16, 17, 24)


@pytest.mark.parametrize("bits", WIDTHS)
def test_limits(bits):
  high = 32639 if bits == 16 else 2 ** (bits - 1) - 1
  assert formats.symmetric_limit(bits) == high
  signed = Format(bits, 3)
  assert (signed.low, signed.high) == (-high, high)
  unit = Format(bits, bits - 1, unit=True)
  assert (unit.low, unit.high) == (0, 2 ** (bits - 1))


def test_formats_as_text():
  assert str(Format(16, -3)) == "s16.-3"
  assert str(Format(16, 15, unit=True)) == "u16.15"


@pytest.mark.parametrize(
  ("args", "message"),
  [
    ((1, 0), "2 to 24 bits; found 1"),
    ((25, 0), "2 to 24 bits; found 25"),
    ((8, -41), "-40 to 40 fraction bits; found -41"),
    ((8, 41), "-40 to 40 fraction bits; found 41"),
    ((16, 14, True), "unit format of 16 bits has 15 fraction bits; found 14"),
  ],
)
def test_impossible_formats(args, message):
  with pytest.raises(FormatError, match=message):
    Format(*args)


def test_extreme_formats_exist():
  assert Format(2, -40).high == 1
  assert Format(24, 40).high == 2**23 - 1


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("power", range(-28, 29))
def test_frac_for_next_to_powers_of_two(bits, power):
  for top in (1, formats.symmetric_limit(bits)):
    exact = top * 2.0**power
    for limit in (
      math.nextafter(exact, 0),
      exact,
      math.nextafter(exact, math.inf),
    ):
      found = frac_for(limit, bits)
      assert found == oracle.frac_for(Fraction(limit), bits)


@given(st.floats(1e-12, 1e12), st.sampled_from(WIDTHS))
def test_frac_for_anything(limit, bits):
  assert frac_for(limit, bits) == oracle.frac_for(Fraction(limit), bits)


def test_frac_for_known_values():
  assert frac_for(1.0, 16) == 14
  assert frac_for(32639 / 32768, 16) == 15
  assert frac_for(127.0, 8) == 0
  assert frac_for(128.0, 8) == -1


def test_frac_for_ends():
  assert frac_for(0.0, 16) == 15
  assert frac_for(0.0, 8) == 7
  assert frac_for(5e-324, 16) == 30
  assert frac_for(1e300, 16) == -30


@pytest.mark.parametrize("limit", [math.inf, math.nan])
def test_frac_for_wants_a_finite_range(limit):
  with pytest.raises(FormatError, match="range must be finite"):
    frac_for(limit, 16)


@given(st.floats(1e-30, 1e30))
def test_mantissa(value):
  mult, exp = mantissa(value)
  assert (mult, exp) == oracle.mantissa(Fraction(value))
  assert 2**15 <= mult < 2**16
  off = abs(Fraction(mult) / Fraction(2) ** exp / Fraction(value) - 1)
  assert off <= Fraction(1, 2**16)


def test_mantissa_of_known_values():
  assert mantissa(1.0) == (2**15, 15)
  assert mantissa(1 / 1024) == (2**15, 25)
  assert mantissa(1 / 3) == (43691, 17)
  # Rounds up into the next octave.
  assert mantissa(math.nextafter(1.0, 0)) == (2**15, 15)
  assert mantissa(65535.5 / 65536) == (2**15, 15)
  assert mantissa(65535.25 / 65536) == (65535, 16)


@pytest.mark.parametrize("n", range(1, 600))
def test_mantissa_of_reciprocals_is_that_of_the_fraction(n):
  assert mantissa(1 / n) == oracle.mantissa(Fraction(1, n))


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_mantissa_wants_a_positive_scale(value):
  with pytest.raises(FormatError, match="positive and finite"):
    mantissa(value)


def test_norm_formats():
  assert (NormFormat().frac, NormFormat().bits) == (12, 24)
  NormFormat(0, 8)
  NormFormat(36, 24)
  for frac in (11, -2, 38):
    with pytest.raises(FormatError, match="even number of fraction bits"):
      NormFormat(frac)
  for bits in (7, 25):
    with pytest.raises(FormatError, match="8 to 24 bits"):
      NormFormat(12, bits)


def test_eps_codes():
  assert NormFormat(12).eps_code(1e-3, "n") == 4
  assert NormFormat(20).eps_code(1e-3, "n") == 1049
  assert NormFormat(12).eps_code(0.5 * 2**-12, "n") == 1
  assert NormFormat(12).eps_code(1.5 * 2**-12, "n") == 2
  with pytest.raises(FormatError, match="layers.3.norm: eps 1e-06 underflows"):
    NormFormat(12).eps_code(1e-6, "layers.3.norm")


def test_eps_that_leaves_the_format():
  assert NormFormat(0, 8).eps_code(255.0, "n") == 255
  with pytest.raises(FormatError, match="n: eps 256 is 256 .* fit 8 bits"):
    NormFormat(0, 8).eps_code(256.0, "n")
