"""jaxnmc: language models and neuromorphic chips, designed together.

Write a model once, as a pure JAX function over `ops`; then change only the
interpreter:

    reference(fn)           what does it compute?           float, trainable
    calibrate(fn)           which range does each site take?
    fake_quant(fn, plan)    what does a number format cost? float, trainable
    fixed(fn, plan)         which integers does the chip compute?
    spiking(fn, plan)       the same activations as spikes over ticks
    record(fn, plan, qp)    which nodes, sites and states is it?
    loihi(fn, plan, placement)   the same integers, on cores, with counters
"""

from jaxnmc import chip, models, quantize
from jaxnmc._version import __version__
from jaxnmc.chip.costs.cost import cost
from jaxnmc.chip.engines.loihi import loihi
from jaxnmc.chip.network import network
from jaxnmc.chip.placement.place import place
from jaxnmc.io.load import load
from jaxnmc.models.model import Model
from jaxnmc.ops.record import record
from jaxnmc.ops.transform import fake_quant, fixed, reference
from jaxnmc.quantize import calibrate, plan, quantize_params
from jaxnmc.spike.interpreter import spiking

__all__ = [
  "Model",
  "__version__",
  "calibrate",
  "chip",
  "cost",
  "fake_quant",
  "fixed",
  "load",
  "loihi",
  "models",
  "network",
  "place",
  "plan",
  "quantize",
  "quantize_params",
  "record",
  "reference",
  "spiking",
]
