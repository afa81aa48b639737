"""Statistics of sites: what `calibrate` returns and `plan` reads."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping

import numpy as np

from jaxnmc.errors import PlanError
from jaxnmc.ops.observe import Notes, Role


@dataclasses.dataclass(frozen=True, eq=False)
class Stats:
  """Ranges and static facts of one model on some data.

  Attributes:
    ranges: path -> largest magnitude seen (real units); for norms
      `<norm>.mean_square` is the largest mean square.
    notes: roles of parameters, unit sites, alignments.
    tokens: number of tokens seen.
    histograms: path -> how many magnitudes in each bin, int64[BINS]
      (`numerics.histogram`); empty if not asked for.
    channels: path -> largest magnitude of each channel, float32[n]; empty if
      not asked for.
  """

  ranges: Mapping[str, float]
  notes: Notes
  tokens: int
  histograms: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
  channels: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

  def merge(self, other: "Stats") -> "Stats":
    """Statistics of both data sets; commutative.

    Raises:
      PlanError: only one of them has histograms or channels.
    """
    for name in ("histograms", "channels"):
      if bool(getattr(self, name)) != bool(getattr(other, name)):
        raise PlanError(
          f"only one of two statistics has {name}; calibrate both with or both"
          " without"
        )
    ranges = dict(self.ranges)
    for path, value in other.ranges.items():
      ranges[path] = max(value, ranges.get(path, 0.0))
    notes = Notes(
      {**self.notes.roles, **other.notes.roles},
      self.notes.units | other.notes.units,
      {**self.notes.wholes, **other.notes.wholes},
      {**self.notes.aligns, **other.notes.aligns},
    )
    return Stats(
      ranges,
      notes,
      self.tokens + other.tokens,
      _merged(np.add, self.histograms, other.histograms),
      _merged(np.maximum, self.channels, other.channels),
    )

  @property
  def roles(self) -> Mapping[str, Role]:
    """Parameter path -> its part."""
    return self.notes.roles

  @functools.cached_property
  def digest(self) -> str:
    """SHA-256 of everything measured; equal statistics have equal digests."""
    data = {
      "ranges": dict(self.ranges),
      "roles": {
        path: dataclasses.astuple(role) for path, role in self.roles.items()
      },
      "units": sorted(self.notes.units),
      "aligns": self.notes.aligns,
      "tokens": self.tokens,
    }
    if self.notes.wholes:
      data["wholes"] = self.notes.wholes
    sha = hashlib.sha256(json.dumps(data, sort_keys=True).encode())
    for arrays, kind in ((self.histograms, "<i8"), (self.channels, "<f4")):
      for path, array in sorted(arrays.items()):
        sha.update(path.encode())
        sha.update(np.ascontiguousarray(array, kind).tobytes())
    return sha.hexdigest()

  def __eq__(self, other) -> bool:
    return isinstance(other, Stats) and self.digest == other.digest

  def __hash__(self) -> int:
    return hash(self.digest)


def _merged(both, a: Mapping, b: Mapping) -> dict[str, np.ndarray]:
  """a and b by path; where both have one, `both` of them."""
  out = {**a, **b}
  return out | {path: both(a[path], b[path]) for path in a.keys() & b.keys()}
