"""What engines hand in: the traffic of each synapse, token by token.

Counts of a synapse stand in one row, tile by tile: messages out of its source,
messages in, weights walked that are not zero, weights walked (`Columns`).  An
engine that measured less, because the rest follows, hands in what it measured
and the matrix by which it follows (`Measured`); nobody spreads it out unless
somebody asks for the counts of a synapse.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np

from jaxnmc.chip.placement.tiles import Placement

__all__ = ["Columns", "Measured", "Segment", "Spread", "SynapseCount"]
__all__ += ["of_placement"]

FIELDS = ("out", "inc", "synops", "stored")


@dataclasses.dataclass(frozen=True, eq=False)
class SynapseCount:
  """Traffic of one synapse, token by token.

  Attributes:
    synapse: its index in the network.
    depth: of its source: the events of token n are in step inject[n] + depth.
    out: messages sent, int[T, tiles of the source].
    inc: messages received, int[T, tiles of the target].
    synops: entries walked that are not zero, int[T, tiles of the target].
    stored: entries walked, int[T, tiles of the target].
  """

  synapse: int
  depth: int
  out: np.ndarray
  inc: np.ndarray
  synops: np.ndarray
  stored: np.ndarray


class Columns:
  """Where the counts of some synapses stand in a row.

  Args:
    synapses: indices in the network.
    depths: of their sources.
    tiles: (tiles of the source, tiles of the target) of each.

  Attributes:
    width: length of a row.
  """

  def __init__(
    self,
    synapses: Iterable[int],
    depths: Iterable[int],
    tiles: Iterable[tuple[int, int]],
  ) -> None:
    self.synapses, self.depths = tuple(synapses), tuple(depths)
    self._tiles = tuple(tiles)
    sizes = [k + 3 * m for k, m in self._tiles]
    self._starts = np.cumsum([0, *sizes])
    self.width = int(self._starts[-1])
    self._place = {s: i for i, s in enumerate(self.synapses)}

  def place(self, synapse: int) -> int:
    """Which of the synapses it is; KeyError if it is none of them."""
    return self._place[synapse]

  def at(self, synapse: int, field: str) -> np.ndarray:
    """Columns of one of `FIELDS` of a synapse, int[tiles]."""
    i = self._place[synapse]
    k, m = self._tiles[i]
    field_at = FIELDS.index(field)
    start = self._starts[i] + (k + (field_at - 1) * m if field_at else 0)
    return np.arange(start, start + (m if field_at else k))

  def block(self, i: int) -> slice:
    """All columns of the i-th synapse."""
    return slice(int(self._starts[i]), int(self._starts[i + 1]))

  def split(self, i: int, rows: np.ndarray) -> SynapseCount:
    """The i-th synapse from its columns, int[T, k + 3 m]."""
    k, m = self._tiles[i]
    parts = [rows[:, :k]]
    parts += [rows[:, k + j * m : k + (j + 1) * m] for j in range(3)]
    return SynapseCount(self.synapses[i], self.depths[i], *parts)


def of_placement(placement: Placement, synapses: Iterable[int]) -> Columns:
  """The columns of synapses of a placed network."""
  net, tiles = placement.network, placement.tiles_of
  mine = [net.synapses[index] for index in synapses]
  return Columns(
    [s.index for s in mine],
    [s.depth for s in mine],
    [(len(tiles[s.src]), len(tiles[s.dst])) for s in mine],
  )


@dataclasses.dataclass(frozen=True, eq=False)
class Spread:
  """How counts follow from what is measured.

  Attributes:
    matrix: scipy.sparse int64[columns, measured].
  """

  matrix: Any


class Measured(Sequence[SynapseCount]):
  """Counts that follow from what was measured: rows @ spread.T.

  Args:
    columns: of all counts.
    rows: what was measured, int[T, measured].
    spread: how they follow; None: the counts themselves were measured.
  """

  def __init__(
    self, columns: Columns, rows: np.ndarray, spread: Spread | None = None
  ) -> None:
    self.columns, self.rows, self.spread = columns, rows, spread

  def __len__(self) -> int:
    return len(self.columns.synapses)

  @overload
  def __getitem__(self, i: int) -> SynapseCount: ...
  @overload
  def __getitem__(self, i: slice) -> list[SynapseCount]: ...
  def __getitem__(self, i):
    """Counts of the i-th synapse."""
    if isinstance(i, slice):
      return [self[k] for k in range(*i.indices(len(self)))]
    i = range(len(self))[i]
    block = self.columns.block(i)
    if self.spread is None:
      return self.columns.split(i, self.rows[:, block])
    rows = self.spread.matrix[block] @ self.rows.T.astype(np.int64)
    return self.columns.split(i, rows.T)

  def whole(self) -> "Measured":
    """The same with every count worked out, by one product."""
    if self.spread is None:
      return self
    rows = (self.spread.matrix @ self.rows.T.astype(np.int64)).T
    return Measured(self.columns, rows)


@dataclasses.dataclass(frozen=True, eq=False)
class Segment:
  """One uninterrupted run, from empty cores until the last token has left.

  Attributes:
    inject: step at which each token enters, strictly increasing, int64[T].
    counts: traffic of the synapses that touch the chips.
  """

  inject: np.ndarray
  counts: Sequence[SynapseCount]

  def measured(self) -> Measured:
    """The counts as rows, whoever counted them."""
    if isinstance(self.counts, Measured):
      return self.counts
    columns = Columns(
      [c.synapse for c in self.counts],
      [c.depth for c in self.counts],
      [(c.out.shape[1], c.inc.shape[1]) for c in self.counts],
    )
    parts = [getattr(c, name) for c in self.counts for name in FIELDS]
    empty = np.zeros((len(self.inject), 0), np.int64)
    return Measured(columns, np.concatenate([empty, *parts], axis=1))
