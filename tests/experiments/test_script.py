"""How every script starts and ends."""

import json
import types

import pytest
from absl import app

from jaxnmc.errors import ConfigError, UserError


@pytest.fixture
def script(load_script, monkeypatch):
  """The module, and flags --smoke, --steps (given) and --width (not given)."""
  module = load_script("script")
  make = lambda value, present: types.SimpleNamespace(
    value=value, present=present
  )
  known = {"smoke": make(True, 1), "steps": make(9, 1), "width": make(64, 0)}
  monkeypatch.setattr(module.flags, "FLAGS", known)
  return module


@pytest.mark.parametrize(("status", "code"), [(None, 0), (0, 0), (1, 1)])
def test_the_status_is_what_main_returns(script, status, code):
  with pytest.raises(SystemExit) as stop:
    script._run(lambda: status, {}, ["script"])
  assert stop.value.code == code


def test_small_sizes_are_for_flags_that_were_not_given(script):
  seen = []
  known = script.flags.FLAGS
  main = lambda: seen.append((known["steps"].value, known["width"].value))
  for smoke in (True, False):
    known["smoke"].value, known["width"].value = smoke, 64
    with pytest.raises(SystemExit):
      script._run(main, {"steps": 2, "width": 8}, ["script"])
  assert seen == [(9, 8), (9, 64)]


def test_bad_input_is_one_line_and_status_2(script, capsys):
  def main():
    raise ConfigError("found a, allowed is b")

  with pytest.raises(SystemExit) as stop:
    script._run(main, {}, ["script"])
  assert stop.value.code == 2
  assert capsys.readouterr().err == "error: found a, allowed is b\n"
  with pytest.raises(app.UsageError, match="extra"):
    script._run(main, {}, ["script", "extra"])


def test_a_study_writes_what_it_found(script, tmp_path, capsys):
  path = tmp_path / "found.json"
  script.study(lambda: {"n": 3}, lambda found: print(found["n"]), str(path))
  assert json.loads(path.read_text()) == {"n": 3}
  assert capsys.readouterr().out == "3\n"


def test_what_cannot_be_written_is_refused_before_the_work(script, tmp_path):
  worked = []
  with pytest.raises(UserError, match="no such folder|does not exist"):
    script.study(
      lambda: worked.append(1), print, str(tmp_path / "no" / "found.json")
    )
  assert not worked
