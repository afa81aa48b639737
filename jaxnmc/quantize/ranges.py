"""Ranges from histograms: a percentile, or the one with the least error."""

import numpy as np

from jaxnmc.numerics.formats import frac_for, symmetric_limit
from jaxnmc.numerics.histogram import EDGES

# Free scales are tried at ranges this factor apart, down to this many octaves.
_STEPS_PER_OCTAVE = 8


def _bins(counts: np.ndarray, top: float):
  """(counts, low and high edges) of bins with something in them, up to top."""
  used = np.flatnonzero(counts)
  low, high = EDGES[used], np.minimum(EDGES[used + 1], max(top, EDGES[1]))
  # What is too small for a bin of its own counts as zero.
  high = np.where(used == 0, 0.0, np.maximum(high, low))
  return counts[used].astype(np.float64), low, high


def percentile(counts: np.ndarray, share: float, top: float) -> float:
  """The magnitude that `share` percent of the values do not exceed.

  Args:
    counts: int64[BINS] of `numerics.histogram`.
    share: percent, above 0 to 100.
    top: largest magnitude.

  Returns:
    The magnitude, linear within a bin (bins are 1/32 of an octave or less).
  """
  if share >= 100 or not counts.any():
    return top
  number, low, high = _bins(counts, top)
  below = np.cumsum(number)
  rank = share / 100 * below[-1]
  i = int(np.searchsorted(below, rank))
  part = (rank - (below[i] - number[i])) / number[i]
  return float(low[i] + part * (high[i] - low[i]))


def _rounding(t: np.ndarray) -> np.ndarray:
  """Integral of (u - round(u))^2 from 0 to t."""
  whole = np.floor(t + 0.5)
  return whole / 12 + (t - whole) ** 3 / 3


def square_error(counts: np.ndarray, limit: float, bits: int, top: float):
  """Mean square error of codes that cover +-limit.

  Values are taken as evenly spread within their bin.

  Args:
    counts: int64[BINS] of `numerics.histogram`.
    limit: value of the largest code.
    bits: width of the codes.
    top: largest magnitude.

  Returns:
    The error, in square real units.
  """
  number, low, high = _bins(counts, top)
  step = limit / symmetric_limit(bits)
  # Inside of the range: rounding; the bin that holds its end is cut there.
  a, b = np.minimum(low, limit), np.minimum(high, limit)
  inside = (_rounding(b / step) - _rounding(a / step)) * step**3
  over_a, over_b = np.maximum(low, limit) - limit, np.maximum(high - limit, 0)
  clipped = (over_b**3 - over_a**3) / 3
  width = high - low
  point = np.where(
    low > limit, (low - limit) ** 2, (low - step * np.round(low / step)) ** 2
  )
  error = np.where(
    width > 0, (inside + clipped) / np.where(width > 0, width, 1), point
  )
  return float((number * error).sum() / number.sum())


def least_error(counts: np.ndarray, bits: int, top: float, free: bool) -> float:
  """The range whose codes have the least mean square error.

  Args:
    counts: int64[BINS] of `numerics.histogram`.
    bits: width of the codes.
    top: largest magnitude.
    free: any scale; else powers of two.

  Returns:
    The value of the largest code; the wider range where two are equal.
  """
  if top <= 0 or not counts.any():
    return top
  most = symmetric_limit(bits)
  if free:
    steps = np.arange(_STEPS_PER_OCTAVE * bits)
    limits = top * 2.0 ** (-steps / _STEPS_PER_OCTAVE)
  else:
    limits = most * np.exp2(-(frac_for(top, bits) + np.arange(bits)))
  errors = [square_error(counts, limit, bits, top) for limit in limits]
  return float(limits[int(np.argmin(errors))])
