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
    most, total = np.zeros(steps, np.int64), np.zeros(steps, np.int64)
    if not len(self.depth) or not len(inject):
      return most, total
    depths, first = self._depths
    if (np.diff(inject) > depths[-1] - depths[0]).all():
      used, weights = self._used
      each = max(1, WINDOW // len(self.depth))
      for a in range(0, len(inject), each):
        loads = weights @ _taken(counts, used, a, a + each)
        at = inject[a : a + each] + depths[:, None]
        most[at] = np.maximum(np.maximum.reduceat(loads, first, axis=0), 0)
        total[at] = np.add.reduceat(loads, first, axis=0)
      return most, total
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
  def _depths(self) -> tuple[np.ndarray, np.ndarray]:
    """(depths, first load of each)."""
    return np.unique(self.depth, return_index=True)

  @functools.cached_property
  def _used(self):
    """(columns that matter, weights of these)."""
    return _columns_used(self.weights)

  @functools.cached_property
  def _parts(self) -> list[tuple]:
    """By depth: (places, columns that matter, weights of these)."""
    _, first = self._depths
    stop = np.append(first[1:], len(self.depth))
    parts = [slice(a, b) for a, b in zip(first, stop)]
    return [(self.place[p], *_columns_used(self.weights[p])) for p in parts]


@dataclasses.dataclass(frozen=True, eq=False)
class Skews:
  """Several maps of the same counts, evaluated together.

  Attributes:
    each: the maps.
  """

  each: tuple[Skew, ...]

  @functools.cached_property
  def _together(self) -> Skew:
    """All loads as those of one map, whose depths are those of all."""
    weights = stacked(
      [s.weights for s in self.each], self.each[0].weights.shape[1]
    )
    depth = np.concatenate([s.depth for s in self.each])
    return Skew(weights, depth, np.zeros_like(depth), 1)

  def peaks(
    self, counts: np.ndarray, inject: np.ndarray, steps: int
  ) -> list[tuple[np.ndarray, np.ndarray]]:
    """`Skew.peaks` of every map.

    A token that is alone is what a decode step is, so its loads of all maps
    take one product.
    """
    every = self._together
    if len(inject) != 1 or not len(every.depth):
      return [skew.peaks(counts, inject, steps) for skew in self.each]
    used, weights = every._used
    loads, found, at = weights @ _taken(counts, used, 0, 1)[:, 0], [], 0
    for skew in self.each:
      most, total = np.zeros(steps, np.int64), np.zeros(steps, np.int64)
      if len(skew.depth):
        mine = loads[at : at + len(skew.depth)]
        depths, first = skew._depths
        most[inject[0] + depths] = np.maximum.reduceat(mine, first)
        total[inject[0] + depths] = np.add.reduceat(mine, first)
        at += len(skew.depth)
      found.append((most, total))
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
