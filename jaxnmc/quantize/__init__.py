"""Statistics to plan, plan to integer parameters."""

from jaxnmc.numerics.float_formats import Float, Scaled
from jaxnmc.numerics.formats import Format, NormFormat
from jaxnmc.numerics.sigmoid import SigmoidTable
from jaxnmc.quantize.calibrate import calibrate
from jaxnmc.quantize.choose import adjust, plan
from jaxnmc.quantize.params import (
  QParams,
  memory_bytes,
  plan_bytes,
  quantize_params,
)
from jaxnmc.quantize.plan import Plan
from jaxnmc.quantize.presets import (
  A8,
  A16,
  FP16,
  PT,
  W8,
  W8A8,
  W8A16,
  Preset,
  paper,
)
from jaxnmc.quantize.rules import Rule
from jaxnmc.quantize.show import diff
from jaxnmc.quantize.stats import Stats

__all__ = [
  "A8",
  "A16",
  "FP16",
  "PT",
  "W8",
  "W8A8",
  "W8A16",
  "Float",
  "Format",
  "NormFormat",
  "Plan",
  "Preset",
  "QParams",
  "Rule",
  "Scaled",
  "SigmoidTable",
  "Stats",
  "adjust",
  "calibrate",
  "diff",
  "memory_bytes",
  "paper",
  "plan",
  "plan_bytes",
  "quantize_params",
]
