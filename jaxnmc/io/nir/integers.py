"""Neurons and synapses of an import, and what of them had to be rounded."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnmc.chip import neurons
from jaxnmc.chip.circuits import Connection
from jaxnmc.chip.synapses.lava import Dense, Sparse
from jaxnmc.errors import ConfigError
from jaxnmc.io.nir import cells, quantise
from jaxnmc.io.nir.cells import Cell
from jaxnmc.io.nir.notes import Report

__all__ = ["Integers", "Wire"]


@dataclasses.dataclass(eq=False)
class Wire:
  """A connection under construction.

  Attributes:
    source: an Input or population.
    target: a population.
    groups: steps of delay -> float[out, in], gains included.
  """

  source: str
  target: str
  groups: dict[int, np.ndarray]


class Integers:
  """Rounds, by `quantise`, and reports it.

  Attributes:
    unit: of all populations; None: each gets its own.
    largest: Input -> the largest number that it sends.
    report: where losses go.
  """

  def __init__(self, unit: float | None, largest: Mapping[str, int], report):
    self.unit, self.largest = unit, largest
    self.report: Report = report

  def _reach(self, wires: list[Wire]) -> float:
    """The largest |gain x| that wires bring in a step."""
    total = 0.0
    for wire in wires:
      rows = sum(np.abs(m).sum(1) for m in wire.groups.values())
      total += float(np.max(rows)) * self.largest.get(wire.source, 1)
    return total

  def neuron(
    self, name: str, cell: Cell | None, wires: list[Wire]
  ) -> tuple[Any, float, float]:
    """The neuron of a population.

    Args:
      name: of the population.
      cell: its node; None for an Output that reads sums.
      wires: what it receives.

    Returns:
      (the neuron, its unit, the real value of a message of 1).

    Raises:
      ConfigError: a threshold that does not fit the unit.
    """
    if cell is None or cell.kind in cells.BARE:
      peaks = [max(np.abs(m).max() for m in w.groups.values()) for w in wires]
      least = min((p for p in peaks if p), default=0.0)
      unit = self.unit or quantise.power_of_two(least / 254)
      if cell is None or cell.threshold is None:
        return neurons.GradedVec(vth=0), unit, unit
      vth = _below(cell.threshold[0] / unit)
      return neurons.Threshold(vth=vth), unit, 1.0
    reach = self._reach(wires)
    unit = self.unit or quantise.unit_of(cell, reach)
    if reach / cell.ks / unit > quantise.CURRENT:
      self.report.lose(
        name,
        cell.kind,
        "a current of more than 24 bits wraps; a larger unit rules it out",
      )
    du, dv = quantise.decays(cell)
    self._off(name, cell.kind, "the decay of the current", cell.ks, (du + 1))
    self._off(name, cell.kind, "the decay of the voltage", cell.km, dv)
    mant, exp, held = quantise.bias_words(cell.bias, unit)
    worst = float(np.abs(held - cell.bias).max(initial=0))
    if worst > 1e-9 * float(np.abs(cell.bias).max(initial=0)):
      self.report.lose(
        name, cell.kind, f"the bias is rounded, by up to {worst:.3g}"
      )
    same = not np.ptp(mant) and not np.ptp(exp)
    words: dict[str, Any] = {
      "du": du,
      "dv": dv,
      "bias_mant": int(mant[0]) if same else tuple(mant.tolist()),
      "bias_exp": int(exp[0]) if same else tuple(exp.tolist()),
    }
    if cell.threshold is None:
      return neurons.LeakyIntegrator(**words), unit, unit / quantise.FINER
    exact = float(cell.threshold[0]) / unit
    vth = int(np.rint(exact))
    if vth > 2**17 - 1:
      raise ConfigError(
        f"NIR node {name} ({cell.kind}): the threshold is {vth} units of"
        f" {unit:g}; allowed are {2**17 - 1}; give a larger unit, or none"
      )
    if abs(exact - vth) > 1e-9 * max(exact, 1.0):
      self.report.lose(
        name,
        cell.kind,
        f"the threshold is {vth * unit:g} instead of {exact * unit:g}",
      )
    return neurons.LIF(vth=vth, **words), unit, 1.0

  def _off(self, name, kind, what: str, real: float, whole: int) -> None:
    if abs(real - whole / quantise.ONE) > 1e-9:
      self.report.lose(
        name, kind, f"{what} is {whole}/{quantise.ONE} instead of {real:.6g}"
      )

  def connections(self, wire: Wire, unit: float) -> list[Connection]:
    """Synapses of a wire: one connection if each weight has one delay.

    Raises:
      ConfigError: weights too large for the unit.
    """
    delays = sorted(wire.groups)
    stack = np.stack([wire.groups[d] for d in delays]) / unit
    used = (stack != 0).sum(0)
    if used.max() > 1:
      parts = [
        Wire(wire.source, wire.target, {d: wire.groups[d]}) for d in delays
      ]
      return [c for part in parts for c in self.connections(part, unit)]
    label = f"{wire.source} -> {wire.target}"
    whole, exp = quantise.matrix(stack)
    if exp > 31:
      raise ConfigError(
        f"NIR connection {label}: its largest weight is"
        f" {np.abs(stack).max() * unit:g}, {2.0**exp:g} units of {unit:g} and"
        " more; give a larger unit, or none"
      )
    error = np.abs(stack - whole * 2.0**exp)
    top = np.abs(stack).max()
    off = error > 1e-9 * top
    if off.any():
      self.report.lose(
        label,
        "weights",
        f"{int(off.sum())} of {used.size} are rounded, by up to"
        f" {error.max() * unit:.3g} ({error.max() / top:.2%} of the largest)",
      )
    most = self.largest.get(wire.source, 1)
    rule: dict[str, Any] = {
      "weight_exp": exp,
      "num_message_bits": most.bit_length() + 1 if most > 1 else 0,
    }
    mantissas = whole.sum(0)
    if delays == [0] or not mantissas.any():
      synapse: Dense | Sparse = Dense.of(mantissas, **rule)
    else:
      steps = np.tensordot(np.array(delays), (whole != 0).astype(int), 1)
      synapse = Sparse.from_dense(mantissas, steps, **rule)
    return [Connection(wire.source, wire.target, synapse)]


def _below(x: float) -> int:
  """The largest whole number up to x: sums are whole, so it is as good."""
  near = round(x)
  return near if abs(x - near) <= 1e-9 * max(1.0, abs(x)) else math.floor(x)
