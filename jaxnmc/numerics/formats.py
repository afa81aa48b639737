"""Number formats: how many bits, and where the binary point is.

A format of `bits` bits and `frac` fraction bits holds q * 2^-frac for
low <= q <= high.  Signed formats are symmetric.  Sixteen bits stop at
+-32639 = 127 * 257, so that a value splits into two balanced 8-bit digits.
A unit format holds [0, 1] including 1.
"""

import dataclasses
import math

import numpy as np

from jaxnmc.errors import FormatError

MAX_BITS = 24
ACCUMULATOR_BITS = 32
SYNAPSE_BITS = 8  # of a weight


@dataclasses.dataclass(frozen=True)
class Format:
  """A fixed-point number format.

  Attributes:
    bits: width, 2 to 24.
    frac: fraction bits (may be negative: multiples of 2^-frac).
    unit: the format of values in [0, 1]; then frac = bits - 1.

  Raises:
    FormatError: a width outside 2..24, fraction bits outside -40..40, or a
      unit format with another frac.
  """

  bits: int
  frac: int
  unit: bool = False

  def __post_init__(self):
    if not 2 <= self.bits <= MAX_BITS:
      raise FormatError(
        f"a number format has 2 to {MAX_BITS} bits; found {self.bits}"
      )
    if not -40 <= self.frac <= 40:
      raise FormatError(
        f"a number format has -40 to 40 fraction bits; found {self.frac}"
      )
    if self.unit and self.frac != self.bits - 1:
      raise FormatError(
        f"a unit format of {self.bits} bits has {self.bits - 1} fraction"
        f" bits; found {self.frac}"
      )

  @property
  def high(self) -> int:
    """Largest code."""
    return 1 << self.frac if self.unit else symmetric_limit(self.bits)

  @property
  def low(self) -> int:
    """Smallest code."""
    return 0 if self.unit else -self.high

  def __str__(self) -> str:
    return f"{'u' if self.unit else 's'}{self.bits}.{self.frac}"


@dataclasses.dataclass(frozen=True)
class NormFormat:
  """Numbers inside an RMSNorm (Abreu et al. 2025, §3: 24 bits, 12 fraction).

  Attributes:
    frac: fraction bits of mean square plus eps; even, 0 to 36.
    bits: width of the mean square, 8 to 24.

  Raises:
    FormatError: one of them is outside its range.
  """

  frac: int = 12
  bits: int = 24

  def __post_init__(self):
    if self.frac % 2 or not 0 <= self.frac <= 36:
      raise FormatError(
        "the mean square of a norm has an even number of fraction bits from 0"
        f" to 36; found {self.frac}"
      )
    if not 8 <= self.bits <= 24:
      raise FormatError(
        f"the mean square of a norm has 8 to 24 bits; found {self.bits}"
      )

  def __str__(self) -> str:
    return f"u{self.bits}.{self.frac}"

  def eps_code(self, eps: float, path: str) -> int:
    """eps as an integer of this format.

    Args:
      eps: the real eps.
      path: the norm's path, for the message.

    Returns:
      round(eps * 2^frac), at least 1.

    Raises:
      FormatError: eps rounds to zero, so that a zero row has no root, or
        leaves the format.
    """
    code = math.floor(eps * 2.0**self.frac + 0.5)
    if code < 1:
      raise FormatError(
        f"{path}: eps {eps:g} underflows at {self.frac} fraction bits (rounds"
        f" to 0); use eps >= {2.0 ** -(self.frac + 1):.2g} or more fraction"
        " bits"
      )
    if code >= 1 << self.bits:
      raise FormatError(
        f"{path}: eps {eps:g} is {code} at {self.frac} fraction bits and does"
        f" not fit {self.bits} bits; use fewer fraction bits"
      )
    return code


def symmetric_limit(bits: int) -> int:
  """Largest code of a signed symmetric format (docs/numerics.md, 1)."""
  return 32639 if bits == 16 else (1 << (bits - 1)) - 1


def frac_for(limit: float, bits: int) -> int:
  """Most fraction bits with limit * 2^frac at most the largest code.

  Args:
    limit: largest magnitude, >= 0.
    bits: width of the signed format.

  Returns:
    Fraction bits, -30 to 30; bits - 1 for a limit of 0.

  Raises:
    FormatError: the limit is not finite.
  """
  if not math.isfinite(limit):
    raise FormatError(f"a range must be finite; found {limit}")
  high = symmetric_limit(bits)
  if limit <= 0:
    return bits - 1
  # limit * 2^frac <= high, compared exactly by mantissa and exponent.
  (top, top_exp), (part, part_exp) = math.frexp(high), math.frexp(limit)
  frac = top_exp - part_exp - (part > top)
  return max(-30, min(frac, 30))


def round_to(x: np.ndarray, fmt: Format) -> np.ndarray:
  """Codes of real values in a format, on the host (docs/numerics.md, 5).

  Args:
    x: float[...].
    fmt: the format.

  Returns:
    float64[...] holding integers: clip(floor(x * 2^frac + 1/2), low, high).
  """
  q = np.floor(np.asarray(x, np.float64) * 2.0**fmt.frac + 0.5)
  return np.clip(q, fmt.low, fmt.high)


def mantissa(value: float) -> tuple[int, int]:
  """(m, e) with value close to m * 2^-e and 2^15 <= m < 2^16.

  Args:
    value: positive float.

  Returns:
    Multiplier m and exponent e (docs/numerics.md, 4).

  Raises:
    FormatError: the value is not positive or not finite.
  """
  if not (value > 0 and math.isfinite(value)):
    raise FormatError(f"a scale must be positive and finite; found {value}")
  fraction, exponent = math.frexp(value)
  mult = math.floor(fraction * 65536 + 0.5)
  return (mult, 16 - exponent) if mult < 65536 else (32768, 15 - exponent)
