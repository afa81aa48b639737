"""Inverse square root over its whole domain, and the mean before it."""

import chex
import jax
import numpy as np
import pytest
from jax import numpy as jnp

from jaxnmc.numerics import rsqrt
from tests import oracle

TOP = 2**24 - 1
EDGES = sorted({1, TOP} | {2**k + d for k in range(1, 24) for d in (-1, 0, 1)})


def _octave(k: int) -> tuple[np.ndarray, np.ndarray, int, int]:
  """Section 6.1 in int64 for 2^k <= x < 2^(k+1).

  Returns:
    x, y, the largest product on the way and the smallest Y.
  """
  x = np.arange(1 << k, 1 << (k + 1), dtype=np.int64)
  seed = np.full_like(x, oracle.SEEDS[23 - k])
  b, y = x, seed >> 1
  largest, smallest = 0, 1 << 32
  for _ in range(5):
    first = b * seed
    second = (first >> 13) * seed
    b = second >> 13
    seed = 12288 - b
    third = y * seed
    y = third >> 13
    largest = max(largest, *(int(p.max()) for p in (first, second, third)))
    smallest = min(smallest, int(seed.min()))
  return x, y, largest, smallest


# Section 6.1: error in percent by octave, as (first, last, low, high).
ERRORS = [
  (0, 0, 0.72, 0.73),
  (1, 3, 0.09, 0.41),
  (4, 9, 0.01, 0.22),
  (10, 13, -0.12, 0.11),
  (14, 15, -0.24, 0.05),
  (16, 17, -0.51, 0.03),
  (18, 19, -0.81, 0.02),
  (20, 23, -2.80, 0.02),
]


def test_the_whole_domain():
  run = jax.jit(rsqrt.inv_sqrt)
  least, most, top_product = 1 << 32, 0, 0
  bounds = {k: (lo, hi) for a, b, lo, hi in ERRORS for k in range(a, b + 1)}
  for k in range(24):
    x, y, product, seed = _octave(k)
    least, most = min(least, int(y.min())), max(most, int(y.max()))
    top_product = max(top_product, product)
    assert seed > 0
    error = 100 * (y * np.sqrt(x) / 2**18 - 1)
    low, high = bounds[k]
    assert low <= error.min()
    assert error.max() <= high
    found = np.asarray(run(jnp.asarray(x.astype(np.int32))))
    np.testing.assert_array_equal(found, y)
  assert top_product == 2_449_473_390 < 2**32
  assert (least, most) == (rsqrt.MIN_ROOT, rsqrt.MAX_ROOT) == (63, 264_045)


class RootTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  def test_every_exponent(self):
    found = self.variant(rsqrt.inv_sqrt)(jnp.asarray(EDGES, jnp.int32))
    chex.assert_type(found, jnp.int32)
    assert found.tolist() == [oracle.inv_sqrt(x) for x in EDGES]

  @chex.variants(with_jit=True, without_jit=True)
  def test_float64_form_is_equal(self):
    with jax.enable_x64(True):
      dense = np.unique(np.geomspace(1, TOP, 200_000).astype(np.int32))
      x = np.union1d(dense, np.array(EDGES, np.int32))
      found = self.variant(rsqrt.inv_sqrt_float)(jnp.asarray(x, jnp.float64))
      chex.assert_type(found, jnp.float64)
      whole = self.variant(rsqrt.inv_sqrt)(jnp.asarray(x))
      np.testing.assert_array_equal(found, whole)

  @chex.variants(with_jit=True, without_jit=True)
  def test_mean_square(self):
    top = 2**31 - 1
    low = np.array([0, 1, 32767, 32768, 2**30 + 12345, top])
    high = np.array([0, 1, 77, 2**20 + 3, 2**30, top - 2**16])[:, None]
    shifts = np.arange(16, 63)[:, None, None]
    total = (high << 15) + low  # below 2^47
    run = self.variant(rsqrt.mean_square)
    for mult in (2**15, 43691, 2**16 - 1):
      product = total * mult
      for limit in (2**24 - 1, 255):
        rounded = (product + (1 << (shifts - 1))) >> shifts
        found = run(
          jnp.asarray(high, jnp.int32),
          jnp.asarray(low, jnp.int32),
          jnp.int32(mult),
          jnp.asarray(shifts, jnp.int32),
          limit,
        )
        np.testing.assert_array_equal(found, np.minimum(rounded, limit))


@pytest.mark.parametrize("shift", [16, 17, 31, 46, 47, 48, 62])
def test_mean_square_by_numbers(shift):
  rng = np.random.default_rng(shift)
  high = rng.integers(0, 2**31 - 2**16, 500)
  low = rng.integers(0, 2**31, 500)
  for mult in (2**15, 52429, 2**16 - 1):
    found = rsqrt.mean_square(
      jnp.asarray(high, jnp.int32),
      jnp.asarray(low, jnp.int32),
      mult,
      shift,
      2**24 - 1,
    )
    true = [
      min(oracle.rounded((h * 2**15 + v) * mult, shift), 2**24 - 1)
      for h, v in zip(high.tolist(), low.tolist())
    ]
    assert found.tolist() == true


def test_mean_square_ties_round_up():
  # 3 * 2^15 / 2^16 = 1.5
  three = rsqrt.mean_square(jnp.int32(0), jnp.int32(3), 2**15, 16, 255)
  one = rsqrt.mean_square(jnp.int32(0), jnp.int32(1), 2**15, 16, 255)
  assert (int(three), int(one)) == (2, 1)


@pytest.mark.parametrize("frac", [0, 2, 12, 24, 36])
def test_the_root_is_a_root(frac):
  x = np.array([200, 4096, 2**20 + 5])
  root = np.asarray(rsqrt.inv_sqrt(jnp.asarray(x, jnp.int32)))
  real = root * 2.0 ** -rsqrt.result_frac(frac)
  np.testing.assert_allclose(real, (x * 2.0**-frac) ** -0.5, rtol=0.02)


def test_recorded_lava_outputs(shared_dir):
  data = np.load(shared_dir / "golden" / "lava" / "invsqrt_a.npz")
  np.testing.assert_array_equal(rsqrt.TABLE, data["table"])
  found = rsqrt.inv_sqrt(jnp.asarray(data["x"].astype(np.int32)))
  np.testing.assert_array_equal(found, data["y"])
