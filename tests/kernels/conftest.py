"""What tests of kernels share."""

import threading

import pytest

from jaxnmc.kernels import native


@pytest.fixture(scope="session")
def kernel():
  """The native kernels; a machine without them skips the test."""
  if not native.available():
    pytest.skip("the native kernels cannot be built here (see doctor)")
  return native


@pytest.fixture
def in_threads():
  """Runs work(0), work(1), ... at once; what they return is put together."""

  def run(work, count: int = 8) -> list:
    found: list = []
    threads = [
      threading.Thread(target=lambda i=i: found.extend(work(i)))
      for i in range(count)
    ]
    for t in threads:
      t.start()
    for t in threads:
      t.join(timeout=120)
    assert not any(t.is_alive() for t in threads)
    return found

  return run
