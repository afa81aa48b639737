"""How fast a run trains: tokens/s and the share of the peak, as it goes.

Only steps are timed: compiling, evaluation and checkpoints are not. The time
is that from one look at the results to the next, since steps are dispatched
ahead of the device.
"""

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from jaxnmc.train import products
from jaxnmc.train.compiled import Compiled

_log = logging.getLogger(__name__)


class Meter:
  """Times the steps of one run; all its figures are measured."""

  def __init__(
    self, step_fn: Compiled, mesh: Mesh, dtype: str, tokens: int
  ) -> None:
    """Takes what is timed.

    Args:
      step_fn: the step; it counts its compilations and operations.
      mesh: devices.
      dtype: of the operands of the products.
      tokens: ids of one step.
    """
    self._step_fn, self._mesh, self._dtype = step_fn, mesh, dtype
    self._tokens = tokens
    self._peak: float | None = None
    self._mark, self._pending = time.monotonic(), 0
    self._seconds, self._steps = 0.0, 0

  def start(self, *args) -> dict[str, Any]:
    """Compiles the step for its arguments and measures the peak.

    Args:
      *args: of the first step; not used up.

    Returns:
      What the log should hold: dtype, operations of a step and where the
      number is from, compile time, peak.
    """
    self._step_fn.prepare(*args)
    rates = {d: products.peak(d, self._mesh) for d in (self._dtype, "float32")}
    self._peak = rates[self._dtype]
    wide = rates["float32"]
    if self._peak < wide:
      _log.warning(
        "products in %s reach %.0f GFLOP/s here, in float32 %.0f (measured);"
        " --dtype float32 is faster on this machine",
        *(self._dtype, self._peak / 1e9, wide / 1e9),
      )
    self._mark = time.monotonic()
    compiled = self._step_fn.compilations[-1]
    return {
      "dtype": self._dtype,
      "step_flops": compiled.flops,
      "compile_s": round(compiled.seconds, 2),
      "peak_flops_per_s": {d: round(rate) for d, rate in rates.items()},
    }

  def stepped(self) -> None:
    """A step has been dispatched."""
    self._pending += 1

  def read(self) -> dict[str, Any]:
    """The speed since the last look; call it when results have been read.

    Returns:
      {"tokens_per_s", "mfu"}, and "compilations" with the reason of the last
      one if there was more than one.
    """
    now = time.monotonic()
    seconds, steps = max(now - self._mark, 1e-9), self._pending
    self._mark, self._pending = now, 0
    self._seconds, self._steps = self._seconds + seconds, self._steps + steps
    found = self._speed(seconds, steps)
    made = self._step_fn.compilations
    if len(made) > 1:
      found |= {"compilations": len(made), "compiled_for": made[-1].reason}
    return found

  @contextlib.contextmanager
  def paused(self, results: Any) -> Iterator[None]:
    """Leaves out what happens inside, and steps not looked at before.

    Args:
      results: of the last step; waited for.
    """
    jax.block_until_ready(results)
    yield
    self._mark, self._pending = time.monotonic(), 0

  def summary(self) -> dict[str, Any]:
    """Of all timed steps; None where none was.

    Returns:
      {"step_tokens_per_s", "mfu", "dtype", "compilations",
      "peak_flops_per_s"}, all measured.
    """
    found: dict[str, Any] = {"tokens_per_s": None, "mfu": None}
    if self._steps:
      found = self._speed(self._seconds, self._steps)
    return {
      "step_tokens_per_s": found["tokens_per_s"],
      "mfu": found["mfu"],
      "dtype": self._dtype,
      "compilations": len(self._step_fn.compilations),
      "peak_flops_per_s": None if self._peak is None else round(self._peak),
      "labels": {
        "step_tokens_per_s": "measured",
        "mfu": "measured",
        "peak_flops_per_s": "measured",
      },
    }

  def _speed(self, seconds: float, steps: int) -> dict[str, Any]:
    made = self._step_fn.compilations
    flops = made[-1].flops if made else None
    mfu = None
    if flops is not None and self._peak is not None:
      mfu = round(flops * steps / seconds / self._peak, 4)
    return {
      "tokens_per_s": round(self._tokens * steps / seconds, 1),
      "mfu": mfu,
    }
