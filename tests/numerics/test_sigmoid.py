"""The sigmoid table over its whole input range."""

import functools

import chex
import jax
import numpy as np
import pytest
from jax import numpy as jnp

from jaxnmc.errors import FormatError
from jaxnmc.numerics import sigmoid
from jaxnmc.numerics.sigmoid import SigmoidTable
from tests import oracle

TABLES = [
  SigmoidTable(),
  SigmoidTable(in_frac=4, spacing=3, segments=20, out_frac=11),
  SigmoidTable(in_frac=6, spacing=5, segments=16, out_frac=15),
  SigmoidTable(in_frac=6, spacing=5, segments=17, out_frac=8),
  SigmoidTable(in_frac=2, spacing=0, segments=30, out_frac=15),
  SigmoidTable(in_frac=0, spacing=2, segments=1, out_frac=1),
]
IDS = [f"{t.in_frac}-{t.spacing}-{t.segments}-{t.out_frac}" for t in TABLES]


def _inputs(table: SigmoidTable) -> np.ndarray:
  inside = np.arange(-table.reach - 5, table.reach + 6)
  return np.concatenate([inside, [-(2**31), 2**31 - 1, -65536, 65536]])


@functools.cache
def _truth(table: SigmoidTable) -> np.ndarray:
  shape = oracle.Table(
    table.in_frac, table.spacing, table.segments, table.out_frac
  )
  return np.array([oracle.sigmoid(int(k), shape) for k in _inputs(table)])


class SigmoidTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  def test_every_input(self):
    for table in TABLES:
      run = self.variant(lambda k, t=table: sigmoid.sigmoid(k, t))
      found = run(jnp.asarray(_inputs(table).astype(np.int32)))
      chex.assert_type(found, jnp.int32)
      np.testing.assert_array_equal(found, _truth(table), err_msg=str(table))

  @chex.variants(with_jit=True, without_jit=True)
  def test_floored_float_form_is_equal(self):
    with jax.enable_x64(True):
      for table in TABLES:
        run = self.variant(lambda k, t=table: sigmoid.sigmoid_float(k, t))
        found = run(jnp.asarray(_inputs(table), jnp.float64))
        chex.assert_type(found, jnp.float64)
        np.testing.assert_array_equal(found, _truth(table))


@pytest.mark.parametrize("table", TABLES, ids=IDS)
def test_pieces_equal_the_gather(table, monkeypatch):
  k = jnp.asarray(_inputs(table).astype(np.int32))
  for pieces in (0, 4096):
    monkeypatch.setattr(sigmoid, "_MAX_PIECES", pieces)
    np.testing.assert_array_equal(sigmoid.sigmoid(k, table), _truth(table))


@pytest.mark.parametrize("table", TABLES, ids=IDS)
def test_symmetric_monotone_and_within_range(table):
  k = np.arange(-table.reach - 5, table.reach + 6).astype(np.int32)
  y = np.asarray(sigmoid.sigmoid(jnp.asarray(k), table)).astype(np.int64)
  one = 1 << table.out_frac
  nonzero = k != 0
  np.testing.assert_array_equal((y + y[::-1])[nonzero], one)
  # Floors point the other way for negative inputs: no step down but one code.
  assert (np.diff(y) >= -1).all()
  assert (np.diff(y[k >= 0]) >= 0).all()
  assert y.min() >= 0
  assert y.max() <= one


def test_default_nodes():
  nodes = [16384, 23955, 28861, 31213, 32178, 32548, 32686, 32738, 32757]
  assert SigmoidTable().nodes.tolist() == nodes
  assert SigmoidTable().nodes.dtype == np.int32
  assert SigmoidTable().reach == 512


def test_error_of_the_default_table():
  k = np.arange(-1024, 1025)
  y = sigmoid.sigmoid(jnp.asarray(k, jnp.int32), SigmoidTable())
  error = np.asarray(y) / 2**15 - 1 / (1 + np.exp(-k / 64))
  assert 0.0116 < np.abs(error).max() <= 0.0117


def test_unfloored_form_has_the_slope_of_the_segments():
  table = SigmoidTable()
  k = jnp.array([-700.0, -100.5, -3.0, 3.0, 100.5, 500.0, 700.0])
  smooth = lambda x: sigmoid.sigmoid_float(x, table, floored=False)
  exact = sigmoid.sigmoid_float(k, table)
  rise = np.diff(table.nodes) / 64
  slopes = [0, rise[1], rise[0], rise[0], rise[1], rise[7], 0]
  np.testing.assert_allclose(jax.vmap(jax.grad(smooth))(k), slopes, rtol=1e-6)
  assert (np.abs(smooth(k) - exact) < 1).all()


@pytest.mark.parametrize(
  "field", [{"in_frac": 16}, {"spacing": -1}, {"segments": 0}, {"out_frac": 16}]
)
def test_impossible_tables_are_refused(field):
  with pytest.raises(FormatError, match="out of range"):
    SigmoidTable(**field)
