"""Fixtures of all tests: outside reference data, Hypothesis, GPU marks."""

import os
import pathlib
import shutil
import tempfile

import hypothesis
import jax
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

# The same examples on every run and machine; a test that wants more of them
# says so with its own @settings(max_examples=...).
hypothesis.settings.register_profile(
  "jaxnmc",
  derandomize=True,
  deadline=None,
  max_examples=25,
  suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("jaxnmc")


_CACHE = "JAX_COMPILATION_CACHE_DIR"
_PROGRAMS = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
  """One cache of compiled programs for all workers and child processes.

  Many tests, and every command they start, compile the same small models. The
  folder is new in every session, so nothing outlives a change.
  """
  if _CACHE not in os.environ:
    config.stash[_PROGRAMS] = tempfile.mkdtemp(prefix="jaxnmc-tests-")
    os.environ[_CACHE] = config.stash[_PROGRAMS]
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    jax.config.update("jax_compilation_cache_dir", os.environ[_CACHE])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_unconfigure(config: pytest.Config) -> None:
  """Only the process that made the folder removes it."""
  if _PROGRAMS in config.stash:
    shutil.rmtree(config.stash[_PROGRAMS], ignore_errors=True)


@pytest.fixture(scope="session")
def repo_root() -> pathlib.Path:
  """The folder with pyproject.toml."""
  return ROOT


@pytest.fixture(scope="session")
def shared_dir() -> pathlib.Path:
  """The folder `shared` beside the repository: recorded outputs and text.

  It holds other people's outputs and data, which are too large or not ours to
  ship. A test that needs it is skipped where it is not.
  """
  folder = ROOT.parent / "shared"
  if not (folder / "golden").is_dir():
    pytest.skip("no folder 'shared' with reference data beside the repository")
  return folder


def slow_tests() -> tuple[str, ...]:
  """Beginnings of node ids, of `slow.txt`."""
  lines = (ROOT / "tests" / "slow.txt").read_text().splitlines()
  return tuple(line for line in lines if not line.startswith("#"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  """Marks the tests of `slow.txt`."""
  listed = slow_tests()
  for item in items:
    if item.nodeid.startswith(listed):
      item.add_marker(pytest.mark.slow)


def pytest_runtest_setup(item: pytest.Item) -> None:
  """Skips tests marked gpu where jax sees none."""
  if item.get_closest_marker("gpu") and jax.default_backend() != "gpu":
    pytest.skip(f"needs a GPU; jax runs on {jax.default_backend()}")
