"""Neurons of NIR in one form, Euler's steps of their equations.

    u' = (1 - ks) u + gain x            ks = dt / tau_syn, 1 without a current
    v' = (1 - km) v + u' + bias         km = dt / tau_mem, 0 without a leak
    s = v' > threshold;  v' = 0 where s

The origin of v is v_reset, so that a reset is to 0:

    LIF      gain = km R, bias = km (v_leak - v_reset)
    CubaLIF  gain = ks w_in km R, bias as LIF
    IF       gain = R dt, bias = 0
    LI, CubaLI, I: the same without a threshold;  Threshold: s = x > threshold

A first voltage of 0 is v = -v_reset.  Source: the docstrings of the nodes in
the `nir` package.
"""

import dataclasses
from typing import Any

import numpy as np

from jaxnmc.errors import ConfigError

FIRES = ("LIF", "CubaLIF", "IF")
INTEGRATES = ("LI", "CubaLI", "I")
BARE = ("Threshold",)
CELLS = (*FIRES, *INTEGRATES, *BARE)

__all__ = ["BARE", "CELLS", "FIRES", "INTEGRATES", "Cell", "cell"]


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
  """A node of neurons in the form of this file's head.

  Attributes:
    name: of the node.
    kind: its type.
    size: neurons; None if its parameters are single numbers.
    ks: loss of the current in a step, over 0 to 1.
    km: loss of the voltage in a step, 0 to 1.
    gain: float[n], what an input of 1 adds to the current.
    bias: float[n], what every step adds to the voltage.
    threshold: float[n]; None where it never fires.
    start: float[n], first voltage.
  """

  name: str
  kind: str
  size: int | None
  ks: float
  km: float
  gain: np.ndarray
  bias: np.ndarray
  threshold: np.ndarray | None
  start: np.ndarray

  def sized(self, n: int) -> "Cell":
    """With arrays of n, where the node's parameters are single numbers."""
    wide = lambda x: np.broadcast_to(x, n).copy()
    threshold = self.threshold
    return dataclasses.replace(
      self,
      size=n,
      gain=wide(self.gain),
      bias=wide(self.bias),
      threshold=None if threshold is None else wide(threshold),
      start=wide(self.start),
    )


def cell(name: str, node: Any, dt: float) -> Cell:
  """A node of neurons in normal form.

  Args:
    name: its name.
    node: of a type in `CELLS`.
    dt: seconds of a step.

  Raises:
    ConfigError: parameters that are not finite, a time constant below a step
      or different ones in a node, thresholds that nothing reaches from below.
  """
  kind = type(node).__name__

  def get(field: str) -> np.ndarray:
    value = np.asarray(getattr(node, field), np.float64).reshape(-1)
    if not np.isfinite(value).all():
      raise ConfigError(
        f"NIR node {name} ({kind}): {field} has values that are not finite;"
        " allowed are real numbers"
      )
    return value

  def rate(field: str) -> float:
    tau = get(field)
    if np.ptp(tau) > 1e-9 * abs(tau).max():
      raise ConfigError(
        f"NIR node {name} ({kind}): {field} runs from {tau.min():g} to"
        f" {tau.max():g}; a population has one decay, so the differences would"
        " be lost; use a node for each value"
      )
    if tau[0] < dt * (1 - 1e-9):
      raise ConfigError(
        f"NIR node {name} ({kind}): {field} is {tau[0]:g}, less than a step of"
        f" {dt:g}; allowed is at least dt"
      )
    return min(1.0, dt / float(tau[0]))

  if kind in BARE:
    level = get("threshold")
    one, zero = np.ones_like(level), np.zeros_like(level)
    size = level.size if np.shape(node.threshold) else None
    return Cell(name, kind, size, 1.0, 1.0, one, zero, level, zero)
  gain, size = get("r"), np.size(node.r)
  ks, km = 1.0, 0.0
  rest = np.zeros_like(gain)
  if kind in ("IF", "I"):
    gain = gain * dt
  else:
    km = rate("tau_mem" if kind.startswith("Cuba") else "tau")
    gain = gain * km
    rest = get("v_leak")
  if kind.startswith("Cuba"):
    ks = rate("tau_syn")
    gain = gain * ks * get("w_in")
  threshold = None
  reset = np.zeros_like(gain)
  if kind in FIRES:
    if node.v_reset is not None:
      reset = get("v_reset")
    threshold = get("v_threshold") - reset
    if (threshold < 0).any():
      raise ConfigError(
        f"NIR node {name} ({kind}): v_threshold is below v_reset, so it would"
        " fire for ever; allowed is a threshold from v_reset"
      )
  bias = km * (rest - reset)
  known = size if np.shape(node.r) else None
  return Cell(name, kind, known, ks, km, gain, bias, threshold, -reset)
