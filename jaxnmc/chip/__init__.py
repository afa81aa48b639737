"""The machine: hardware, network, placement, engines, counters, costs."""

from jaxnmc.chip.costs.constants import Constants, constants_of, vary
from jaxnmc.chip.costs.fitting import Row, fit_costs
from jaxnmc.chip.costs.pricing import price
from jaxnmc.chip.costs.work import work_of
from jaxnmc.chip.counting.counters import Counters
from jaxnmc.chip.hardware import Hardware, loihi2
from jaxnmc.chip.network import Network
from jaxnmc.chip.placement.tiles import Placement, Tile
from jaxnmc.chip.systems import system

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
