"""Recorded outputs of public spiking libraries, where they are at hand."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def recorded(shared_dir):
  """`recorded(name)`: the arrays of one recorded file, by name."""

  def load(name):
    path = shared_dir / "golden" / "snn" / f"{name}.npz"
    if not path.is_file():
      pytest.skip(f"no recorded spiking outputs {name}.npz in 'shared'")
    with np.load(path) as arrays:
      return dict(arrays)

  return load
