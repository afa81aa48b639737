"""Networks of stock or user-written neurons, recurrent ones too.

A language model is recorded and placed as a graph whose tokens flow one way
(`jaxnmc.chip.network`).  A circuit is written down by hand: populations of
`jaxnmc.chip.neurons` joined by `jaxnmc.chip.synapses.lava`, which step
together, whatever the loops.  Placement, counters and costs are the same.
"""

from jaxnmc.chip.circuits.circuit import Circuit, Connection, Input, Population
from jaxnmc.chip.circuits.engine import Run, run

__all__ = ["Circuit", "Connection", "Input", "Population", "Run", "run"]
