"""Ternary codes, their packing, and the straight-through estimator."""

import chex
import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import numpy as jnp

from jaxnmc.errors import FormatError
from jaxnmc.numerics import ternary
from jaxnmc.numerics.ste import ste
from jaxnmc.numerics.ternary import Ternary
from jaxnmc.quantize.params import matrix
from tests import oracle

CASES = {
  "zeros": np.zeros((3, 4)),
  # The scale is 1, so 0.5 and 1.5 are ties: both go to the even neighbour.
  "ties": np.array([[0.5, -0.5, 1.5, -1.5], [1.0, -1.0, 1.0, 1.0]]),
  "one row of ones": np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]),
  "below the least scale": np.array([[6e-6, -4e-6, 0.0, 4e-6]]),
  "grid": np.random.default_rng(0).integers(-64, 65, (9, 7)) / 64,
}


class TernaryTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  def test_codes_and_scale(self):
    for name, weight in CASES.items():
      weight = weight.astype(np.float32)
      found = self.variant(ternary.ternarize)(jnp.asarray(weight))
      true = oracle.ternary(weight.astype(np.float64).tolist())
      chex.assert_type([found.codes, found.scale], [jnp.int8, jnp.float32])
      assert found.codes.tolist() == true.codes, name
      assert found.shape == weight.shape
      scale = max(np.abs(weight.astype(np.float64)).mean(), 1e-5)
      np.testing.assert_allclose(found.scale, scale, rtol=1e-6)

  @chex.variants(with_jit=True, without_jit=True)
  def test_values_and_their_gradient(self):
    weight = jnp.asarray(CASES["grid"], jnp.float32)
    coded = ternary.ternarize(weight)
    run = self.variant(ternary.ternary_values)
    np.testing.assert_array_equal(run(weight), coded.codes * coded.scale)
    np.testing.assert_array_equal(run(coded), coded.codes * coded.scale)
    out = jnp.arange(63.0).reshape(9, 7)
    grad = self.variant(jax.grad(lambda w: jnp.vdot(run(w), out)))(weight)
    np.testing.assert_array_equal(grad, out)

  @chex.variants(with_jit=True, without_jit=True)
  def test_ste_returns_the_value_and_the_other_gradient(self):
    # 1 + (1e-9 - 1) would not return 1e-9 in float32.
    value, x = jnp.float32(1e-9), jnp.float32(3.0)
    run = self.variant(lambda x: ste(value * (x > 0), x**2))
    assert float(run(x)) == float(value)
    assert float(jax.grad(run)(x)) == 6.0
    assert float(jax.jvp(run, (x,), (jnp.float32(2.0),))[1]) == 12.0
    np.testing.assert_array_equal(jax.vmap(jax.grad(run))(jnp.ones(3)), 2.0)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_quantised_matrix(name, dtype):
  weight = CASES[name].astype(dtype)
  found = matrix(weight)
  true = oracle.ternary(weight.astype(np.float64).tolist())
  assert found.codes.dtype == np.int8
  assert (found.codes.tolist(), int(found.mult), found.exp) == tuple(true)
  assert found.l1 == np.abs(found.codes.astype(int)).sum(1).max()


def test_codes_do_not_depend_on_the_stored_type():
  # 0.5 (1 + 2^-24) of the scale 1 is above the tie, but not in float32
  # division: the quotient there is 0.5.
  row = np.array([0.5 + 2**-25, 1.5 - 2**-25, 1.0, 1.0], np.float64)[None]
  assert matrix(row).codes.tolist() == [[1, 1, 1, 1]]
  half = np.array([[0.5, 1.5, 1.0, 0.7]], np.float16)
  assert (
    matrix(half).codes.tolist() == matrix(half.astype(float)).codes.tolist()
  )


def test_a_ternary_matrix_is_used_as_it_is():
  codes = np.array([[1, 0, -1], [0, 0, 1]], np.int8)
  found = matrix(Ternary(codes, np.float32(0.25)))
  np.testing.assert_array_equal(found.codes, codes)
  assert (int(found.mult), found.exp, found.l1) == (2**15, 17, 2)
  again = ternary.ternarize(
    ternary.ternary_values(Ternary(codes, 0.25 * jnp.ones(())))
  )
  assert float(again.scale) == 0.125  # half of the weights are zero


@given(
  st.lists(st.lists(st.integers(-1, 1), min_size=9, max_size=9), max_size=4)
)
def test_pack_and_unpack(rows):
  codes = np.array(rows, np.int8).reshape(-1, 9)
  for size in range(10):
    packed = ternary.pack2(codes[:, :size])
    assert packed.shape == (len(rows), -(-size // 4))
    assert packed.dtype == np.uint8
    found = ternary.unpack2(packed, size)
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, codes[:, :size])


def test_packed_layout():
  packed = ternary.pack2(np.array([-1, 0, 1, 1, 1], np.int8))
  assert packed.tolist() == [0b10100100, 0b01010110]


def test_bad_packings_are_refused():
  with pytest.raises(FormatError, match="found -1..2"):
    ternary.pack2(np.array([2, -1]))
  with pytest.raises(FormatError, match="found -2..1"):
    ternary.pack2(np.array([1, -2]))
  with pytest.raises(FormatError, match="take 2 bytes a row; found 1"):
    ternary.unpack2(np.zeros(1, np.uint8), 5)
  with pytest.raises(FormatError, match="0b11"):
    ternary.unpack2(np.array([0b00110000], np.uint8), 4)
