"""Experiment scripts as modules."""

import functools
import importlib.util
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
    with mock.patch.multiple(flags, **defines):
      spec.loader.exec_module(module)
    own([name])
    return module

  return load
