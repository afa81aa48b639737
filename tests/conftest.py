"""Fixtures of all tests: outside reference data, Hypothesis, GPU marks."""

import pathlib

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


def pytest_runtest_setup(item: pytest.Item) -> None:
  """Skips tests marked gpu where jax sees none."""
  if item.get_closest_marker("gpu") and jax.default_backend() != "gpu":
    pytest.skip(f"needs a GPU; jax runs on {jax.default_backend()}")
