"""Loihi 1, TrueNorth and Akida beside Loihi 2: what is public, with sources.

Only for comparison (`jaxnmc.report.chips`): nothing is placed on these.  A
value of None is not public, or was not found; it is not checked.  "Read in"
names the text in which a paper's number was seen, "recalled" says that no text
was found that has it.
"""

import dataclasses
import types
from collections.abc import Mapping

from jaxnmc.chip.hardware import LOIHI2_FACTS, Fact

__all__ = ["CHIPS", "Chip"]

_DAVIES = "Davies et al. 2018, IEEE Micro 38(1)"
_NENGO = "nengo-loihi, block.py"
_MEROLLA = "Merolla et al. 2014, Science 345:668"
_REVIEW = "review, IEEE Circuits and Systems Magazine 2022 Q2, p. 18"
_SENECA = "Tang et al. 2023, Front. Neurosci. 17, Table 3"
_BRAINCHIP = "BrainChip, MetaTF documentation, overview"
_IVANOV = "Ivanov et al. 2022, Front. Neurosci., 3.8"
_OPEN = "open-neuromorphic.org, Akida at a glance"


@dataclasses.dataclass(frozen=True)
class Chip:
  """A chip in the few numbers that all makers publish.

  Attributes:
    name: its name.
    cores: per chip.
    neurons: per core.
    synapse_bits: memory of synapses of a core, bit.
    weight_bits: of a stored weight, at most.
    weight_values: different weights that a neuron may have; None: any.
    message_bits: of what a neuron sends; 1: spikes only.
    axons_in: inputs of a core.
    synop_j: J per synaptic event.
    runs: what else bounds it, in words; "" for nothing.
  """

  name: str
  cores: Fact
  neurons: Fact
  synapse_bits: Fact
  weight_bits: Fact
  weight_values: Fact
  message_bits: Fact
  axons_in: Fact
  synop_j: Fact
  runs: str = ""


def _unknown(unit: str, why: str = "not published") -> Fact:
  return Fact(None, unit, why, "unknown")


def _any() -> Fact:
  return _unknown("weights", "no such limit")


_L2 = LOIHI2_FACTS
_UNITS = _L2["synapse_units"]
_LOIHI2 = Chip(
  "Loihi 2",
  _L2["cores_per_chip"],
  _L2["neurons_per_core"],
  Fact(
    12000 * 64,
    "bit",
    f"12,000 units of 64 bits; {_UNITS.source}",
    "inferred",
  ),
  _L2["weight_bits_max"],
  _any(),
  _L2["message_bits"],
  _L2["axons_in_per_core"],
  _L2["synop_j"],
)
_LOIHI1 = Chip(
  "Loihi 1",
  Fact(128, "cores", _DAVIES),
  Fact(1024, "neurons", f"{_DAVIES}; {_NENGO}"),
  Fact(16384 * 64, "bit", f"16,384 words of 64 bits; {_NENGO}"),
  Fact(
    8,
    "bit",
    "nengo-loihi, WEIGHT_BITS_MAP",
    "quoted",
    ((9, f"1 to 9 with the sign, {_DAVIES} (recalled)"),),
  ),
  _any(),
  Fact(1, "bit", f"binary events; {_SENECA}"),
  Fact(4096, "axons", _NENGO),
  Fact(23.6e-12, "J", f"{_DAVIES}, Table 2, before silicon; read in {_SENECA}"),
)
_TRUENORTH = Chip(
  "TrueNorth",
  Fact(4096, "cores", _MEROLLA),
  Fact(256, "neurons", _REVIEW),
  Fact(256 * 256, "bit", f"a crossbar of 256 x 256 bits; {_REVIEW}"),
  Fact(1, "bit", f"a synapse is there or not; {_REVIEW}"),
  Fact(
    4,
    "weights",
    f"a neuron has one for each of 4 types of axons, of 8 bits; {_REVIEW}",
  ),
  Fact(1, "bit", f"spikes; {_REVIEW}"),
  Fact(256, "axons", _REVIEW),
  Fact(
    26e-12,
    "J",
    f"{_MEROLLA}, measured: all power of the chip, also what it draws at rest,"
    " by events, at 20 Hz and 128 synapses of a neuron; read in texts that"
    " quote it",
    "quoted",
    ((2.5e-12, f"Akopyan et al. 2015; read in {_SENECA}"),),
  ),
)
_AKIDA = Chip(
  "Akida AKD1000",
  Fact(80, "neural processing units", _BRAINCHIP),
  Fact(15000, "neurons", f"1.2 M neurons / 80; {_IVANOV}", "derived"),
  Fact(
    8e6 * 8 / 80,
    "bit",
    f"8 MB / 80, if parted evenly and if all of it is weights; {_OPEN}",
    "derived",
  ),
  Fact(4, "bit", f"1, 2 or 4; 8 from the second generation on; {_OPEN}"),
  _any(),
  Fact(4, "bit", f"1, 2 or 4; {_OPEN}"),
  _unknown("axons"),
  _unknown("J"),
  "convolutions and dense layers only (Ivanov 2022)",
)
CHIPS: Mapping[str, Chip] = types.MappingProxyType(
  {chip.name: chip for chip in (_LOIHI2, _LOIHI1, _TRUENORTH, _AKIDA)}
)
