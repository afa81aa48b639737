"""Spike codes: round trips, recorded expansions, elastic spikes."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import numpy as jnp

from jaxnmc.errors import ConfigError, FormatError
from jaxnmc.spike import codes


@pytest.mark.parametrize("ticks", [1, 2, 5])
@pytest.mark.parametrize("name", codes.CODES)
def test_every_integer_comes_back(name, ticks):
  low, high = codes.limits(name, ticks)
  n = np.arange(low, high + 1)
  spikes = codes.encode(name, n, ticks)
  assert spikes.shape == (ticks, len(n))
  assert spikes.dtype == jnp.int8
  np.testing.assert_array_equal(codes.decode(name, spikes), n)
  allowed = {0, 1} if name in ("unary", "bitwise", "twos_complement") else None
  assert set(np.unique(spikes)) <= (allowed or {-1, 0, 1})
  # No two integers share a train, and none is free.
  assert len(np.unique(np.asarray(spikes), axis=1).T) == len(n)


@given(st.integers(0, 2**31 - 1))
def test_wide_integers(n):
  for name in ("bitwise", "signed_bitwise", "twos_complement"):
    ticks = 31
    value = n >> 1 if name == "twos_complement" else n
    for v in (value, -value) if name != "bitwise" else (value,):
      spikes = np.asarray(codes.encode(name, np.int32(v), ticks)).tolist()
      assert int(codes.decode(name, jnp.asarray(spikes))) == v
      if v >= 0:
        assert "".join(map(str, spikes)) == f"{v:031b}"


@pytest.mark.parametrize("name", codes.CODES)
@given(largest=st.integers(1, 300))
def test_ticks_are_just_enough(name, largest):
  ticks = codes.ticks_for(name, largest)
  assert codes.limits(name, ticks)[1] >= largest
  if ticks > 1:
    assert codes.limits(name, ticks - 1)[1] < largest


def test_unary_is_ones_first():
  np.testing.assert_array_equal(codes.encode("unary", 2, 4), [1, 1, 0, 0])
  np.testing.assert_array_equal(codes.encode("ternary", -3, 4), [-1, -1, -1, 0])


def test_recorded(recorded):
  golden = recorded("int2spike")
  for name, key, n in (
    ("unary", "binary", "pos"),
    ("ternary", "ternary", "signed"),
    ("bitwise", "bitwise", "pos"),
    ("signed_bitwise", "bitwise_signed", "signed"),
    ("twos_complement", "bitwise_twos", "signed"),
  ):
    wanted = golden[key]
    got = codes.encode(name, golden[n], len(wanted))
    np.testing.assert_array_equal(got, wanted)
    largest = int(np.abs(golden[n]).max())
    assert codes.ticks_for(name, largest) == len(wanted)


@pytest.mark.parametrize("name", codes.CODES)
def test_a_product_of_spikes_is_that_of_the_integers(name):
  rng = np.random.default_rng(0)
  low, high = codes.limits(name, 6)
  n = rng.integers(low, high + 1, (4, 10)).astype(np.int32)
  w = rng.integers(-128, 128, (10, 3)).astype(np.int32)
  spikes = codes.encode(name, n, 6).astype(jnp.int32)
  np.testing.assert_array_equal(codes.decode(name, spikes @ w), n @ w)


def test_traced_integers_become_the_nearest():
  for name in codes.CODES:
    low, high = codes.limits(name, 3)
    encode = jax.jit(lambda n, name=name: codes.encode(name, n, 3))
    got = codes.decode(name, encode(jnp.asarray([-1000, 1000])))
    np.testing.assert_array_equal(got, [low, high])


def test_counts():
  x = jnp.asarray([[1.0, -3.0, 2.0, 2.0], [0, 0, 0, 0]])
  np.testing.assert_array_equal(
    codes.counts(x, 3), [[2, -4, 3, 3], [0, 0, 0, 0]]
  )
  assert (jax.grad(lambda x: codes.counts(x).max())(x[0]) != 0).any()


def test_recorded_elastic(recorded):
  golden = recorded("spikelm")
  spikes = codes.elastic(jnp.asarray(golden["x"]), golden["alpha"])
  y = spikes @ golden["w"].T + golden["b"]
  np.testing.assert_allclose(y, golden["y"], 1e-5, 1e-5)
  np.testing.assert_allclose(
    codes.elastic_amplitudes(jnp.asarray(golden["x"])), golden["alpha"], 1e-5
  )


def _elastic(x, a):
  """By a loop."""
  out, left = [], 0 * x[0]
  for row, amplitude in zip(x, a):
    u = left + row
    q = u / amplitude
    o = np.where(q > 0.5, amplitude, np.where(q < -0.5, -amplitude, 0))
    left = u / 4 * (amplitude - o)
    out.append(o)
  return np.stack(out)


def test_elastic_spikes_and_round_trip():
  rng = np.random.default_rng(5)
  x = rng.normal(size=(6, 200)).astype(np.float32)
  a = np.linspace(0.8, 1.3, 6, dtype=np.float32)
  got = np.asarray(codes.elastic(jnp.asarray(x), a))
  np.testing.assert_allclose(got, _elastic(x, a), 1e-6)
  # A spike train of signs carries all of it.
  signs = np.sign(got).astype(np.int8)
  np.testing.assert_array_equal(signs * a[:, None], got)
  assert set(np.unique(signs)) == {-1, 0, 1}


def test_elastic_gradients():
  a, u = jnp.asarray([1.0]), jnp.asarray([[0.3, -0.8, 2.0, -1.5]])
  loss = lambda u, a: codes.elastic(u, a).sum()
  du, da = jax.grad(loss, (0, 1))(u, a)
  np.testing.assert_array_equal(du, [[1, 1, 0, 0]])
  slope = (0 - 0.3) + (-1 + 0.8) + 1 - 1
  np.testing.assert_allclose(da, [slope / 2], 1e-6)


@pytest.mark.parametrize(
  ("do", "error", "words"),
  [
    (lambda: codes.encode("gray", 1, 2), ConfigError, "'gray' is unknown"),
    (lambda: codes.encode("unary", 1, 0), ConfigError, "ticks is 0"),
    (lambda: codes.encode("bitwise", 1, 32), ConfigError, "ticks is 32"),
    (lambda: codes.ticks_for("unary", 0), ConfigError, "magnitude is 0"),
    (
      lambda: codes.encode("unary", np.array([1, 5]), 4),
      FormatError,
      "5 is outside of 0 to 4, which 4 ticks hold",
    ),
    (lambda: codes.encode("bitwise", -1, 4), FormatError, "-1 is outside"),
    (lambda: codes.encode("twos_complement", 8, 4), FormatError, "-8 to 7"),
    (lambda: codes.counts(jnp.ones(2), 0), ConfigError, "k is 0"),
    (
      lambda: codes.elastic(jnp.ones((2, 3)), jnp.ones(3)),
      ConfigError,
      r"amplitudes is \[3\]; allowed is one per tick, \[2\]",
    ),
    (
      lambda: codes.elastic(jnp.ones((2, 3)), np.array([1.0, 0.0])),
      ConfigError,
      "amplitude is 0",
    ),
    (lambda: codes.elastic(jnp.ones((0, 3)), []), ConfigError, "ticks is 0"),
    (
      lambda: codes.elastic_amplitudes(jnp.ones((0, 3))),
      ConfigError,
      "ticks is 0",
    ),
  ],
)
def test_refused(do, error, words):
  with pytest.raises(error, match=words):
    do()
