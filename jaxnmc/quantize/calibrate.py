"""Calibration: run the float model on data, keep every site's range."""

from collections.abc import Iterable

from jaxnmc.errors import PlanError
from jaxnmc.ops.transform import observe
from jaxnmc.quantize.stats import Stats


def calibrate(fn, histograms: bool = False, channels: bool = False):
  """Which range does each site take on real data?

  Args:
    fn: model function.
    histograms: also count how large the values of each site are, for rules
      that calibrate by percentile or mean square error; slower.
    channels: also keep the range of every channel, for scales per channel.

  Returns:
    `run(params, batches) -> Stats`; `params` is a pytree of float arrays (or
    `Ternary`), `batches` an iterable of inputs, each an input dict or an int32
    array of ids, [T] or [B, T].  It raises `PlanError` where no batch is given
    or a parameter is not used as it stands, and `TokenError` for inputs that
    the model cannot read.
  """

  def run(params, batches: Iterable) -> Stats:
    measure = observe(fn, histograms, channels)
    stats = None
    for batch in batches:
      inputs = batch if isinstance(batch, dict) else {"ids": batch}
      ranges, notes, counts, most = measure(params, inputs)
      now = Stats(ranges, notes, int(inputs["ids"].size), counts, most)
      stats = now if stats is None else stats.merge(now)
    if stats is None:
      raise PlanError("calibrate needs at least one batch; found none")
    return stats

  return run
