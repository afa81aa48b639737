"""Energies of single operations, in picojoule: quoted, each with its source."""

import dataclasses

_HOROWITZ = (
  "Horowitz, Computing's energy problem, ISSCC 2014: 45 nm, 0.9 V, rough"
)
_SANA_FE = "constants of the SANA-FE simulator for Loihi 1"


@dataclasses.dataclass(frozen=True)
class Convention:
  """Energy of arithmetic in one number format.

  Attributes:
    name: of the format.
    bits: of a value.
    add: one addition, pJ.
    multiply: one multiplication, pJ.
    source: where the two come from.
    label: what kind of figures they are.
  """

  name: str
  bits: int
  add: float
  multiply: float
  source: str = _HOROWITZ
  label: str = "quoted"

  @property
  def mac(self) -> float:
    """One multiply-accumulate, pJ: a multiplication and an addition."""
    return self.multiply + self.add


@dataclasses.dataclass(frozen=True)
class Memory:
  """Energy of moving data; a write costs what a read costs (assumed).

  Attributes:
    name: of the memory.
    word: a read of 64 bits, pJ.
    state_bits: of a membrane potential.
    sum_bits: of a score, at most d, or an entry of a running sum, at most N.
    address_bits: of the packet of one spike, written and read once.
    source: where `word` comes from.
    label: what kind of figure it is.
  """

  name: str
  word: float
  state_bits: int = 32
  sum_bits: int = 16
  address_bits: int = 32
  source: str = _HOROWITZ
  label: str = "quoted"

  @property
  def bit(self) -> float:
    """One bit read or written, pJ."""
    return self.word / 64


@dataclasses.dataclass(frozen=True)
class Events:
  """Energy of the events of a spiking chip, pJ.

  Attributes:
    synapse: one synaptic event, dense weights.
    sparse_synapse: the same, sparse weights.
    neuron: one neuron in one step: state fetched, and updated.
    spike: one spike sent.
    hop: one spike over one link of the mesh, (least, most).
    least_synapse: the least per synaptic operation that is often quoted.
    source: where they come from.
    label: what kind of figures they are.
  """

  synapse: float
  sparse_synapse: float
  neuron: float
  spike: float
  hop: tuple[float, float]
  least_synapse: float
  source: str
  label: str = "quoted"


CONVENTIONS = {
  one.name: one
  for one in (
    Convention("fp32", 32, 0.9, 3.7),
    Convention("fp16", 16, 0.4, 1.1),
    Convention("int8", 8, 0.03, 0.2),
    Convention("int32", 32, 0.1, 3.1),
  )
}
FP32, INT8 = CONVENTIONS["fp32"], CONVENTIONS["int8"]
MEMORIES = {
  one.name: one
  for one in (
    Memory("sram 8 KB", 10),
    Memory("sram 32 KB", 20),
    Memory("sram 1 MB", 100),
    Memory("dram, least", 1300),
    Memory("dram, most", 2600),
  )
}
SRAM = MEMORIES["sram 32 KB"]
LOIHI1 = Events(
  synapse=33.6,
  sparse_synapse=35.5,
  neuron=51.2 + 21.6,
  spike=69.3,
  hop=(3.0, 4.0),
  least_synapse=23.6,
  source=f"{_SANA_FE}; 23.6 pJ: Davies et al. 2018, IEEE Micro 38(1)",
)
# What the paper says of its attention block: arXiv 2510.00133, abstract.
PAPER_SAVINGS = (0.6471, 0.8528)
