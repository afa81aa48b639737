"""Tallies of messages: both forms against NumPy; what the native refuses."""

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st
from jax import numpy as jnp
from numpy import testing as npt

from jaxnmc.kernels import native, tally

FORMS = {"xla": tally.xla_tally, "native": tally.native_tally}


def form(name):
  if name == "native" and not native.available():
    pytest.skip("the native kernels need a C++ compiler")
  return FORMS[name]


def by_hand(values, cuts, tables, layer):
  """Python's integers, one row at a time."""
  rows = []
  for t in range(len(values[0])):
    row = []
    for x, cut, table in zip(values, cuts, tables, strict=True):
      sent = [k for k, v in enumerate(x[t].tolist()) if v]
      for a, b in zip(cut[:-1], cut[1:], strict=True):
        row.append(sum(a <= k < b for k in sent))
      if table is not None:
        for column in table[layer].tolist():
          row.append(sum(column[k] for k in sent))
    rows.append(row)
  return rows


@st.composite
def cases(draw):
  rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
  tokens = draw(st.sampled_from([1, 2, 7]))
  values, cuts, tables = [], [], []
  for _ in range(draw(st.integers(1, 4))):
    width = draw(st.sampled_from([1, 2, 15, 16, 17, 64, 130, 700]))
    x = rng.integers(-(2**31), 2**31, (tokens, width))
    x[rng.random(x.shape) < rng.choice([0, 0.02, rng.random()])] = 0
    values.append(x.astype(np.int32))
    inner = rng.integers(0, width + 1, rng.integers(0, 4))
    cuts.append(np.unique([0, *inner, width]))
    table = None
    if draw(st.booleans()):
      table = rng.integers(0, 128, (3, rng.integers(1, 20), width))
      table = table.astype(np.int8)
    tables.append(table)
  return values, cuts, tables


@pytest.mark.parametrize("name", FORMS)
@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(case=cases())
def test_tallies_are_python_s(name, case):
  values, cuts, tables = case
  arrays = [tally.Table.of(t) for t in tables]
  layer = len(values) % 3
  ints = [jnp.asarray(x) for x in values]
  found = form(name)(ints, cuts, arrays, jnp.int32(layer))
  assert found.dtype == jnp.int32
  npt.assert_array_equal(found, by_hand(values, cuts, tables, layer))


@pytest.mark.parametrize("name", FORMS)
def test_many_rows_at_once_and_batches(name):
  """Enough work for all threads; vmap maps values and not tables."""
  rng = np.random.default_rng(0)
  x = rng.integers(-1, 2, (3, 40, 1024)).astype(np.int32)
  table = rng.integers(0, 128, (1, 44, 1024)).astype(np.int8)
  cut = np.arange(0, 1025, 128)
  run = lambda x: form(name)([x], [cut], [tally.Table.of(table)])
  found = jax.jit(jax.vmap(run))(x)
  sent = (x != 0).astype(np.int64)
  npt.assert_array_equal(found[..., :8], sent.reshape(3, 40, 8, 128).sum(-1))
  npt.assert_array_equal(found[..., 8:], sent @ table[0].T)


def test_nothing_is_nothing():
  assert tally.tally([], [], []).shape == (0,)


def test_operands_that_do_not_fit_are_refused():
  form("native")
  x = jnp.zeros((2, 8), jnp.int32)
  with pytest.raises(Exception, match="edges are in the row"):
    tally.native_tally([x], [np.array([0, 9])], [None])
  zeros = lambda width: tally.Table.of(np.zeros((1, 2, width), np.int8))
  cut = np.array([0, 8])
  with pytest.raises(Exception, match="equal rows"):
    tally.native_tally([x, x[:1]], [cut, cut], [None, None])
  with pytest.raises(Exception, match="columns, width"):
    tally.native_tally([x], [cut], [zeros(7)])
  with pytest.raises(Exception, match="no such layer"):
    tally.native_tally([x], [cut], [zeros(8)], 1)
  short = tally.Table(zeros(8).codes, jnp.zeros((1, 1), jnp.int32))
  with pytest.raises(Exception, match="sums of tables"):
    tally.native_tally([x], [cut], [short])
