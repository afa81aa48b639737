"""64-bit pairs, multiply-shift and shift against wider integers."""

import chex
import jax
import numpy as np
import pytest
from jax import numpy as jnp

from jaxnmc.errors import FormatError
from jaxnmc.numerics import wide

TOP = 2**31 - 1
LIMITS = [(-TOP, TOP), (-32639, 32639), (0, 2**15), (5, 5)]


def _samples() -> np.ndarray:
  """Powers of two and their neighbours, limbs of ones, both ends."""
  values = {0, 1, 3, TOP, TOP - 1, 0xFFFF, 0xFFFF0000 >> 1, 0x55555555}
  for i in range(31):
    values |= {2**i - 1, 2**i, 2**i + 1, 3 * 2**i}
  values |= {int(v) for v in np.random.default_rng(0).integers(0, TOP, 40)}
  values |= {-v for v in values} | {-TOP - 1}
  kept = sorted(v for v in values if -TOP - 1 <= v <= TOP)
  return np.array(kept, np.int64)


SAMPLES = _samples()
A, B = np.meshgrid(SAMPLES[::2], SAMPLES[::3] if len(SAMPLES) > 3 else SAMPLES)
A, B = A.ravel(), B.ravel()
PRODUCTS = A * B  # at most 2^62


def _int32(x):
  return jnp.asarray(np.asarray(x, np.int32))


def _pairs(values):
  """int64 -> (hi, lo) as the library holds them."""
  hi = (values >> 32).astype(np.int32)
  lo = (values & 0xFFFFFFFF).astype(np.uint32)
  return jnp.asarray(hi), jnp.asarray(lo)


def _joined(hi, lo):
  return (np.asarray(hi).astype(np.int64) << 32) + np.asarray(lo)


def _rounded(values, shift):
  """R of the page on int64."""
  if shift <= 0:
    return values << -shift
  return (values + (1 << (shift - 1))) >> shift


class WideTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  def test_mul_wide(self):
    hi, lo = self.variant(wide.mul_wide)(_int32(A), _int32(B))
    chex.assert_type([hi, lo], [jnp.int32, jnp.uint32])
    np.testing.assert_array_equal(_joined(hi, lo), PRODUCTS)

  @chex.variants(with_jit=True, without_jit=True)
  def test_add_wide_carries(self):
    values = np.array([0, 2**32 - 1, -1, 2**62, -(2**62), 2**33 - 5, -5])
    added = np.array([0, 1, 5, TOP])[:, None]
    pair = self.variant(wide.add_wide)(*_pairs(values), _int32(added))
    np.testing.assert_array_equal(_joined(*pair), values + added)

  @chex.variants(with_jit=True, without_jit=True)
  def test_shr_wide_by_arrays(self):
    values = np.concatenate([PRODUCTS[::37], [2**62, -(2**62), -1, 2**32]])
    shifts = np.arange(64)[:, None]
    pair = self.variant(wide.shr_wide)(*_pairs(values), _int32(shifts))
    np.testing.assert_array_equal(_joined(*pair), values >> shifts)

  @chex.variants(with_jit=True, without_jit=True)
  def test_mul_shr_by_arrays(self):
    run = self.variant(wide.mul_shr)
    shifts = np.arange(1, wide.MAX_SHIFT + 1)[:, None]
    a, b = A[::5], B[::5]
    for low, high in LIMITS:
      found = run(_int32(a), _int32(b), _int32(shifts), low, high)
      true = [np.clip(_rounded(a * b, int(s)), low, high) for s in shifts[:, 0]]
      np.testing.assert_array_equal(found, true)

  @chex.variants(with_jit=True, without_jit=True)
  def test_round_shift_by_arrays(self):
    run = self.variant(wide.round_shift)
    shifts = np.arange(-30, wide.MAX_SHIFT + 1)[:, None]
    for low, high in LIMITS:
      found = run(_int32(SAMPLES), _int32(shifts), low, high)
      true = [
        np.clip(_rounded(SAMPLES, int(s)), low, high) for s in shifts[:, 0]
      ]
      np.testing.assert_array_equal(found, true)

  @chex.variants(with_jit=True, without_jit=True)
  def test_limits_may_be_arrays(self):
    low, high = np.array([[-7], [0]]), np.array([[9], [3]])
    for found in (
      self.variant(wide.round_shift)(
        _int32(SAMPLES), _int32(2), _int32(low), _int32(high)
      ),
      self.variant(wide.mul_shr)(
        _int32(SAMPLES), _int32(2), _int32(3), _int32(low), _int32(high)
      ),
    ):
      np.testing.assert_array_equal(
        found, np.clip(_rounded(SAMPLES, 2), low, high)
      )


@pytest.mark.parametrize("shift", range(64))
def test_shr_wide_by_a_number(shift):
  values = np.concatenate([PRODUCTS[::37], [2**62, -(2**62), -1, 2**32]])
  pair = wide.shr_wide(*_pairs(values), shift)
  np.testing.assert_array_equal(_joined(*pair), values >> shift)


@pytest.mark.parametrize("shift", range(1, wide.MAX_SHIFT + 1))
def test_mul_shr_by_a_number(shift):
  for low, high in LIMITS[:2]:
    found = wide.mul_shr(_int32(A), _int32(B), shift, low, high)
    np.testing.assert_array_equal(
      found, np.clip(_rounded(PRODUCTS, shift), low, high)
    )


@pytest.mark.parametrize("shift", range(-30, wide.MAX_SHIFT + 1))
def test_round_shift_by_a_number(shift):
  for low, high in LIMITS:
    found = wide.round_shift(_int32(SAMPLES), shift, low, high)
    np.testing.assert_array_equal(
      found, np.clip(_rounded(SAMPLES, shift), low, high)
    )


def test_static_shifts_compile_too():
  @jax.jit
  def run(a, b):
    shifts = (1, 2, 15, 16, 17, 31, 32, 33, 34, 62)
    products = [wide.mul_shr(a, b, s, -TOP, TOP) for s in shifts]
    right = [wide.round_shift(a, s, -TOP, TOP) for s in (-30, 0, *shifts)]
    return shifts, products, right

  shifts, products, right = run(_int32(A), _int32(B))
  for shift, found in zip(shifts, products):
    true = np.clip(_rounded(PRODUCTS, int(shift)), -TOP, TOP)
    np.testing.assert_array_equal(found, true)
  for shift, found in zip((-30, 0, *shifts), right):
    true = np.clip(_rounded(A, int(shift)), -TOP, TOP)
    np.testing.assert_array_equal(found, true)


def test_halves_round_up():
  a = _int32([-5, -3, -1, 1, 3, 5])
  assert wide.round_shift(a, 1, -9, 9).tolist() == [-2, -1, 0, 1, 2, 3]
  assert wide.mul_shr(a, 1 << 30, 31, -9, 9).tolist() == [-2, -1, 0, 1, 2, 3]


def test_a_long_left_shift_is_refused():
  with pytest.raises(FormatError, match="left shift by 31 bits"):
    wide.round_shift(_int32([1]), -31, -9, 9)


@pytest.mark.parametrize("shift", [17, 18, 24, 31, 40, 48, 49, 62])
def test_short_scale_multiply_equals_the_long_one(shift):
  a = np.array([0, 1, -1, 65535, -65536, 2**31 - 1, -(2**31), 123456789])
  b = np.array([0, 1, 32768, 65535, 40503])
  got = wide.mul_shr_scale(
    jnp.int32(a)[:, None], jnp.int32(b), shift, -32640, 32640
  )
  half = 1 << (shift - 1)
  want = [
    [max(-32640, min(32640, (int(x) * int(y) + half) >> shift)) for y in b]
    for x in a
  ]
  np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("shift", [10, 11, 16, 25, 33, 40, 41, 62])
def test_short_root_multiply_equals_the_long_one(shift):
  top = 32639 * 127
  a = np.array([0, 1, -1, top, -top, 1000003, -3000001])
  b = np.array([0, 1, 63, 511, 512, 264045, 263681, 99999])
  got = wide.mul_shr_root(
    jnp.int32(a)[:, None], jnp.int32(b), shift, -32640, 32640
  )
  half = 1 << (shift - 1)
  want = [
    [max(-32640, min(32640, (int(x) * int(y) + half) >> shift)) for y in b]
    for x in a
  ]
  np.testing.assert_array_equal(got, want)


SCALES = np.array([0, 1, 2, 2**15, 43691, 52429, 2**16 - 2, 2**16 - 1])
GAINED = 32639 * 127  # largest 16-bit code times the largest 8-bit gain
ROOTS = np.array([0, 1, 63, 511, 512, 513, 4096, 65535, 263679, 264045])


@pytest.mark.parametrize("shift", range(17, wide.MAX_SHIFT + 1))
def test_the_short_multiply_of_a_scale(shift):
  a, b = np.meshgrid(SAMPLES, SCALES)
  true = _rounded(a * b, shift)
  for low, high in LIMITS:
    found = wide.mul_shr_scale(_int32(a), _int32(b), shift, low, high)
    np.testing.assert_array_equal(found, np.clip(true, low, high))


@pytest.mark.parametrize("shift", range(10, wide.MAX_SHIFT + 1))
def test_the_short_multiply_of_a_root(shift):
  small = SAMPLES[np.abs(SAMPLES) <= GAINED]
  a, b = np.meshgrid([*small, GAINED, -GAINED, GAINED - 1], ROOTS)
  true = _rounded(a * b, shift)
  for low, high in LIMITS:
    found = wide.mul_shr_root(_int32(a), _int32(b), shift, low, high)
    np.testing.assert_array_equal(found, np.clip(true, low, high))
