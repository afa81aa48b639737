"""Derivatives of all surrogates, against recorded ones and their integrals."""

import math

import jax
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jax import numpy as jnp

from jaxnmc.errors import ConfigError
from jaxnmc.spike.surrogates import KINDS, Surrogate, heaviside, surrogate

# What the literature says each row is, in plain Python: (g, g(0), area).
PI, E = math.pi, math.exp
SAID = {
  "atan": (lambda u: 1 / (1 + (PI * u) ** 2), 1, 1),
  "fast_sigmoid": (lambda u: 1 / (1 + 25 * abs(u)) ** 2, 1, 2 / 25),
  "super_spike": (lambda u: 1 / (1 + abs(u)) ** 2, 1, 2),
  "soft_sign": (lambda u: 1 / (1 + 2 * abs(u)) ** 2, 1, 1),
  "sigmoid": (lambda u: 4 * E(-4 * u) / (1 + E(-4 * u)) ** 2, 1, 1),
  "triangular": (lambda u: max(0, 1 - 2 * abs(u)), 1, 1 / 2),
  "piecewise_quadratic": (lambda u: max(0, 1 - abs(u)), 1, 1),
  "piecewise_exp": (lambda u: E(-abs(u)) / 2, 1 / 2, 1),
  "erf": (lambda u: 2 / PI**0.5 * E(-4 * u * u), 2 / PI**0.5, 1),
  "slayer": (lambda u: E(-abs(u)) / 2, 1 / 2, 1),
  "boxcar": (lambda u: 0.5 if abs(u) <= 1 else 0, 1 / 2, 1),
  "spyx_arctan": (
    lambda u: 1 / (PI * (1 + (2 * PI * u) ** 2)),
    1 / PI,
    1 / (2 * PI),
  ),
  "straight_through": (lambda u: 1, 1, math.inf),
}
RECORDED = {
  "sj_atan": surrogate("atan"),
  "sj_sigmoid": surrogate("sigmoid"),
  "sj_softsign": surrogate("soft_sign"),
  "sj_superspike": surrogate("super_spike"),
  "sj_piecewise_quadratic": surrogate("piecewise_quadratic"),
  "sj_piecewise_exp": surrogate("piecewise_exp"),
  "sj_erf": surrogate("erf"),
  "st_fast_sigmoid": surrogate("fast_sigmoid"),
  "st_atan": surrogate("atan"),
  "st_sigmoid": surrogate("sigmoid", k=25),
}


def _slope(shape, u, strict=False):
  fire = lambda u: heaviside(u, shape, strict).sum()
  return jax.grad(fire)(jnp.asarray(u))


@pytest.mark.parametrize("name", RECORDED)
def test_recorded(recorded, name):
  golden = recorded("surrogates")
  strict = name.startswith("st_")
  x = golden["x"]
  assert (x == 0).sum() == 1
  fired = heaviside(jnp.asarray(x), RECORDED[name], strict)
  np.testing.assert_array_equal(fired, golden[f"y_{name}"])
  np.testing.assert_allclose(
    _slope(RECORDED[name], x, strict), golden[f"g_{name}"], 1e-4, 1e-6
  )


def test_every_kind_is_said():
  assert set(SAID) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_derivative_peak_and_area(kind):
  g, peak, area = SAID[kind]
  shape = surrogate(kind)
  u = np.linspace(-3, 3, 61, dtype=np.float32)
  wanted = [g(float(v)) for v in u]
  np.testing.assert_allclose(_slope(shape, u), wanted, 2e-5, 1e-7)
  assert shape.peak == pytest.approx(peak, rel=1e-6)
  assert shape.area == pytest.approx(area, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", [1, 3])
def test_integral_has_the_derivative_and_the_area(kind, factor):
  values = {k: v * factor for k, v in KINDS[kind].defaults.items()}
  shape = surrogate(kind, **values)
  with jax.enable_x64(True):
    # Off the grid of the kinks.
    u = jnp.linspace(-2.017, 2.023, 41, dtype=jnp.float64)
    step = 1e-5
    rise = shape.integral(u + step) - shape.integral(u - step)
    wanted = shape.derivative(u)
    np.testing.assert_allclose(rise / (2 * step), wanted, 1e-4, 1e-7)
    if math.isfinite(shape.area):
      far = jnp.asarray([-1e9, 1e9])
      low, high = shape.integral(far)
      assert float(low) == pytest.approx(0, abs=1e-7)
      assert float(high) == pytest.approx(shape.area, rel=1e-6)


@given(st.floats(-10, 10, width=32), st.booleans())
@example(0.0, True)
@example(0.0, False)
@example(-0.0, False)
def test_forward_is_the_step(u, strict):
  wanted = u > 0 if strict else u >= 0
  got = heaviside(jnp.float32(u), surrogate("erf"), strict)
  assert got.dtype == jnp.float32
  assert float(got) == wanted


def test_integers_stay_integers():
  u = jnp.arange(-2, 3)
  for strict, wanted in ((False, [0, 0, 1, 1, 1]), (True, [0, 0, 0, 1, 1])):
    got = jax.jit(lambda u, s=strict: heaviside(u, strict=s))(u)
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(got, wanted)


def test_smooth_forward_is_the_integral():
  shape = surrogate("sigmoid", smooth=True)
  u = jnp.linspace(-1, 1, 5)
  np.testing.assert_allclose(heaviside(u, shape), jax.nn.sigmoid(4 * u), 1e-6)
  # jax's own derivative of the same function.
  wanted = jax.grad(lambda u: jax.nn.sigmoid(4 * u).sum())(u)
  np.testing.assert_allclose(_slope(shape, u), wanted, 1e-5)


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    ({"kind": "arctan"}, "'arctan'; allowed are atan"),
    ({"kind": "atan", "k": 2}, "no parameter 'k'; it has a"),
    ({"kind": "atan", "a": 0}, "a is 0.0; allowed are finite"),
    ({"kind": "boxcar", "width": math.nan}, "width is nan"),
    ({"kind": "slayer", "tau": -1}, "tau is -1.0"),
  ],
)
def test_refused(arguments, words):
  with pytest.raises(ConfigError, match=words):
    surrogate(**arguments)


def test_refuses_a_wrong_count():
  with pytest.raises(ConfigError, match="2 parameters were given; it has 1"):
    Surrogate("atan", (1.0, 2.0))
