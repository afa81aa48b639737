"""What spikes a model sends, counted from the integers of `fixed`."""

import jax
import numpy as np
from jax import numpy as jnp


def same(a, b):
  """Whether two pytrees are of one structure and hold the same integers."""
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert x.dtype == y.dtype == jnp.int32
    np.testing.assert_array_equal(x, y)


def spikes_of(code, q, ticks):
  """Spikes of integers, counted in Python's own."""
  count = {
    "bitwise": lambda n: abs(n).bit_count(),
    "twos": lambda n: (n % 2**ticks).bit_count(),
    "unary": abs,
  }[code]
  return np.array([count(int(n)) for n in np.ravel(q)]).reshape(np.shape(q))


def check_rows(code, rows, taps, weights):
  """Every row against the values of `fixed`, counted by NumPy.

  Args:
    code: spike code.
    rows: by product.
    taps: values of `fixed`.
    weights: product -> int[out, in].
  """
  assert {row.product for row in rows} == set(weights)
  for row in rows:
    q = np.asarray(taps[row.site].q).reshape(-1, row.values)
    w = weights[row.product]
    sent = spikes_of(code, q, row.ticks)
    reach = (w != 0).sum(0)
    assert row.targets == len(w)
    assert row.tokens == len(q)
    assert row.spikes == sent.sum() > 0
    assert row.messages == (q != 0).sum()
    assert row.synops == (sent @ reach).sum()
    assert row.stored_synops == sent.sum() * len(w)
    assert row.message_synops == ((q != 0) @ reach).sum()
    assert row.possible == q.size * row.ticks
    assert row.rate == sent.sum() / (q.size * row.ticks) <= 1
