"""Calibration: run the float model on data, keep every site's range."""

from collections.abc import Iterable

from jaxnmc.errors import PlanError
from jaxnmc.ops.transform import observe
from jaxnmc.quantize.stats import Stats


def calibrate(fn):
  """Which range does each site take on real data?

  Args:
    fn: model function.

  Returns:
    `run(params, batches) -> Stats`; `batches` is an iterable of inputs, each
    an input dict or an int32 array of ids, [T] or [B, T].

  Raises:
    PlanError: no batch was given.
  """

  def run(params, batches: Iterable) -> Stats:
    measure = observe(fn)
    stats = None
    for batch in batches:
      inputs = batch if isinstance(batch, dict) else {"ids": batch}
      ranges, notes = measure(params, inputs)
      now = Stats(ranges, notes, int(inputs["ids"].size))
      stats = now if stats is None else stats.merge(now)
    if stats is None:
      raise PlanError("calibrate needs at least one batch; found none")
    return stats

  return run
