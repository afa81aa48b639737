"""From what each token counted to the busiest place of every time step.

A token's event of depth d is in step inject[n] + d.  The load of a place (a
core, a link) at a depth is linear in what the token counted, so a matrix, made
once per placement, gives it for all places (`Skew`); what remains is to add up
tokens that are on the way together.  A run has many steps and a system many
cores and links, so no array of steps by places is ever whole.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

from jaxnmc.chip.routing.sparse import matrix, stacked

__all__ = ["Skew", "Skews", "add_rows"]

WINDOW = 1 << 22  # numbers in a buffer


@dataclasses.dataclass(frozen=True, eq=False)
class Skew:
  """Loads of places at depths: weights @ counts.

  Attributes:
    weights: scipy.sparse int64[loads, counts].
    depth: of each load, rising, int64[loads].
    place: of each load, below `places`; once at a depth, int64[loads].
    places: number of places.
  """

  weights: Any
  depth: np.ndarray
  place: np.ndarray
  places: int

  @classmethod
  def of(cls, depth, place, column, weight, places: int, width: int) -> "Skew":
    """From entries: a count of `column` loads `place` by `weight` at `depth`.

    Args:
      depth: int[n].
      place: int[n].
      column: int[n].
      weight: int[n] or int.
      places: number of places.
      width: number of columns.

    Returns:
      The map; entries of one load are added up.
    """
    depth, place = np.asarray(depth, np.int64), np.asarray(place, np.int64)
    key, load = np.unique(depth * max(1, places) + place, return_inverse=True)
    weights = matrix(load, column, weight, (len(key), width))
    return cls(weights, *np.divmod(key, max(1, places)), places)

  def after(self, spread) -> "Skew":
    """The same map of what the counts follow from: counts = spread @ it."""
    if spread is None:
      return self
    return dataclasses.replace(self, weights=self.weights @ spread)

  def peaks(
    self, counts: np.ndarray, inject: np.ndarray, steps: int
  ) -> tuple[np.ndarray, np.ndarray]:
    """Load of the busiest place, and of all together, in every step.

    Args:
      counts: what each token counted, int[columns, T].
      inject: step at which each token enters, rising, int64[T].
      steps: number of steps.

    Returns:
      (largest, sum), int64[steps] each.
    """
    return Skews((self,)).peaks(counts, inject, steps)[0]

  def _overlapping(
    self, counts: np.ndarray, inject: np.ndarray, steps: int
  ) -> tuple[np.ndarray, np.ndarray]:
    """`peaks` of tokens that are on the way together, some steps at a time."""
    most, total = np.zeros(steps, np.int64), np.zeros(steps, np.int64)
    if not len(self.depth):
      return most, total
    depths = self.depths
    size = min(steps, max(1, WINDOW // self.places))
    buffer = np.zeros((size, self.places), np.int64)
    for start in range(0, steps, size):
      there = buffer[: min(size, steps - start)]
      there[:] = 0
      # Depths, and of each the tokens, that are there in these steps.
      low = np.searchsorted(depths, start - inject[-1])
      high = np.searchsorted(depths, start + len(there) - inject[0])
      for depth, part in zip(depths[low:high], self._parts[low:high]):
        a, b = np.searchsorted(inject - start, (-depth, len(there) - depth))
        if a < b:
          places, used, weights = part
          loads = weights @ _taken(counts, used, a, b)
          add_rows(there, inject[a:b] + (depth - start), places, loads.T)
      most[start : start + len(there)] = there.max(axis=1)
      total[start : start + len(there)] = there.sum(axis=1)
    return most, total

  @functools.cached_property
  def first(self) -> np.ndarray:
    """The first load of every depth."""
    return np.unique(self.depth, return_index=True)[1]

  @property
  def depths(self) -> np.ndarray:
    """The depths, each once, rising."""
    return self.depth[self.first]

  @functools.cached_property
  def _parts(self) -> list[tuple]:
    """By depth: (places, columns that matter, weights of these)."""
    stop = np.append(self.first[1:], len(self.depth))
    parts = [slice(a, b) for a, b in zip(self.first, stop)]
    return [(self.place[p], *_columns_used(self.weights[p])) for p in parts]


@dataclasses.dataclass(frozen=True, eq=False)
class Skews:
  """Several maps of the same counts, evaluated together.

  Attributes:
    each: the maps.
  """

  each: tuple[Skew, ...]

  @functools.cached_property
  def _together(self) -> tuple[np.ndarray, Any]:
    """(columns that matter, weights of these), all loads one below another."""
    width = self.each[0].weights.shape[1]
    return _columns_used(stacked([s.weights for s in self.each], width))

  @functools.cached_property
  def _span(self) -> int:
    """Steps that a token is on the way."""
    depth = np.concatenate([s.depth for s in self.each])
    return int(depth.max(initial=0) - depth.min(initial=0))

  def peaks(
    self, counts: np.ndarray, inject: np.ndarray, steps: int
  ) -> list[tuple[np.ndarray, np.ndarray]]:
    """`Skew.peaks` of every map.

    A token that is alone, as a decoded one is, loads a place at a depth and
    nobody else does: one product gives the loads of all maps.
    """
    if (np.diff(inject) <= self._span).any():
      return [skew._overlapping(counts, inject, steps) for skew in self.each]
    zeros = lambda: np.zeros(steps, np.int64)
    found = [(zeros(), zeros()) for _ in self.each]
    used, weights = self._together
    size = max(1, WINDOW // max(1, weights.shape[0]))
    for a in range(0, len(inject), size):
      b = a + size
      loads, row = weights @ _taken(counts, used, a, b), 0
      for skew, (most, total) in zip(self.each, found, strict=True):
        mine = loads[row : row + len(skew.depth)]
        row += len(mine)
        if len(mine):
          at = inject[a:b] + skew.depths[:, None]
          most[at] = np.maximum.reduceat(mine, skew.first, axis=0)
          total[at] = np.add.reduceat(mine, skew.first, axis=0)
    return found


def _taken(counts: np.ndarray, used: np.ndarray, a: int, b: int) -> np.ndarray:
  """Some rows of some tokens, int64."""
  return counts[used, a:b].astype(np.int64, copy=False)


def _columns_used(weights) -> tuple[np.ndarray, Any]:
  """(columns with entries, the matrix of these columns alone)."""
  used, column = np.unique(weights.indices, return_inverse=True)
  row = np.repeat(np.arange(weights.shape[0]), np.diff(weights.indptr))
  shape = (weights.shape[0], len(used))
  return used, matrix(row, column, weights.data, shape)


def add_rows(rows: np.ndarray, at: np.ndarray, columns, values) -> None:
  """rows[at[n], columns] += values[n]; at is rising, columns may repeat."""
  if len(columns) > 1 and (np.diff(np.sort(columns)) == 0).any():
    np.add.at(rows, (at[:, None], columns[None, :]), values)
  elif at[-1] - at[0] == len(at) - 1:
    rows[at[0] : at[-1] + 1, columns] += values
  else:
    rows[at[:, None], columns[None, :]] += values
