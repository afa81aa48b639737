"""Recorded outputs of public spiking libraries, where they are at hand."""

import json

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


@pytest.fixture(scope="session")
def described(shared_dir):
  """`described(name)`: how a recorded file was made."""
  path = shared_dir / "golden" / "snn" / "manifest.json"
  if not path.is_file():
    pytest.skip("no manifest of recorded spiking outputs in 'shared'")
  rows = json.loads(path.read_text())
  return lambda name: rows[name]["meta"]
