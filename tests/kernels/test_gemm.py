"""The native product of any number of rows, on every path, and its choice."""

import ctypes
import pathlib
import subprocess

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from jaxnmc.kernels import native, packed

TOP = {1: 127, 2: 32639}
ROWS = (1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 512)
# Odd and even outputs and inputs: below, at and beyond a panel, a block and the
# depth that is unpacked at once.
SHAPES = ((1, 1), (31, 255), (32, 256), (33, 257), (65, 1100))
# Every shape, and every number of rows.
CASES = [(m, s) for m in (1, 5, 17) for s in SHAPES]
CASES += [(m, (33, 257)) for m in ROWS if m not in (1, 5, 17)]
TILES = "amx"


def styles(rng, m: int, k: int, top: int):
  """Adversarial activations: limits, signs that alternate, zeros, digits."""
  sign = np.where(np.arange(k) % 2, 1, -1)
  yield np.full((m, k), top)
  yield np.full((m, k), -top)
  yield np.broadcast_to(top * sign, (m, k))
  random = rng.integers(-top, top + 1, (m, k))
  random[::2] = 0
  yield random
  ends = [v for v in (127, 128, -127, -128, -129, 32512, 1, 0) if abs(v) <= top]
  yield rng.choice(ends, (m, k))


def matrix(rng, n: int, k: int) -> np.ndarray:
  codes = rng.integers(-1, 2, (3, n, k)).astype(np.int8)
  codes[1, 0], codes[1, -1], codes[1, n // 2] = 1, -1, 0
  return codes


def check(run, m: int, shape, planes: int) -> None:
  """`run(x, packed)` of the middle layer against NumPy's 64-bit integers."""
  rng = np.random.default_rng(m * planes)
  codes = matrix(rng, *shape)
  small = jnp.asarray(packed.pack(codes))
  for x in styles(rng, m, shape[1], TOP[planes]):
    found = np.asarray(run(jnp.asarray(x, jnp.int32), small))
    assert found.dtype == np.int32
    exact = x.astype(np.int64) @ codes[1].T.astype(np.int64)
    np.testing.assert_array_equal(found, exact)


@pytest.mark.parametrize("many", [0, 1])
@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize("path", range(len(native.PATHS)))
def test_every_path_is_exact(kernel, path, planes, many):
  run = lambda x, w: packed.product(
    x, w, jnp.int32(1), planes=planes, path=path, many=many
  )
  for m, shape in CASES:
    check(run, m, shape, planes)


def test_python_says_the_same(kernel):
  rng = np.random.default_rng(3)
  codes, x = matrix(rng, 5, 70), rng.integers(-TOP[2], TOP[2] + 1, (6, 70))
  small = jnp.asarray(packed.pack(codes))
  found = packed.product(jnp.asarray(x, jnp.int32), small, jnp.int32(2))
  assert found.tolist() == [
    [sum(int(a) * int(w) for a, w in zip(row, col)) for col in codes[2]]
    for row in x
  ]


def test_a_sum_at_the_end_of_32_bits(kernel):
  """The longest row there may be, at the largest input."""
  k = packed.MAX_IN
  codes = np.stack([np.ones(k), -np.ones(k)]).astype(np.int8)[None]
  small = jnp.asarray(packed.pack(codes))
  for m in (1, 5, 40):
    x = jnp.full((m, k), TOP[2], jnp.int32)
    found = packed.product(x, small, jnp.int32(0))
    assert found.tolist() == [[k * TOP[2], -k * TOP[2]]] * m
  assert k * TOP[2] < 2**31


def test_products_at_once_from_many_threads(kernel, in_threads):
  rng = np.random.default_rng(4)
  codes = matrix(rng, 300, 520)
  small = jnp.asarray(packed.pack(codes))
  run = jax.jit(packed.product)

  def wrong(i):
    rng = np.random.default_rng(i)
    for m in (5, 64, 200):  # shared by outputs, and by rows as well
      x = rng.integers(-TOP[2], TOP[2] + 1, (m, 520))
      want = x @ codes[i % 3].T.astype(np.int64)
      for _ in range(5):
        found = run(jnp.asarray(x, jnp.int32), small, jnp.int32(i % 3))
        if (np.asarray(found) != want).any():
          yield i, m

  assert not in_threads(wrong)


def test_nothing_in_and_nothing_out(kernel):
  small = jnp.asarray(packed.pack(np.ones((1, 3, 4), np.int8)))
  for m in (0, 2, 9):
    none = jnp.zeros((m, 0), jnp.int32)
    assert packed.product(none, small, jnp.int32(0)).tolist() == [[0] * 3] * m
  empty = packed.product(jnp.zeros((0, 4), jnp.int32), small, jnp.int32(0))
  assert empty.shape == (0, 3)


# --- tiles, which most machines do not have


def emulated(folder, kind: int) -> ctypes.CDLL:
  """The library with tile instructions in plain C++: 1 right, 2 wrong."""
  flags = [*native._FLAGS, f"-I{jax.ffi.include_dir()}"]
  flags.remove("-shared")
  once = folder / "objects"
  objects = [once / f"{s.stem}.o" for s in native.sources()]
  tiles = next(s for s in native.sources() if s.stem == "gemm_amx")
  jobs = []
  compiler = native._compiler()
  if not once.is_dir():
    once.mkdir()
    for source, to in zip(native.sources(), objects, strict=True):
      if source is not tiles:
        jobs.append([*flags, "-c", str(source), "-o", str(to)])
  mine = once / f"tiles-{kind}.o"
  define = f"-DJAXNMC_EMULATE_TILES={kind}"
  jobs.append([*flags, define, "-c", str(tiles), "-o", str(mine)])
  running = [subprocess.Popen([compiler, *job]) for job in jobs]
  assert [p.wait(timeout=300) for p in running] == [0] * len(jobs)
  objects[native.sources().index(tiles)] = mine
  library = folder / f"emulated-{kind}.so"
  subprocess.run(
    [compiler, "-shared", *map(str, objects), "-o", str(library)],
    check=True,
    timeout=300,
  )
  return ctypes.CDLL(str(library))


@pytest.fixture(scope="module")
def folder(kernel, tmp_path_factory):
  if native._compiler() is None:
    pytest.skip("tiles are emulated by a library that needs a C++ compiler")
  if native.path() not in ("avx512vnni", TILES):
    pytest.skip("tiles take weights that 512-bit instructions unpack")
  return tmp_path_factory.mktemp("tiles")


def best(library: ctypes.CDLL) -> str:
  library.JaxnmcTernaryPath.restype = ctypes.c_char_p
  return library.JaxnmcTernaryPath().decode()


@pytest.fixture(scope="module")
def right(folder):
  """Name of the product on emulated tiles."""
  library = emulated(folder, 1)
  assert best(library) == TILES
  handler = jax.ffi.pycapsule(library.JaxnmcTernary)
  name = "jaxnmc_ternary_tiles"
  jax.ffi.register_ffi_target(name, handler, platform="cpu")
  return name


@pytest.mark.parametrize("planes", [1, 2])
def test_tiles_are_exact(right, planes, monkeypatch):
  monkeypatch.setattr(native, "TERNARY", right)
  run = lambda x, w: packed.product(x, w, jnp.int32(1), planes=planes, many=1)
  for m, shape in CASES:
    check(run, m, shape, planes)


def test_tiles_that_are_wrong_are_not_used(folder):
  assert best(emulated(folder, 2)) == "avx512vnni"


def test_without_tiles_nobody_claims_them(kernel):
  known = pathlib.Path("/proc/cpuinfo")
  if not known.exists():
    pytest.skip("no /proc/cpuinfo that says what the processor has")
  if "amx_int8" in known.read_text():
    pytest.skip("this machine has tiles")
  assert native.path() != TILES
