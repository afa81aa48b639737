"""Integer matrix products against int64, at the ends of the ranges."""

import chex
import jax
import numpy as np
import pytest
from jax import numpy as jnp

from jaxnmc.kernels import ternary

ROWS = (1, 2, 7, 8, 15, 16, 17, 512)


def _inputs(style: str, shape, bound: int) -> np.ndarray:
  rng = np.random.default_rng(sum(shape))
  if style == "max":
    return np.full(shape, bound)
  if style == "min":
    return np.full(shape, -bound)
  if style == "alternating":
    return bound * (-1) ** np.arange(shape[-1]) * np.ones(shape, int)
  if style == "digits":  # both digits at their ends
    ends = [v for v in (127, 128, -127, -128, 255, 256, 32512) if v <= bound]
    return rng.choice([*ends, 0, 1, -1], shape)
  x = rng.integers(-bound, bound + 1, shape)
  if style == "zero rows":
    x[::2] = 0
  return x


STYLES = ("max", "min", "alternating", "digits", "random", "zero rows")


def _weights(style: str, n: int, k: int) -> np.ndarray:
  rng = np.random.default_rng(n * k)
  if style == "eight bit":
    return rng.choice([-128, -127, 127, 1, 0, 77], (n, k)).astype(np.int8)
  if style == "ones":
    return np.ones((n, k), np.int8)
  codes = rng.integers(-1, 2, (n, k)).astype(np.int8)
  codes[0] = 0
  return codes


class TernaryMatmulTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  def test_two_planes_and_one(self):
    k, n = 13, 11
    for bound in (ternary.MAX_TWO_PLANES, ternary.MAX_ONE_PLANE):
      run = self.variant(
        lambda x, w, bound=bound: ternary.ternary_matmul(x, w, bound)
      )
      for kind in ("ternary", "ones", "eight bit"):
        codes = _weights(kind, n, k)
        for style in STYLES:
          x = _inputs(style, (8, k), bound)
          found = run(jnp.asarray(x, jnp.int32), jnp.asarray(codes))
          chex.assert_type(found, jnp.int32)
          true = x.astype(np.int64) @ codes.T.astype(np.int64)
          np.testing.assert_array_equal(found, true, err_msg=f"{kind} {style}")


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("bound", [128, 32639, 127, 1])
def test_every_number_of_rows(rows, bound):
  codes = _weights("ternary", 17, 33)
  x = _inputs("random", (rows, 33), bound)
  x[0] = bound
  found = ternary.ternary_matmul(jnp.asarray(x, jnp.int32), codes, bound)
  np.testing.assert_array_equal(found, x @ codes.T.astype(np.int64))


@pytest.mark.parametrize(("n", "k"), [(1, 1), (1, 5), (5, 1), (2, 257)])
def test_odd_sizes(n, k):
  codes = _weights("ones", n, k)
  for rows in (1, 3):
    x = _inputs("min", (rows, k), 32639)
    found = ternary.ternary_matmul(jnp.asarray(x, jnp.int32), codes, 32639)
    np.testing.assert_array_equal(found, x @ codes.T.astype(np.int64))


def test_largest_sum_that_the_page_allows():
  """Rows of 65,795 weights at the largest input: 31 bits exactly."""
  k = 65_795
  x = np.full((1, k), 32639, np.int32)
  codes = np.stack([np.ones(k), -np.ones(k)]).astype(np.int8)
  found = ternary.ternary_matmul(jnp.asarray(x), jnp.asarray(codes), 32639)
  assert found.tolist() == [[k * 32639, -k * 32639]]
  assert k * 32639 < 2**31 <= (k + 1) * 32639


def test_leading_axes():
  x = _inputs("random", (2, 3, 4, 9), 32639)
  codes = _weights("ternary", 5, 9)
  run = lambda x: ternary.ternary_matmul(x, codes, 32639)
  true = x @ codes.T.astype(np.int64)
  x = jnp.asarray(x, jnp.int32)
  np.testing.assert_array_equal(run(x), true)
  np.testing.assert_array_equal(jax.vmap(run)(x), true)
  np.testing.assert_array_equal(run(x[0, 0, 0]), true[0, 0, 0])


def test_batched_product():
  rng = np.random.default_rng(3)
  x = _inputs("digits", (6, 9), 32639)
  x[0], x[1] = 32639, -32639
  codes = rng.integers(-1, 2, (6, 5, 9)).astype(np.int8)
  found = ternary.batched_ternary_matmul(
    jnp.asarray(x, jnp.int32), jnp.asarray(codes)
  )
  true = np.einsum("pk,pnk->pn", x, codes.astype(np.int64))
  np.testing.assert_array_equal(found, true)
