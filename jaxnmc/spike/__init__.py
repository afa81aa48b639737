"""Spiking neurons, surrogate gradients, spike codes and spiking attention.

`surrogates`, `neurons` (IF, LIF), `signed` (ST-BIF), `cuba` and `delayed`
(neurons of SLAYER and snnTorch), `codes`, `qcfs` and `thresholds` (conversion),
`temporal` (differences), `attention`, `ssa`, `sdsa`, `norms`, and `energy`.
`readout` makes a token of ticks.  `interpreter` runs a whole model as spikes
(`jaxnmc.spiking`), `traffic` says what it sent.
"""

from jaxnmc.spike.cuba import CubaLIF
from jaxnmc.spike.delayed import DelayedLIF
from jaxnmc.spike.neurons import IF, LIF, constant, run, trace
from jaxnmc.spike.signed import STBIF
from jaxnmc.spike.ssa import SSA, attend
from jaxnmc.spike.surrogates import Surrogate, heaviside, surrogate

__all__ = [
  "IF",
  "LIF",
  "SSA",
  "STBIF",
  "CubaLIF",
  "DelayedLIF",
  "Surrogate",
  "attend",
  "constant",
  "heaviside",
  "run",
  "surrogate",
  "trace",
]
