"""Statistics to plan, plan to integer parameters."""

from jaxnmc.numerics.formats import Format, NormFormat
from jaxnmc.numerics.sigmoid import SigmoidTable
from jaxnmc.quantize.calibrate import calibrate
from jaxnmc.quantize.params import QParams, memory_bytes, quantize_params
from jaxnmc.quantize.plan import Plan, plan
from jaxnmc.quantize.presets import W8A8, W8A16, Preset
from jaxnmc.quantize.stats import Stats

__all__ = [
  "W8A8",
  "W8A16",
  "Format",
  "NormFormat",
  "Plan",
  "Preset",
  "QParams",
  "SigmoidTable",
  "Stats",
  "calibrate",
  "memory_bytes",
  "plan",
  "quantize_params",
]
