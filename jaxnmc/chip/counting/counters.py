"""What a run did on the cores: exact event counts, int64 on the host.

Engines hand in `Segment`s, which `folding` reduces to a `Stretch` each.

JSON (`Counters.to_json`), so that the profile of a real chip can be priced:

    {"format": "jaxnmc-counters", "version": 1,
     "per": "tile" | "core",   what one entry of a total belongs to: a tile of
                               the placement, or a core (chip * cores + core)
     "owners": number of them,
     "saturations": {site: count} | null,
     "histograms": {value: {"bits": [33], "sent": [one per neuron],
                            "tokens": n}}, left out if not counted,
     "stretches": [{"mode": "pipelined" | "fall-through" | "mixed",
                    "tokens": n, "steps": n, "first_logits": step | null,
                    "totals": {name: [one per owner]},
                    "steps_of": {name: [one per step]},
                    "core_steps": {name: [[one per core] per step]},
                    "sent": {synapse: [[messages out, one per tile of its
                             source], [in, one per tile of its target]]}}]}

Names in `totals` are `TOTALS`; those in `steps_of` are `STEPS`; what was not
measured is left out, and `synops_stored` alone is enough. A profiler that knows
every step writes `core_steps` (only "per": "core") with names of `CORE_STEPS`:
what it calls synaptic operations, neuron updates, messages and hops are
`synops_stored`, `passes_executed`, `messages_out` and `hops`. Reading sums them
up to totals and finds the busiest core of each step; so a name may be in
`core_steps`, or in `totals` and `steps_of`, but not in both.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxnmc.chip.counting import histograms
from jaxnmc.chip.counting.folding import (
  TOTALS,
  Segment,
  Stretch,
  SynapseCount,
  fold,
  series,
)
from jaxnmc.chip.counting.histograms import Histogram
from jaxnmc.chip.counting.reader import Reader
from jaxnmc.chip.placement.tiles import Placement
from jaxnmc.errors import UserError

__all__ = ["Counters", "Segment", "Stretch", "SynapseCount", "series"]

_FORMAT, _VERSION = "jaxnmc-counters", 1


@dataclasses.dataclass(frozen=True, eq=False)
class Counters:
  """What one or several runs did.

  Attributes:
    stretches: in order of time.
    owners: length of every total.
    per: what owns an entry: `tile` or `core`.
    saturations: site -> values clipped by its format; None: not counted.
    histograms: value -> sizes of its messages and who sent them; None: not
      counted.
  """

  stretches: tuple[Stretch, ...]
  owners: int
  per: str = "tile"
  saturations: Mapping[str, int] | None = None
  histograms: Mapping[str, Histogram] | None = None

  @classmethod
  def of(
    cls,
    segments: Iterable[Segment],
    placement: Placement,
    saturations: Mapping[str, int] | None = None,
    histograms: Mapping[str, Histogram] | None = None,
  ) -> "Counters":
    """Folds what an engine counted.

    Args:
      segments: in order of time.
      placement: where the tiles are.
      saturations: site -> values clipped, or None if nobody counted.
      histograms: value -> its messages, or None if nobody counted.

    Returns:
      Totals per tile and numbers per step.
    """
    stretches = tuple(fold(segment, placement) for segment in segments)
    owners = len(placement.tiles)
    return cls(stretches, owners, "tile", saturations, histograms)

  def merge(self, other: "Counters") -> "Counters":
    """These, then the other's stretches.

    Raises:
      UserError: the two belong to different placements.
    """
    if (self.owners, self.per) != (other.owners, other.per):
      raise UserError(
        f"counters of {other.owners} {other.per}s cannot follow counters of"
        f" {self.owners} {self.per}s; they come from different placements"
      )
    clipped = None
    if self.saturations is not None and other.saturations is not None:
      clipped = dict(self.saturations)
      for site, n in other.saturations.items():
        clipped[site] = clipped.get(site, 0) + n
    stretches = self.stretches + other.stretches
    sizes = histograms.merge(self.histograms, other.histograms)
    return dataclasses.replace(
      self, stretches=stretches, saturations=clipped, histograms=sizes
    )

  @property
  def tokens(self) -> int:
    """Tokens of all stretches."""
    return sum(s.tokens for s in self.stretches)

  @property
  def steps(self) -> int:
    """Steps of all stretches."""
    return sum(s.steps for s in self.stretches)

  @property
  def names(self) -> tuple[str, ...]:
    """Totals that every stretch has."""
    found = [set(s.totals) for s in self.stretches]
    return tuple(n for n in TOTALS if found and all(n in f for f in found))

  def total(self, name: str, mode: str | None = None) -> np.ndarray:
    """One count over all stretches, or those of a mode: int64[owners].

    Args:
      name: one of `names`.
      mode: only stretches of this mode.

    Raises:
      KeyError: a stretch was not measured so.
    """
    out = np.zeros(self.owners, np.int64)
    for stretch in self.stretches:
      if mode in (None, stretch.mode):
        out += stretch.totals[name]
    return out

  def by(
    self, what: str, name: str, placement: Placement, mode: str | None = None
  ) -> np.ndarray:
    """One count summed over what the tiles lie on.

    Args:
      what: `core` (counted over all chips), `chip` or `layer` (tiles without
        a layer are left out).
      name: of `TOTALS`.
      placement: the placement that was run.
      mode: only stretches of this mode.

    Returns:
      int64[cores], [chips] or [layers], from 0 to the last one in use.

    Raises:
      UserError: unknown `what`, counters of another placement, or counters
        per core asked by layer.
    """
    self.check(placement)
    values = self.total(name, mode)
    per = placement.hardware.cores_per_chip
    owners = {
      ("tile", "core"): placement.tile_core,
      ("tile", "chip"): placement.tile_chip,
      ("tile", "layer"): placement.tile_layer,
      ("core", "core"): np.arange(self.owners),
      ("core", "chip"): np.arange(self.owners) // per,
    }
    if (self.per, what) not in owners:
      raise UserError(
        f"counters per {self.per} cannot be summed by {what!r}; known are"
        f" {', '.join(w for p, w in owners if p == self.per)}"
      )
    return placement.sum_by(owners[self.per, what], values)

  def check(self, placement: Placement) -> None:
    """Refuses a placement that these counters are not of.

    Raises:
      UserError: another number of tiles (or cores).
    """
    tiles, cores = len(placement.tiles), placement.hardware.cores
    if self.owners != (tiles if self.per == "tile" else cores):
      raise UserError(
        f"counters of {self.owners} {self.per}s do not belong to a placement"
        f" of {tiles} tiles on {cores} cores"
      )

  def to_json(self) -> str:
    """The counters as text; the format is at the top of this module."""
    plain = lambda arrays: {
      k: np.asarray(v).tolist() for k, v in arrays.items()
    }
    stretches = [
      {
        "mode": s.mode,
        "tokens": s.tokens,
        "steps": s.steps,
        "first_logits": s.first_logits,
        "totals": plain(s.totals),
        "steps_of": plain(s.steps_of),
      }
      | ({} if s.sent is None else {"sent": _plain_sent(s.sent)})
      for s in self.stretches
    ]
    head = {"format": _FORMAT, "version": _VERSION, "per": self.per}
    clipped = None if self.saturations is None else dict(self.saturations)
    body: dict[str, Any] = {"owners": self.owners, "saturations": clipped}
    if self.histograms is not None:
      sizes = {k: one.plain() for k, one in self.histograms.items()}
      body["histograms"] = sizes
    return json.dumps(head | body | {"stretches": stretches})

  @classmethod
  def from_json(cls, text: str, where: str = "counters") -> "Counters":
    """Reads what `to_json`, or somebody's profiler, wrote.

    Args:
      text: JSON.
      where: name of the file, for messages.

    Returns:
      The counters.

    Raises:
      UserError: not this format, or numbers that cannot be counts; the message
        names the field.
    """
    try:
      data = json.loads(text)
    except json.JSONDecodeError as e:
      raise UserError(f"{where}: not JSON ({e})") from e
    reader = Reader(where)
    if not isinstance(data, dict) or data.get("format") != _FORMAT:
      raise reader.error("format", data, f'an object with format "{_FORMAT}"')
    if data.get("version") != _VERSION:
      raise reader.error("version", data.get("version"), str(_VERSION))
    per = data.get("per")
    if per not in ("tile", "core"):
      raise reader.error("per", per, "tile or core")
    owners = reader.whole(data, "owners", "owners")
    found = data.get("stretches")
    if not isinstance(found, list):
      raise reader.error("stretches", found, "a list")
    stretches = tuple(
      reader.stretch(s, f"stretches[{i}]", owners, per)
      for i, s in enumerate(found)
    )
    sites, clipped = None, data.get("saturations")
    if clipped is not None:
      if not isinstance(clipped, dict):
        raise reader.error("saturations", clipped, "an object")
      sites = {k: reader.whole(clipped, k, f"saturations.{k}") for k in clipped}
    sizes, found = None, data.get("histograms")
    if found is not None:
      if not isinstance(found, dict):
        raise reader.error("histograms", found, "an object")
      field = f"{where}: histograms"
      sizes = {
        k: histograms.from_plain(v, f"{field}.{k}") for k, v in found.items()
      }
    return cls(stretches, owners, per, sites, sizes)


def _plain_sent(sent: Mapping) -> dict[str, list]:
  return {str(k): [side.tolist() for side in pair] for k, pair in sent.items()}
