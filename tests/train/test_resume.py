"""Killed at any moment and started again, a run ends with the same bits."""

import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

DRIVER = pathlib.Path(__file__).with_name("kill_driver.py")
STEPS, EVERY = 40, 5


@pytest.fixture(scope="module")
def start(repo_root, tmp_path_factory):
  """Starts a run; all runs share compiled programs, to save the time."""
  cache = tmp_path_factory.mktemp("compiled")
  return functools.partial(_start, repo_root, cache)


def _start(repo_root, cache, workdir, *deaths):
  workdir.mkdir(exist_ok=True)
  environment = {
    "PYTHONPATH": str(repo_root),
    "JAX_PLATFORMS": "cpu",
    "JAX_COMPILATION_CACHE_DIR": str(cache),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
  }
  return subprocess.Popen(
    [sys.executable, str(DRIVER), str(workdir), *deaths],
    env={**os.environ, **environment},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def _end(process):
  out, err = process.communicate(timeout=300)
  return process.returncode, out, err


def _records(workdir):
  text = (workdir / "log.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


def _arrays(path):
  with np.load(path) as file:
    return {name: file[name].tobytes() for name in file.files}


def _without_clock(records):
  """Without how fast it was, and without what every process says at first."""
  clock = ("tokens_per_s", "mfu")
  return [
    {k: v for k, v in r.items() if k not in clock}
    for r in records
    if "compile_s" not in r
  ]


def _assert_same_end(one, two):
  for name in ("final.npz", "best.npz"):
    assert _arrays(one / name) == _arrays(two / name)
  # The log has every step once, with the same numbers.
  records = _records(two)
  steps = [r["step"] for r in records if "loss" in r]
  assert steps == list(range(1, STEPS + 1))
  assert _without_clock(records) == _without_clock(_records(one))


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
  """A run nobody disturbed."""
  workdir = tmp_path_factory.mktemp("whole")
  code, out, err = _end(start(workdir))
  assert code == 0, err
  assert json.loads(out)["steps"] == STEPS
  return workdir


def test_killed_three_times(whole, start, tmp_path):
  """At a step, inside a checkpoint write, and at a step again."""
  workdir = tmp_path / "killed"
  # The second rename that the second process makes: its first checkpoint
  # becomes whole in one or more of them, so another is unfinished then.
  for death in ("step:8", "rename:2", "step:23"):
    code, _, err = _end(start(workdir, death))
    assert code == -signal.SIGKILL, err
    unfinished = list(workdir.glob("checkpoints/*orbax-checkpoint-tmp*"))
    assert bool(unfinished) == death.startswith("rename")
    assert not (workdir / "final.npz").exists()
  code, _, err = _end(start(workdir))
  assert code == 0, err
  _assert_same_end(whole, workdir)
  left = [p.name for p in workdir.iterdir()]
  assert sorted(left) == ["best.npz", "checkpoints", "final.npz", "log.jsonl"]
  assert not list(workdir.glob("checkpoints/*tmp*"))


def test_killed_from_outside(whole, start, tmp_path):
  """The signal comes when it comes: as soon as ten steps are logged."""
  workdir = tmp_path / "outside"
  process = start(workdir)
  log = workdir / "log.jsonl"
  while process.poll() is None:
    if log.exists() and log.read_bytes().count(b"\n") > 10:
      process.kill()
      break
    time.sleep(0.002)
  _end(process)
  code, _, err = _end(start(workdir))
  assert code == 0, err
  _assert_same_end(whole, workdir)
