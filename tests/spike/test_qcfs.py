"""QCFS: recorded values, gradients, and the three errors of conversion."""

import math

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import numpy as jnp

from jaxnmc.errors import ConfigError
from jaxnmc.spike.neurons import IF, constant, run
from jaxnmc.spike.qcfs import conversion_errors, qcfs
from tests.spike import rules

HALF = IF(half=True)


def test_recorded_activation(recorded, described):
  golden, meta = recorded("qcfs"), described("qcfs")
  got = qcfs(jnp.asarray(golden["x"]), meta["lam"], meta["L"])
  np.testing.assert_array_equal(got, golden["qcfs"])
  assert len(np.unique(golden["qcfs"])) == meta["L"] + 1


@pytest.mark.parametrize("ticks", [2, 4, 8, 16, 32])
def test_recorded_spikes(recorded, described, ticks):
  golden, meta = recorded("qcfs"), described("qcfs")
  drives = constant(golden["x"], ticks)
  _, spikes = run(HALF, drives, threshold=meta["lam"])
  np.testing.assert_array_equal(spikes, golden[f"snn_T{ticks}"])
  rate = meta["lam"] * jnp.mean(spikes, 0)
  np.testing.assert_allclose(rate, golden[f"rate_T{ticks}"], 1e-6, 1e-6)
  # T ticks are T levels, not the L of training.
  levels = qcfs(jnp.asarray(golden["x"]), meta["lam"], ticks)
  bound = meta["lam"] * (0.5 / ticks + 0.5 / meta["L"])
  assert np.abs(levels - golden["qcfs"]).max() <= bound + 1e-6


_run = jax.jit(run, static_argnums=0)


def _network(golden, lam, ticks):
  """Two converted layers: drives of both."""
  first = constant(golden["net_x"] @ golden["w1"].T, ticks)
  _, hidden = _run(HALF, first, threshold=lam)
  second = lam * hidden @ golden["w2"].T
  return second, _run(HALF, second, threshold=lam)[1]


def test_recorded_network(recorded, described):
  golden, lam = recorded("qcfs"), described("qcfs")["lam"]
  hidden = qcfs(jnp.asarray(golden["net_x"] @ golden["w1"].T), lam, 8)
  dense = qcfs(hidden @ golden["w2"].T, lam, 8)
  np.testing.assert_allclose(dense, golden["net_ann"], 1e-6, 1e-6)
  apart, uneven = [], []
  for ticks in (2, 4, 8, 16, 32):
    drives, spikes = _network(golden, lam, ticks)
    wanted = golden[f"net_snn_T{ticks}"]
    np.testing.assert_array_equal(lam * jnp.mean(spikes, 0), wanted)
    apart.append(float(np.abs(wanted - golden["net_ann"]).mean()))
    parts = conversion_errors(
      jnp.mean(drives, 0), jnp.sum(spikes, 0), ticks, lam
    )
    uneven.append(float(np.abs(parts.unevenness).max()))
    # The first layer has none of it: its drive is constant.
    first = golden["net_x"] @ golden["w1"].T
    _, spikes = _run(HALF, constant(first, ticks), threshold=lam)
    even = conversion_errors(jnp.asarray(first), jnp.sum(spikes, 0), ticks, lam)
    np.testing.assert_allclose(even.unevenness, 0, atol=1e-6)
  assert uneven[2] > 0
  # The recorded mean distances of the two networks.
  np.testing.assert_allclose(apart, [0.115, 0.094, 0.026, 0.048, 0.048], 0.02)


@given(
  st.floats(-3, 6, width=32),
  st.sampled_from([0.5, 1.0, 3.0]),
  st.integers(1, 16),
)
def test_value(z, lam, levels):
  got = float(qcfs(jnp.float32(z), lam, levels))
  scaled = np.float32(z) * np.float32(levels) / np.float32(lam)
  wanted = lam * min(max(math.floor(scaled + np.float32(0.5)), 0), levels)
  assert got == pytest.approx(wanted / levels, rel=1e-6)


def test_gradients():
  lam, levels = jnp.asarray([1.0, 2.0]), 4
  z = jnp.asarray([[-0.3, -1.0], [0.3, 1.3], [1.4, 2.7]])
  h = qcfs(z, lam, levels)
  np.testing.assert_allclose(h, [[0, 0], [0.25, 1.5], [1, 2]])
  dz = jax.grad(lambda z: qcfs(z, lam, levels).sum())(z)
  np.testing.assert_array_equal(dz, [[0, 0], [1, 1], [0, 0]])
  dlam = jax.grad(lambda lam: qcfs(z, lam, levels).sum())(lam)
  np.testing.assert_allclose(
    dlam, [(0.25 - 0.3) / 1 + 1, (1.5 - 1.3) / 2 + 1], 1e-6
  )


@given(st.integers(0, 2**31), st.sampled_from([1, 4, 8]))
def test_errors_add_up(seed, ticks):
  rng = np.random.default_rng(seed)
  drives = rng.normal(0.3, 0.8, (ticks, 50)).astype(np.float32)
  _, spikes, _ = rules.compiled(HALF, drives, None, jnp.full(50, 1.0))
  mean, count = jnp.mean(drives, 0), jnp.sum(spikes, 0)
  parts = conversion_errors(mean, count, ticks, 1.0)
  total = np.asarray(count) / ticks - np.maximum(mean, 0)
  np.testing.assert_allclose(parts.total, total, 1e-5, 1e-6)
  squares = parts.mean_squares()
  assert set(squares) == {"clipping", "quantisation", "unevenness", "total"}
  assert float(squares["total"]) == pytest.approx(
    float(np.mean(total**2)), rel=1e-4
  )
  assert (np.asarray(parts.clipping) <= 0).all()
  assert np.abs(parts.quantisation).max() <= 0.5 / ticks + 1e-6


def test_quantisation_error_of_an_even_drive():
  lam, ticks = 3.0, 5
  mean = jnp.linspace(0, lam, 100_001)
  _, spikes = run(HALF, constant(mean, ticks), threshold=lam)
  parts = conversion_errors(mean, jnp.sum(spikes, 0), ticks, lam)
  square = float(parts.mean_squares()["quantisation"])
  assert square == pytest.approx(lam**2 / (12 * ticks**2), rel=1e-3)
  # From rest instead of half a threshold: four times as large.
  _, spikes = run(IF(), constant(mean, ticks), threshold=lam)
  parts = conversion_errors(mean, jnp.sum(spikes, 0), ticks, lam)
  square = float(parts.mean_squares()["total"])
  assert square == pytest.approx(4 * lam**2 / (12 * ticks**2), rel=1e-2)


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    ((1.0, 0), "levels|ticks is 0"),
    ((0.0, 4), "threshold is 0"),
    ((math.nan, 4), "threshold is nan"),
    ((np.array([1.0, -1.0]), 4), "threshold is -1"),
  ],
)
def test_refused(arguments, words):
  with pytest.raises(ConfigError, match=words):
    qcfs(jnp.ones(2), *arguments)
