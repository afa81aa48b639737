"""Rule sets with the paper's names (Abreu et al. 2025, Table 1)."""

import dataclasses

from jaxnmc.errors import FormatError
from jaxnmc.numerics.formats import NormFormat
from jaxnmc.numerics.sigmoid import SigmoidTable


@dataclasses.dataclass(frozen=True)
class Preset:
  """How many bits go where.

  Attributes:
    name: shown in tables.
    weight_bits: bits of norm gains (matrices are ternary).
    act_bits: bits of all other sites, logits included; one power-of-two scale
      per tensor.
    table_bits: bits of the embedding table.
    eps: eps of every norm, or None for the model's own.
    norm: numbers inside a norm.
    table: the sigmoid table.
    margin: share of headroom above the calibrated range, 0 to 16.

  Raises:
    FormatError: a margin outside 0..16.
  """

  name: str
  weight_bits: int = 8
  act_bits: int = 16
  table_bits: int = 16
  eps: float | None = 1e-3
  norm: NormFormat = NormFormat()
  table: SigmoidTable = SigmoidTable()
  margin: float = 0.0

  def __post_init__(self):
    if not 0 <= self.margin <= 16:
      raise FormatError(f"margin must lie in 0..16; found {self.margin}")

  def replace(self, **changes) -> "Preset":
    """A copy with some fields changed."""
    return dataclasses.replace(self, **changes)


W8A16 = Preset("W8A16")
W8A8 = Preset("W8A8", act_bits=8)
