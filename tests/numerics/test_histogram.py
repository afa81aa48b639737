"""Histograms of magnitudes: bins and exact merging."""

import hypothesis
import jax
import numpy as np
from hypothesis import strategies as st

from jaxnmc.numerics import histogram


def counts(x):
  found = jax.jit(histogram.magnitude_counts)(np.asarray(x, np.float32))
  return np.asarray(found, np.int64)


def test_bins_are_what_the_edges_say():
  draw = np.random.default_rng(1)
  x = np.concatenate(
    [
      np.exp2(draw.uniform(-30, 30, 5000)),
      histogram.EDGES[:-1],
      np.nextafter(histogram.EDGES[1:-1].astype(np.float32), np.float32(0)),
    ]
  ).astype(np.float32)
  want = np.searchsorted(histogram.EDGES, x, "right") - 1
  got = np.zeros(histogram.BINS, np.int64)
  np.add.at(got, want, 1)
  np.testing.assert_array_equal(counts(x), got)
  np.testing.assert_array_equal(counts(-x), got)
  ratio = histogram.EDGES[2:-1] / histogram.EDGES[1:-2]
  assert ratio.max() <= 1 + 1 / 32
  assert counts([0.0, np.inf])[[0, -1]].tolist() == [1, 1]


@hypothesis.given(
  st.lists(st.floats(-1e9, 1e9, width=32), min_size=1, max_size=20),
  st.integers(0, 20),
)
def test_histograms_merge_exactly(values, cut):
  hypothesis.assume(len(values) < 25)
  x = np.zeros(25, np.float32)
  x[: len(values)] = values
  cut = min(cut, len(values))
  first, second = x.copy(), x.copy()
  first[cut:], second[:cut] = 0, 0
  both = counts(first) + counts(second)
  both[0] -= 25  # the zeros that took each other's place
  np.testing.assert_array_equal(both, counts(x))
