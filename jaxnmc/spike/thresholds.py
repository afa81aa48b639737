"""Thresholds of converted neurons from the activations they must carry.

A threshold lambda clips what is above it and, over T ticks, rounds to steps of
lambda / T.  With an even spread within a step the mean square error is

    C(lambda) + lambda^2 / (12 T^2),    C(lambda) = E[(z - lambda)_+^2]

so a large threshold is coarse and a small one clips.  Everything here runs on
the host in float64, before a network is converted.
"""

import numpy as np

from jaxnmc.errors import ConfigError
from jaxnmc.spike import checks

__all__ = ["clipping_error", "least_error", "maximum", "percentile"]

BINS = 512


def _rows(z, per_channel: bool, signed: bool) -> np.ndarray:
  """Magnitudes, float64[channels or 1, values]."""
  z = np.asarray(z, np.float64)
  if not z.size:
    raise ConfigError(
      "thresholds: the calibration set is empty; give at least one value per"
      " channel"
    )
  if not np.isfinite(z).all():
    bad = z[~np.isfinite(z)].flat[0]
    raise ConfigError(
      f"thresholds: the calibration set holds {bad}; allowed are finite values"
    )
  z = np.abs(z) if signed else np.maximum(z, 0)
  if not (z > 0).any():
    raise ConfigError(
      "thresholds: no value of the calibration set is above 0, so no threshold"
      " fits; check the layer, or take signed neurons for negative values"
    )
  if per_channel and z.ndim:
    return z.reshape(-1, z.shape[-1]).T
  return z.reshape(1, -1)


def _per_row(choose, z, per_channel: bool, signed: bool) -> np.ndarray:
  """choose(magnitudes of a row, not all 0) for each row; [] or [channels].

  A channel that never went above 0 is silent with any threshold, and gets that
  of all channels together.
  """
  rows = _rows(z, per_channel, signed)
  found = [choose(row) if row.max() > 0 else 0.0 for row in rows]
  if min(found) <= 0:
    whole = choose(rows.reshape(-1))
    if whole <= 0:
      raise ConfigError(
        f"thresholds: the one asked for is {whole:g}, as most values are not"
        " above 0; ask for a higher percentile"
      )
    found = [f if f > 0 else whole for f in found]
  return np.asarray(found if per_channel else found[0])


def maximum(z, *, per_channel: bool = False, signed: bool = False):
  """The largest value: nothing is clipped, and outliers make coarse steps.

  Args:
    z: float[..., channels], activations of a calibration set.
    per_channel: one threshold per index of the last axis.
    signed: by magnitude, for signed neurons; else negative values count as 0.

  Returns:
    float64[] or float64[channels], above 0.

  Raises:
    ConfigError: an empty set, a value that is not finite, or nothing above 0.
  """
  return _per_row(np.max, z, per_channel, signed)


def percentile(
  z, share: float, *, per_channel: bool = False, signed: bool = False
):
  """The value that `share` percent of the activations do not exceed.

  Args:
    z: as in `maximum`.
    share: above 0 to 100; linear between two values.
    per_channel: as in `maximum`.
    signed: as in `maximum`.

  Returns:
    float64[] or float64[channels], above 0.

  Raises:
    ConfigError: as `maximum`; a share outside its range; fewer values (of each
      channel) than tell this percentile from the maximum, 100 / (100 - share).
  """
  if not 0 < share <= 100:
    raise ConfigError(
      f"thresholds: the percentile is {share!r}; allowed are numbers above 0 up"
      " to 100"
    )
  values = _rows(z, per_channel, signed).shape[1]
  # 100 - 99.9 is a little more or less than 0.1 in binary.
  needed = 1 if share == 100 else int(np.ceil(100 / (100 - share) - 1e-6))
  if values < needed:
    raise ConfigError(
      f"thresholds: the calibration set has {values} values"
      f"{' per channel' if per_channel else ''}; percentile {share:g} needs at"
      f" least {needed}: calibrate on more, or ask for a lower percentile"
    )
  choose = lambda row: float(np.percentile(row, share))
  return _per_row(choose, z, per_channel, signed)


def clipping_error(z, threshold: float, *, signed: bool = False) -> float:
  """C(lambda), the mean square of what is above a threshold.

  Args:
    z: float[...].
    threshold: lambda.
    signed: of magnitudes.
  """
  checks.positive("clipping_error", "threshold", threshold)
  z = np.asarray(z, np.float64)
  z = np.abs(z) if signed else z
  return float(np.mean(np.maximum(z - threshold, 0) ** 2))


def _search(row: np.ndarray, ticks: int) -> float:
  """The least of C + lambda^2 / (12 T^2) on a grid of 512 thresholds."""
  grid = row.max() * np.arange(1, BINS + 1) / BINS
  # Number, sum and square sum of the values above each threshold.
  ordered = np.sort(row)
  first = np.searchsorted(ordered, grid, side="right")
  after = lambda a: (np.concatenate([a[::-1].cumsum()[::-1], [0]]))[first]
  number = len(row) - first
  square = after(ordered**2) - 2 * grid * after(ordered) + number * grid**2
  error = square / len(row) + grid**2 / (12 * ticks**2)
  return float(grid[np.argmin(error)])


def least_error(
  z, ticks: int, *, per_channel: bool = False, signed: bool = False
):
  """The threshold with the least error of clipping and rounding together.

  The best of 512 evenly spaced thresholds up to the maximum.

  Args:
    z: as in `maximum`.
    ticks: T, the steps that a threshold is cut into.
    per_channel: as in `maximum`.
    signed: as in `maximum`.

  Returns:
    float64[] or float64[channels], above 0.

  Raises:
    ConfigError: as `maximum`; ticks below 1.
  """
  ticks = checks.ticks("thresholds", ticks)
  return _per_row(lambda row: _search(row, ticks), z, per_channel, signed)
