"""Straight lines through measurements, with their uncertainty."""

import statistics
from collections.abc import Sequence

import numpy as np

from jaxnmc.errors import ConfigError

__all__ = ["fit"]


def _student(share: float, freedom: int) -> float:
  """Quantile of Student's t (Abramowitz & Stegun 26.7.5, four terms)."""
  z = statistics.NormalDist().inv_cdf(share)
  terms = (
    (z**3 + z) / 4,
    (5 * z**5 + 16 * z**3 + 3 * z) / 96,
    (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
  )
  return z + sum(t / freedom ** (k + 1) for k, t in enumerate(terms))


def fit(
  x: Sequence[float], y: Sequence[float], share: float = 0.95
) -> dict[str, float]:
  """Least squares of y = a + b x.

  The interval takes residuals as independent: where neighbours resemble each
  other (a drift, a staircase), it is too narrow.

  Args:
    x: n >= 4 places, not all equal.
    y: n values.
    share: confidence of the interval.

  Returns:
    "mean" of y; "slope" b per unit of x and half its interval "slope_error";
    "change", "change_low", "change_high": b and its interval over the whole
    range of x, in percent of |mean| (0 where the mean is 0).

  Raises:
    ConfigError: fewer than four points, or all at one place.
  """
  places, values = np.asarray(x, np.float64), np.asarray(y, np.float64)
  n = len(values)
  if n < 4 or len(places) != n or not np.ptp(places):
    raise ConfigError(
      f"a slope with its uncertainty needs at least four points at different"
      f" places; found {n}"
    )
  away = places - places.mean()
  spread = float(away @ away)
  mean = float(values.mean())
  slope = float(away @ (values - mean)) / spread
  rest = values - mean - slope * away
  error = float(np.sqrt(rest @ rest / (n - 2) / spread))
  half = _student((1 + share) / 2, n - 2) * error
  scale = 100 * float(np.ptp(places)) / abs(mean) if mean else 0.0
  return {
    "mean": mean,
    "slope": slope,
    "slope_error": half,
    "change": slope * scale,
    "change_low": (slope - half) * scale,
    "change_high": (slope + half) * scale,
  }
