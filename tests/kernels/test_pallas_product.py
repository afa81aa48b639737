"""Products for GPUs against NumPy's integers, kernels interpreted."""

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

from jaxnmc.kernels import (
  packed,
  pallas_gemv,
  pallas_launch,
  pallas_product,
  stack,
)

MOST = 32639


@pytest.fixture(autouse=True)
def interpret(monkeypatch):
  monkeypatch.setenv(pallas_launch.VARIABLE, "interpret")


def _codes(n: int, k: int) -> np.ndarray:
  """All 1, all -1, alternating, and random with a zero row."""
  sign = np.broadcast_to(1 - 2 * (np.arange(k) % 2), (n, k))
  random = np.random.default_rng([n, k]).integers(-1, 2, (n, k))
  random[n // 2] = 0
  ones = np.ones((n, k), int)
  return np.stack([ones, -ones, sign, random]).astype(np.int8)


def _inputs(m: int, k: int) -> np.ndarray:
  """Rows of all max, all min, alternating, zero, then random ones."""
  random = np.random.default_rng([m, k]).integers(-MOST, MOST + 1, (m, k))
  sign = 1 - 2 * (np.arange(k) % 2)
  for i, row in enumerate((sign * MOST, np.full(k, -MOST), np.full(k, MOST))):
    random[i : i + 1] = row
  random[3:4] = 0
  return random.astype(np.int32)


def _right(x, matrix) -> np.ndarray:
  return x.astype(np.int64) @ matrix.T.astype(np.int64)


@pytest.mark.parametrize(
  ("form", "m", "k", "n"),
  [
    ("add", 1, 256, 16),
    ("add", 2, 70, 11),
    ("add", 1, 300, 1),
    ("dot", 1, 257, 16),
    ("dot", 7, 300, 17),
    ("dot", 8, 256, 31),
    ("dot", 15, 1, 3),
    ("dot", 16, 511, 5),
  ],
)
def test_kernel(form, m, k, n):
  codes, x = _codes(n, k), _inputs(m, k)
  bits = jnp.asarray(packed.pack(codes))
  run = jax.jit(lambda x, i: pallas_gemv.product(x, bits, i, form))
  for layer, matrix in enumerate(codes):
    found = run(x, jnp.int32(layer))
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, _right(x, matrix))


@pytest.mark.parametrize("form", ["add", "dot"])
def test_rows_too_long_to_be_written_out(form):
  k = 256 * pallas_gemv._WRITTEN + 3
  codes, x = _codes(3, k), _inputs(2, k)
  found = pallas_gemv.product(
    jnp.asarray(x), jnp.asarray(packed.pack(codes)), jnp.int32(3), form
  )
  np.testing.assert_array_equal(found, _right(x, codes[3]))


@pytest.fixture
def forms(monkeypatch):
  """Names of the forms that the rule took, with their rows."""
  taken = []
  few, many = pallas_gemv._call, pallas_product._many

  def note_few(form, planes, *rest):
    taken.append(form)
    return few(form, planes, *rest)

  def note_many(codes, small, layer, x, bound):
    taken.append("int8")
    return many(codes, small, layer, x, bound)

  monkeypatch.setattr(pallas_gemv, "_call", note_few)
  monkeypatch.setattr(pallas_product, "_many", note_many)
  return taken


@pytest.mark.parametrize(
  ("m", "form"),
  [
    (1, "add"),
    (2, "add"),
    (3, "dot"),
    (16, "dot"),
    (17, "int8"),
    (512, "int8"),
  ],
)
def test_rule(m, form, forms):
  codes, x = _codes(9, 70), _inputs(m, 70)
  found = stack.product(stack.stack(list(codes)), jnp.int32(3), x, MOST)
  np.testing.assert_array_equal(found, _right(x, codes[3]))
  assert forms == [form]


def test_eight_bit_weights_have_no_packed_form(forms):
  codes = np.random.default_rng(0).integers(-127, 128, (2, 9, 70))
  codes, x = codes.astype(np.int8), _inputs(1, 70)
  found = stack.product(stack.stack(list(codes)), jnp.int32(1), x, MOST)
  np.testing.assert_array_equal(found, _right(x, codes[1]))
  assert forms == ["int8"]


@pytest.mark.parametrize("bound", [127, MOST])
@pytest.mark.parametrize("m", [1, 16, 33])
def test_many_rows(m, bound):
  codes = _codes(6, 50)
  x = np.clip(_inputs(m, 50), -bound, bound)
  bits = jnp.asarray(packed.pack(codes))
  for stored in ((jnp.asarray(codes), None), (None, bits)):
    found = pallas_product._many(*stored, jnp.int32(2), jnp.asarray(x), bound)
    np.testing.assert_array_equal(found, _right(x, codes[2]))


def test_a_batch_becomes_rows(forms):
  weights = stack.stack(list(_codes(5, 40)))
  x = _inputs(12, 40)

  def layers(x):
    each = lambda _, i: ((), stack.product(weights, i, x, MOST))
    return lax.scan(each, (), jnp.arange(4))[1]

  found = jax.jit(jax.vmap(layers))(x.reshape(6, 2, 40))
  for layer, matrix in enumerate(_codes(5, 40)):
    right = _right(x, matrix).reshape(6, 2, 5)
    np.testing.assert_array_equal(found[:, layer], right)
  # Traced for one sequence, and again for the rows of all.
  assert forms[-1] == "dot"


def test_batched_layers():
  weights = stack.stack(list(_codes(5, 40)))
  x = _inputs(4, 40).reshape(4, 1, 40)
  found = jax.vmap(lambda i, x: stack.product(weights, i, x, MOST))(
    jnp.arange(4), x
  )
  for layer, matrix in enumerate(_codes(5, 40)):
    np.testing.assert_array_equal(found[layer], _right(x[layer], matrix))


def test_left_alone_on_request(monkeypatch, forms):
  monkeypatch.setenv(pallas_launch.VARIABLE, "0")
  codes, x = _codes(5, 40), _inputs(1, 40)
  weights = stack.stack(list(codes))
  found = stack.product(weights, jnp.int32(3), jnp.asarray(x), MOST)
  np.testing.assert_array_equal(found, _right(x, codes[3]))
  assert forms == []


def test_a_kernel_that_does_not_compile_is_replaced(monkeypatch, forms):
  monkeypatch.setenv(pallas_launch.VARIABLE, "1")
  monkeypatch.setattr(pallas_launch, "wanted", lambda: True)
  pallas_product._compiles.cache_clear()
  codes, x = _codes(5, 41), _inputs(1, 41)
  weights = stack.stack(list(codes))
  with pytest.warns(RuntimeWarning, match="product kernel does not compile"):
    found = stack.product(weights, jnp.int32(3), jnp.asarray(x), MOST)
  np.testing.assert_array_equal(found, _right(x, codes[3]))
  assert forms[-1] == "int8"
  pallas_product._compiles.cache_clear()


@pytest.mark.skipif(
  jax.__version_info__ >= (0, 11), reason="0.11 lowers for a GPU it can see"
)
@pytest.mark.parametrize(
  ("form", "m", "k", "n"),
  [("add", 1, 1024, 5632), ("add", 2, 2816, 1001), ("dot", 16, 4500, 77)],
)
def test_lowers_through_triton(form, m, k, n, monkeypatch):
  monkeypatch.setenv(pallas_launch.VARIABLE, "1")
  like = jax.ShapeDtypeStruct
  size = 64 * -(-k // packed.BLOCK)
  traced = jax.jit(
    lambda x, bits, i: pallas_gemv.product(x, bits, i, form)
  ).trace(
    like((m, k), jnp.int32), like((3, n, size), jnp.uint8), like((), jnp.int32)
  )
  text = traced.lower(lowering_platforms=("cuda",)).as_text()
  assert "triton" in text
