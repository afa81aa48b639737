"""Slopes with their uncertainty, against closed forms and simulation."""

import numpy as np
import pytest
from numpy import testing as npt

from jaxnmc.errors import ConfigError
from jaxnmc.report import lines


def test_a_line_is_found_exactly():
  x = np.arange(10.0)
  found = lines.fit(x, 3 + 0.5 * x)
  npt.assert_allclose(found["slope"], 0.5)
  npt.assert_allclose(found["slope_error"], 0, atol=1e-12)
  npt.assert_allclose(found["mean"], 5.25)
  npt.assert_allclose(found["change"], 100 * 4.5 / 5.25)


def test_the_interval_holds_the_truth_as_often_as_it_says():
  draw = np.random.default_rng(0)
  x = np.linspace(0, 1, 8)
  inside = 0
  for _ in range(2000):
    found = lines.fit(x, 1 + 2 * x + draw.normal(size=8), share=0.9)
    inside += abs(found["slope"] - 2) <= found["slope_error"]
  assert 0.88 < inside / 2000 < 0.92


@pytest.mark.parametrize(
  ("freedom", "expected"), [(2, 4.303), (5, 2.571), (10, 2.228), (29, 2.045)]
)
def test_students_t(freedom, expected):
  """Tabulated 97.5 % quantiles; the series is poorest at few degrees."""
  npt.assert_allclose(
    lines._student(0.975, freedom), expected, rtol=0.04 if freedom < 5 else 2e-3
  )


def test_constant_series_have_no_change():
  found = lines.fit([1, 2, 3, 4], [0.0] * 4)
  assert found["change"] == found["slope"] == 0


@pytest.mark.parametrize("x", [[1, 2, 3], [1, 1, 1, 1]])
def test_too_little_is_refused(x):
  with pytest.raises(ConfigError, match="at least four points"):
    lines.fit(x, x)
