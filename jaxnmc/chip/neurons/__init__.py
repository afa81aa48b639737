"""Neurons: the stock ones, bit for bit those of Lava, and your own.

See docs/neurons.md; `define` makes a neuron of a function over `ops`.  A
neuron is a frozen dataclass of static parameters with

    init(n) -> state                        pytree of int32[n]
    step(state, inputs) -> (state, message) inputs: a tuple, int32[n] per port
    overflows(state, inputs) -> bool[n]     where the step is not exact

all pure and in int32 (no float, no int64, no division), so that `jit`, `vmap`
and `lax.scan` over time apply.  `ports` names the inputs.  `sends`, the largest
|message|, and `takes`, the largest |input| with which no step overflows
whatever the state, tell what needs no check while a circuit runs; a neuron
without them is checked in every step.
"""

from jaxnmc.chip.neurons.define import define
from jaxnmc.chip.neurons.graded import (
  GradedReluVec,
  GradedVec,
  InvSqrt,
  NormVecDelay,
)
from jaxnmc.chip.neurons.lif import LIF, LIFReset, TernaryLIF
from jaxnmc.chip.neurons.plain import LeakyIntegrator, Threshold
from jaxnmc.chip.neurons.product import ProdNeuron
from jaxnmc.chip.neurons.resonate import RF, RFIzhikevich
from jaxnmc.chip.neurons.sigma_delta import Delta, SigmaDelta

__all__ = [
  "LIF",
  "RF",
  "Delta",
  "GradedReluVec",
  "GradedVec",
  "InvSqrt",
  "LIFReset",
  "LeakyIntegrator",
  "NormVecDelay",
  "ProdNeuron",
  "RFIzhikevich",
  "SigmaDelta",
  "TernaryLIF",
  "Threshold",
  "define",
]
