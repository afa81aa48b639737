"""The machine: hardware, network, placement, engines, counters, costs."""

from jaxnmc.chip.counters import Counters
from jaxnmc.chip.hardware import Hardware, loihi2
from jaxnmc.chip.network import Network
from jaxnmc.chip.systems import system
from jaxnmc.chip.tiles import Placement, Tile

__all__ = [
  "Counters",
  "Hardware",
  "Network",
  "Placement",
  "Tile",
  "loihi2",
  "system",
]
