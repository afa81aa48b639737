"""Sparse integer matrices: what follows from counts, in exact integers."""

import numpy as np
from scipy import sparse

__all__ = ["matrix", "stacked"]


def matrix(row, column, weight, shape: tuple[int, int]):
  """scipy.sparse int64[shape] of entries; equal places are added up."""
  entries = (np.broadcast_to(weight, np.shape(row)), (row, column))
  found = sparse.csr_matrix(entries, shape, dtype=np.int64)
  found.sum_duplicates()
  return found


def stacked(parts, width: int):
  """scipy.sparse int64[n, width] of parts, one below the other; maybe none."""
  none = sparse.csr_matrix((0, width), dtype=np.int64)
  return sparse.vstack([none, *parts], format="csr")
