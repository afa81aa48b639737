"""Norms of one token, and BatchNorm folded into weights."""

import decimal
import fractions

import numpy as np
import pytest
from jax import numpy as jnp

from jaxnmc.errors import ConfigError
from jaxnmc.spike.norms import fold_batch_norm, token_norm

N = 16


def _case(seed, dtype=np.float32):
  rng = np.random.default_rng(seed)
  weight = rng.normal(size=(N, 5)).astype(dtype)
  rows = rng.normal(size=(4, N)).astype(dtype)
  bias, gain, offset, mean = rows
  return weight, bias, gain, offset, mean, rng.random(N).astype(dtype)


def _exact(weight, bias, gain, offset, mean, variance, eps):
  """Folded in 60 digits."""
  f = fractions.Fraction
  with decimal.localcontext(decimal.Context(prec=60)):
    root = (decimal.Decimal(float(variance)) + decimal.Decimal(eps)).sqrt()
  factor = f(float(gain)) / f(root)
  rows = [f(float(w)) * factor for w in weight]
  return rows, (f(float(bias)) - f(float(mean))) * factor + f(float(offset))


@pytest.mark.parametrize("seed", range(4))
def test_folded_to_one_ulp(seed):
  case = _case(seed)
  weight, bias = fold_batch_norm(*case, eps=1e-5)
  assert weight.dtype == bias.dtype == np.float32
  for i in range(N):
    row, constant = _exact(*(a[i] for a in case), 1e-5)
    for got, wanted in [*zip(weight[i], row), (bias[i], constant)]:
      off = abs(fractions.Fraction(float(got)) - wanted)
      assert off <= fractions.Fraction(float(np.spacing(abs(got))))


def test_folded_layer_is_the_two_layers():
  case = _case(9, np.float64)
  weight, bias, gain, offset, mean, variance = case
  x = np.random.default_rng(1).normal(size=(30, 5))
  plain = x @ weight.T + bias
  wanted = (plain - mean) / np.sqrt(variance + 1e-5) * gain + offset
  folded, shift = fold_batch_norm(*case)
  np.testing.assert_allclose(x @ folded.T + shift, wanted, 1e-11, 1e-12)
  folded, shift = fold_batch_norm(weight, None, *case[2:])
  wanted = (plain - bias - mean) / np.sqrt(variance + 1e-5) * gain + offset
  np.testing.assert_allclose(x @ folded.T + shift, wanted, 1e-11, 1e-12)


def test_tokens_are_normalised_alone():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(4, 6, 8)).astype(np.float32)
  gain, bias = rng.normal(size=(2, 8)).astype(np.float32)
  other = x.copy()
  other[:, 3] += 5
  for b in (None, bias):
    before = token_norm(jnp.asarray(x), gain, b)
    after = token_norm(jnp.asarray(other), gain, b)
    changed = np.any(np.asarray(before) != np.asarray(after), (0, 2))
    np.testing.assert_array_equal(changed, np.arange(6) == 3)
  centred = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
  np.testing.assert_allclose(
    token_norm(jnp.asarray(x), gain, bias), centred * gain + bias, 1e-3, 1e-4
  )


def test_refused():
  case = list(_case(0))
  with pytest.raises(ConfigError, match=r"shape of gain is \[3\]"):
    fold_batch_norm(*case[:2], np.ones(3), *case[3:])
  with pytest.raises(ConfigError, match="least variance is -1"):
    fold_batch_norm(*case[:5], np.full(N, -1.0))
  with pytest.raises(ConfigError, match="eps 0; allowed"):
    fold_batch_norm(*case, eps=0.0)
