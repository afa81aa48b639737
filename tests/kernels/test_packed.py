"""Two-bit weights: the layout, the native kernel, and doing without it."""

import sys
import warnings

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from jaxnmc.errors import UserError
from jaxnmc.kernels import native, packed, stack

TOP = 32639
SIZES = (1, 63, 64, 65, 255, 256, 257, 700)


def codes(rng, *shape):
  return rng.integers(-1, 2, shape).astype(np.int8)


def rows(rng, m: int, k: int):
  """Adversarial activations: limits, signs that alternate, zeros, anything."""
  sign = np.where(np.arange(k) % 2, 1, -1)
  yield np.full((m, k), TOP)
  yield np.full((m, k), -TOP)
  yield np.broadcast_to(TOP * sign, (m, k))
  yield np.zeros((m, k), int)
  yield rng.integers(-TOP, TOP + 1, (m, k))
  yield rng.integers(-128, 129, (m, k))


def by_python(x, weights):
  """x @ weights.T in Python's integers, for a few of the results."""
  return [
    [sum(int(a) * int(w) for a, w in zip(row, col)) for col in weights]
    for row in x
  ]


@pytest.mark.parametrize("k", SIZES)
def test_packing_keeps_every_code(k):
  matrix = codes(np.random.default_rng(k), 3, 5, k)
  small = packed.pack(matrix)
  assert small.dtype == np.uint8
  assert small.shape == (3, 5, 64 * -(-k // 256))
  assert (np.asarray(packed.unpack(jnp.asarray(small), k)) == matrix).all()


def test_the_layout_is_the_one_that_is_described():
  row = np.zeros((1, 300), np.int8)
  row[0, 2], row[0, 64 + 2], row[0, 256 + 7] = 1, -1, 1
  small = packed.pack(row)[0]
  # Zeros are code 1 in all four fields.
  assert small[2] == 0b01010010
  assert small[64 + 7] == 0b01010110
  assert {*small.tolist()} == {0b01010101, 0b01010010, 0b01010110}


@pytest.mark.parametrize(
  "bad", [np.full((1, 4), 2), np.full((1, 4), -2), np.zeros((1, 2**16 + 1))]
)
def test_what_cannot_be_packed(bad):
  with pytest.raises(ValueError, match="packed rows hold -1, 0 and 1"):
    packed.pack(bad.astype(np.int8))


@pytest.mark.parametrize("path", range(-1, len(native.PATHS)))
@pytest.mark.parametrize("k", SIZES)
def test_products_are_exact(kernel, k, path):
  rng = np.random.default_rng(k)
  matrix = codes(rng, 3, 37, k)
  matrix[1, 0], matrix[1, 1] = 1, -1
  small = jnp.asarray(packed.pack(matrix))
  run = jax.jit(packed.product, static_argnames="path")
  for m in (1, 2, 5):
    for x in rows(rng, m, k):
      for layer in (0, 1, 2):
        found = run(
          jnp.asarray(x, jnp.int32), small, jnp.int32(layer), path=path
        )
        exact = x.astype(object) @ matrix[layer].astype(object).T
        assert found.tolist() == exact.tolist()
  x = rng.integers(-TOP, TOP + 1, (1, k))
  found = run(jnp.asarray(x, jnp.int32), small, jnp.int32(1), path=path)
  assert found.tolist() == by_python(x, matrix[1])


def test_large_products_are_shared_by_threads(kernel, in_threads):
  rng = np.random.default_rng(0)
  matrix = codes(rng, 1, 4097, 1024)
  small = jnp.asarray(packed.pack(matrix))
  run = jax.jit(packed.product)
  x = [rng.integers(-TOP, TOP + 1, (1, 1024)) for _ in range(8)]
  want = [v @ matrix[0].astype(np.int64).T for v in x]

  def wrong(i):
    for n in range(20):
      found = run(jnp.asarray(x[i], jnp.int32), small, jnp.int32(0))
      if (np.asarray(found) != want[i]).any():
        yield i, n

  assert not in_threads(wrong)


def test_a_batch_is_its_rows(kernel):
  rng = np.random.default_rng(1)
  matrix = codes(rng, 2, 9, 100)
  small = jnp.asarray(packed.pack(matrix))
  x = rng.integers(-TOP, TOP + 1, (4, 3, 100)).astype(np.int32)
  one = lambda v: packed.product(v, small, jnp.int32(1))
  found = jax.jit(jax.vmap(one))(x)
  assert (np.asarray(found) == x.astype(np.int64) @ matrix[1].T).all()
  nested = jax.vmap(jax.vmap(one))(x[None])
  assert (nested[0] == found).all()


def choose(monkeypatch, path: str | None) -> None:
  monkeypatch.setattr(native, "available", lambda: path is not None)
  monkeypatch.setattr(native, "path", lambda: path)


@pytest.mark.parametrize("bound", [127, TOP])
@pytest.mark.parametrize("m", [1, stack.FEW, stack.FEW + 1, 40])
@pytest.mark.parametrize("path", [None, *native.PATHS])
def test_a_stack_chooses_by_kernel_and_rows(
  m, bound, path, monkeypatch, request
):
  if path is not None:
    request.getfixturevalue("kernel")
  choose(monkeypatch, path)
  rng = np.random.default_rng(2)
  matrix = codes(rng, 3, 8, 40)
  weights = stack.stack(matrix)
  # Vector instructions: packed and nothing else. Without: both, or codes only.
  alone = path not in (None, "plain")
  assert (weights.packed is not None) == (path is not None)
  assert (weights.codes is None) == alone
  x = rng.integers(-bound, bound + 1, (m, 40)).astype(np.int32)
  run = lambda x: stack.product(weights, jnp.int32(2), x, bound)
  seen = []
  native_product = packed.product

  def spy(*args, planes):
    seen.append(planes)
    return native_product(*args, planes=planes)

  monkeypatch.setattr(packed, "product", spy)
  text = str(jax.make_jaxpr(run)(x))
  mine = alone or (path == "plain" and m <= stack.FEW)
  assert text.count("ffi_call") == mine
  assert seen == ([1 if bound == 127 else 2] if mine else [])
  assert (np.asarray(run(x)) == x.astype(np.int64) @ matrix[2].T).all()


def test_a_stack_is_its_packed_bytes_on_the_device(kernel, monkeypatch):
  choose(monkeypatch, "avx2")
  matrices = codes(np.random.default_rng(3), 5, 6, 300)
  weights = stack.stack(list(matrices))
  leaves = jax.tree.leaves(weights)
  assert [(v.dtype, v.shape) for v in leaves] == [(np.uint8, (5, 6, 128))]
  assert (np.asarray(leaves[0]) == packed.pack(matrices)).all()


@pytest.mark.parametrize("path", [None, *native.PATHS])
def test_wide_weights_are_not_packed(path, monkeypatch):
  choose(monkeypatch, path)
  for wide in (5, -2):
    matrices = np.full((2, 2, 3), wide, np.int8)
    matrices[0] = 0
    weights = stack.stack(matrices)
    assert weights.packed is None
    assert (np.asarray(weights.codes) == matrices).all()


# --- building


@pytest.fixture
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.setattr(native, "_library", native._library.__wrapped__)
  return tmp_path / "jaxnmc"


def test_without_a_compiler_there_is_one_warning(cache, monkeypatch):
  monkeypatch.setenv("PATH", "")
  monkeypatch.delenv("CXX", raising=False)
  with pytest.raises(UserError, match="no C\\+\\+ compiler found"):
    native.build()
  with pytest.warns(RuntimeWarning, match="the integers are the same"):
    assert native._library() is None
  assert not cache.exists()


def test_a_compiler_that_fails_is_quoted(cache, monkeypatch, tmp_path):
  broken = tmp_path / "broken"
  broken.write_text("#!/bin/sh\necho 'no such flag' >&2\nexit 3\n")
  broken.chmod(0o755)
  monkeypatch.setenv("CXX", str(broken))
  with pytest.raises(UserError, match="broken could not build .* no such flag"):
    native.build()
  assert list(cache.glob("*.so")) == []


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
  (tmp_path / "file").write_text("")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
  monkeypatch.setenv("CXX", sys.executable)  # it is there; it will not be run
  with pytest.raises(UserError, match="cannot be built in"):
    native.build()


def test_it_can_be_switched_off(cache, monkeypatch):
  monkeypatch.setenv("JAXNMC_NATIVE", "0")
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    assert native._library() is None
    assert native.path() is None
  assert not cache.exists()


def test_it_is_built_once(cache, kernel):
  first = native.build()
  assert first.parent == cache
  stamp = first.stat().st_mtime_ns
  assert native.build() == first
  assert first.stat().st_mtime_ns == stamp
  assert [p.name for p in cache.iterdir()] == [first.name]
