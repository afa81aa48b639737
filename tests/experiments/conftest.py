"""Experiment scripts as modules."""

import functools
import importlib.util
import os
import subprocess
import sys
from unittest import mock

import pytest
from absl import flags


@pytest.fixture(scope="session")
def load_script(repo_root):
  """Loads a script by name, with flags of its own at their defaults.

  Flags are global to a process, and two scripts may use one name.
  """

  def load(name: str):
    own = flags.FlagValues()
    defines = {
      key: functools.partial(getattr(flags, key), flag_values=own)
      for key in dir(flags)
      if key.startswith("DEFINE_")
    }
    path = repo_root / "experiments" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    # As when it is run: modules beside it are found.
    paths = mock.patch.object(sys, "path", [str(path.parent), *sys.path])
    with paths, mock.patch.multiple(flags, **defines):
      spec.loader.exec_module(module)
    own([name])
    return module

  return load


@pytest.fixture(scope="session")
def smoke(repo_root):
  """Runs a script's small version in a process of its own."""

  def run(name: str, *flags, compile_fast: bool = False):
    """What came out; `compile_fast` where only integers are looked at."""
    env = {**os.environ, "PYTHONPATH": str(repo_root)}
    if compile_fast:
      # Most of the time is compilation; integers do not depend on its effort.
      env["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    done = subprocess.run(
      [sys.executable, f"experiments/{name}.py", "--smoke", *map(str, flags)],
      cwd=repo_root,
      env=env,
      capture_output=True,
      text=True,
      check=False,
    )
    assert done.returncode == 0, done.stderr
    return done

  return run
