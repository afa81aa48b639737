"""Errors of both tables against their size (docs/numerics.md, 6.1 and 7)."""

import numpy as np
import pytest
from jax import numpy as jnp

from jaxnmc.numerics import sigmoid
from tools import error_curves


def test_sigmoid_error_falls_with_the_table():
  data = error_curves.curves()["sigmoid"]
  codes, real = zip(*data.values())
  # Linear interpolation: a quarter for twice the segments.
  assert (np.diff(codes) < 0).all()
  assert (np.array(codes[3:6]) < 0.3 * np.array(codes[2:5])).all()
  assert (np.array(real) >= np.array(codes)).all()
  assert data[8][0] <= 0.0117
  assert data[8][1] <= 0.0129


def test_the_tool_computes_the_library_table():
  k = np.arange(-600, 601)
  table = error_curves.SigmoidTable()
  found = sigmoid.sigmoid(jnp.asarray(k, jnp.int32), table)
  np.testing.assert_array_equal(error_curves.table_sigmoid(k, table), found)


def test_root_error_falls_with_entries_and_steps():
  errors = [
    [error_curves.root_error(n, s) for s in (1, 2, 3, 5)]
    for n in error_curves.ENTRIES
  ]
  errors = np.array(errors)
  assert (np.diff(errors[:, 0]) < 0).all()  # more entries
  assert (np.diff(errors[:, 1]) < 0).all()
  assert (np.diff(errors[:3], axis=1)[:, :2] < 0).all()  # more steps
  assert errors[2, 3] < 0.004


def test_activation_noise_is_in_order():
  noise = list(error_curves.activation_noise().values())
  dynamic8, static16, static12, static8 = noise
  assert static16 < static12 < dynamic8 < static8


def test_report_and_plot(tmp_path):
  data = error_curves.curves()
  tables = error_curves.report(data).split("\n\n")
  assert [t.count("\n") for t in tables] == [8, 6, 6, 5]
  pytest.importorskip("matplotlib")
  error_curves.plot(data, str(tmp_path / "curves.png"))
  assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
