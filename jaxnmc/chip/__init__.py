"""The machine: hardware, network, placement, engines, counters, costs."""

from jaxnmc.chip.constants import Constants, constants_of, vary
from jaxnmc.chip.counters import Counters
from jaxnmc.chip.fitting import Row, fit_costs
from jaxnmc.chip.hardware import Hardware, loihi2
from jaxnmc.chip.network import Network
from jaxnmc.chip.pricing import price
from jaxnmc.chip.systems import system
from jaxnmc.chip.tiles import Placement, Tile
from jaxnmc.chip.work import work_of

__all__ = [
  "Constants",
  "Counters",
  "Hardware",
  "Network",
  "Placement",
  "Row",
  "Tile",
  "constants_of",
  "fit_costs",
  "loihi2",
  "price",
  "system",
  "vary",
  "work_of",
]
