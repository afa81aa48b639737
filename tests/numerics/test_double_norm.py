"""Two norms with one root: exact algebra, the paper's form, the integers."""

from fractions import Fraction

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import numpy as jnp

from jaxnmc import quantize
from jaxnmc.numerics.formats import NormFormat
from jaxnmc.ops import transform
from jaxnmc.ops.reference import Reference
from tools import error_curves

VECTOR = st.lists(
  st.tuples(*[st.fractions(-4, 4, max_denominator=16)] * 3),
  min_size=1,
  max_size=6,
)
EPS = st.fractions(Fraction(1, 10**6), 1, max_denominator=10**6)


@given(VECTOR, EPS, EPS)
def test_the_algebra_is_exact(rows, eps1, eps2):
  """Squares of both sides, so that nothing leaves the rationals."""
  x, gain, gain2 = zip(*rows)
  n = len(x)
  mean = lambda v: sum(a * a for a in v) / n
  y2 = [(a * g) ** 2 / (mean(x) + eps1) for a, g in zip(x, gain)]
  outer = sum(y2) / n + eps2
  v = [a * g for a, g in zip(x, gain)]
  inner = mean(v) + eps2 * (mean(x) + eps1)
  for y, value, g in zip(y2, v, gain2):
    assert y * g * g / outer == (value * g) ** 2 / inner


def _rows(n: int, seed: int = 0):
  rng = np.random.default_rng(seed)
  x = rng.standard_normal((5, n))
  return x, *(1 + 0.3 * rng.standard_normal((2, n)))


def test_reference_equals_two_norms():
  with jax.enable_x64(True):
    x, gain, gain2 = (jnp.asarray(v) for v in _rows(33))
    ops = Reference()
    fused = ops.double_norm("n", x, gain, {"k": gain2}, 1e-3, 1e-2)["k"]
    twice = ops.norm("b", ops.norm("a", x, gain, 1e-3), gain2, 1e-2)
    np.testing.assert_allclose(fused, twice, rtol=1e-13)


def test_the_scalar_form_is_exact_for_scalars_only():
  """Section 6.2's table of the paper's Eqs. 13-15."""
  exact = error_curves.scalar_norm_errors(0.0, 0.5)
  assert max(exact) < 1e-12
  element, mean = error_curves.scalar_norm_errors(0.3, 0.0)
  assert 0.25 < element < 0.31
  assert 0.01 < mean < 0.02
  element, mean = error_curves.scalar_norm_errors(0.3, 1.0)
  assert 0.25 < element < 0.31
  assert 0.04 < mean < 0.07


def _fused(ops, params, inputs, state):
  x = ops.embed("x", params["x"], inputs["ids"])
  gains = {"k": params["gain2"]}
  return ops.double_norm("n", x, params["gain"], gains, 1e-6, 1e-6), state


def _double(ops, params, inputs, state):
  x = ops.embed("x", params["x"], inputs["ids"])
  y = ops.norm("a", x, params["gain"], 1e-6)
  return {"k": ops.norm("n", y, params["gain2"], 1e-6)}, state


@pytest.mark.parametrize("fn", [_fused, _double])
@pytest.mark.parametrize("scale", [0.5, 1.0, 8.0])
def test_integers_are_close_to_the_reference(fn, scale):
  x, gain, gain2 = _rows(24)
  params = {"x": x * scale, "gain": gain, "gain2": gain2}
  params = jax.tree.map(lambda v: v.astype(np.float32), params)
  inputs = {"ids": np.arange(5, dtype=np.int32)}
  preset = quantize.W8A16.replace(weight_bits=16, norm=NormFormat(16))
  plan = quantize.plan(quantize.calibrate(fn)(params, [inputs]), preset)
  qparams = quantize.quantize_params(params, plan)
  out, _ = transform.fixed(fn, plan)(qparams, inputs)
  found = out["k"].to_float(jnp.float32)

  mean = lambda v: np.mean(v * v, axis=-1, keepdims=True)
  y = params["x"] * gain / np.sqrt(mean(params["x"]) + 1e-3)
  true = y * gain2 / np.sqrt(mean(y) + 1e-3)
  # The root is worse at the top of its domain: here 2^22 at scale 8.
  off = 0.02 if scale == 8 else 0.006
  assert np.linalg.norm(found - true) < off * np.linalg.norm(true)
