"""tools/gpu_check.py: runs everywhere, and one wrong integer is seen."""

import json
import os
import subprocess
import sys

import pytest

from jaxnmc.ops import transform
from tools import gpu_check


@pytest.mark.slow
def test_small(repo_root, tmp_path):
  target = tmp_path / "result.json"
  command = [sys.executable, "tools/gpu_check.py", "--small"]
  # Most of the time is compilation, and integers do not depend on its effort.
  env = {**os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=0"}
  done = subprocess.run(
    [*command, "--json", str(target)],
    cwd=repo_root,
    env=env,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-2000:]
  assert "every integer equal" in done.stdout
  data = json.loads(target.read_text())
  assert data["equal"]
  assert data["left_out"] == []
  if data["backend"] == "cpu":
    assert "this is no GPU: its kernels are interpreted" in done.stdout
  compared = {row["what"] for row in data["compared"]}
  assert {"tiny: fixed", "tiny: loihi"} <= compared
  assert {"product 70 x 10, add", "product 70 x 10, dot"} <= compared
  speed = {row["what"]: row for row in data["speed"]}
  assert speed["loihi decode, batch 2, a call per token"]["value"] > 0
  assert {row["label"] for row in data["speed"]} == {"measured"}


def test_hashes_of_models_of_every_size_are_recorded():
  record = json.loads(gpu_check.RECORD.read_text())
  assert set(record) == set(gpu_check.CASES)
  # The plan of a model that ships with the package ships with it.
  assert [n for n in record if record[n]["plan"] is None] == ["stories"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stories", "wide"])
def test_larger_models(name):
  rows = gpu_check.check_model(name)
  assert len(rows) == 3
  assert [row for row in rows if not row[1]] == []


def test_one_wrong_integer_is_seen(monkeypatch):
  real = transform.fixed

  def wrong(fn, plan):
    run = real(fn, plan)

    def changed(*args):
      out, state = run(*args)
      q = out.logits.q
      logits = out.logits.replace(q=q.at[-1, -1, -1].add(1))
      return out.replace(logits=logits), state

    return changed

  monkeypatch.setattr(gpu_check.nmc, "fixed", wrong)
  rows = {what: equal for what, equal, _ in gpu_check.check_model("tiny")}
  assert rows == {
    "tiny: weights": True,
    "tiny: fixed": False,
    "tiny: loihi": True,
  }
