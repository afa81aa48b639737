"""Sums of events by time step, some steps at a time.

A token's event of depth d is in step inject[n] + d. A run has many steps and a
system many cores and links, so no array of steps by cores is ever whole.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

__all__ = ["Event", "add_rows", "by_step"]

# (depth, columns int[k], values of tokens start to stop - 1 on these columns:
# a function to int[stop - start, k]).
Event = tuple[int, np.ndarray, Callable[[int, int], np.ndarray]]

WINDOW = 1 << 22  # numbers in the buffer


def by_step(
  events: Sequence[Event], inject: np.ndarray, steps: int, columns: int
) -> Iterator[tuple[int, np.ndarray]]:
  """Sums of events, some steps at a time.

  Args:
    events: any order.
    inject: step at which each token enters, rising, int64[T].
    steps: number of steps.
    columns: number of columns.

  Yields:
    (first step, int64[some steps, columns]), in order, every step once. The
    buffer is used again.
  """
  events = sorted(events, key=lambda e: e[0])
  depths = np.array([depth for depth, _, _ in events], np.int64)
  size = min(steps, max(1, WINDOW // max(1, columns)))
  buffer = np.zeros((size, columns), np.int64)
  for start in range(0, steps, size):
    stop = min(steps, start + size)
    rows = buffer[: stop - start]
    rows[:] = 0
    # Events of tokens that are there in these steps.
    first = np.searchsorted(depths, start - inject[-1])
    last = np.searchsorted(depths, stop - inject[0])
    for depth, where, values in events[first:last]:
      a, b = np.searchsorted(inject, (start - depth, stop - depth))
      if a < b:
        add_rows(rows, inject[a:b] + (depth - start), where, values(a, b))
    yield start, rows


def add_rows(rows: np.ndarray, at: np.ndarray, columns, values) -> None:
  """rows[at[n], columns] += values[n]; at is rising, columns may repeat."""
  if len(np.unique(columns)) < len(columns):
    np.add.at(rows, (at[:, None], columns[None, :]), values)
  elif at[-1] - at[0] == len(at) - 1:
    rows[at[0] : at[-1] + 1, columns] += values
  else:
    rows[at[:, None], columns[None, :]] += values
