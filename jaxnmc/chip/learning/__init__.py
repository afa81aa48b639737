"""Learning on the cores, in integers (docs/learning.md).

`tune` learns examples with a last layer by the delta rule; `Learner` does so on
the tiles of a placed network; `ThreeFactor` is the general form of local rules,
`stdp` one of them.
"""

from jaxnmc.chip.learning import stdp
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
from jaxnmc.chip.learning.three_factor import Term, ThreeFactor, Trace
from jaxnmc.chip.learning.tiles import Learner
from jaxnmc.chip.learning.tune import Log, accuracy, tune

__all__ = [
  "Counts",
  "Delta",
  "Formats",
  "Head",
  "Learner",
  "Log",
  "Term",
  "ThreeFactor",
  "Trace",
  "accuracy",
  "energy",
  "from_model",
  "into_model",
  "logits",
  "predict",
  "stdp",
  "tune",
]
