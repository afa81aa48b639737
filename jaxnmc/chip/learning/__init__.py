"""Learning on the cores, in integers (docs/learning.md).

`tune` learns examples with a last layer by the delta rule.
"""

from jaxnmc.chip.learning.counts import Counts, energy
from jaxnmc.chip.learning.delta import Delta
from jaxnmc.chip.learning.head import (
  Formats,
  Head,
  from_model,
  into_model,
  logits,
  predict,
)
from jaxnmc.chip.learning.tune import Log, accuracy, tune

__all__ = [
  "Counts",
  "Delta",
  "Formats",
  "Head",
  "Log",
  "accuracy",
  "energy",
  "from_model",
  "into_model",
  "logits",
  "predict",
  "tune",
]
