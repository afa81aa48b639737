"""Statistics of sites: what `calibrate` returns and `plan` reads."""

import dataclasses
from collections.abc import Mapping

from jaxnmc.ops.observe import Notes, Role


@dataclasses.dataclass(frozen=True)
class Stats:
  """Ranges and static facts of one model on some data.

  Attributes:
    ranges: path -> largest magnitude seen (real units); for norms
      `<norm>.mean_square` is the largest mean square.
    notes: roles of parameters, unit sites, alignments.
    tokens: number of tokens seen.
  """

  ranges: Mapping[str, float]
  notes: Notes
  tokens: int

  def merge(self, other: "Stats") -> "Stats":
    """Statistics of both data sets; commutative."""
    ranges = dict(self.ranges)
    for path, value in other.ranges.items():
      ranges[path] = max(value, ranges.get(path, 0.0))
    notes = Notes(
      {**self.notes.roles, **other.notes.roles},
      self.notes.units | other.notes.units,
      {**self.notes.aligns, **other.notes.aligns},
    )
    return Stats(ranges, notes, self.tokens + other.tokens)

  @property
  def roles(self) -> Mapping[str, Role]:
    """Parameter path -> its part."""
    return self.notes.roles
