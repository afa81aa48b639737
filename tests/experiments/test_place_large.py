"""The experiment on a thousand chips, in small."""

import json
import os
import subprocess
import sys


def test_smoke(repo_root, tmp_path):
  path, folder = tmp_path / "large.json", tmp_path / "out"
  done = subprocess.run(
    [
      *(sys.executable, "experiments/place_large.py", "--smoke"),
      *("--json", str(path), "--workdir", str(folder)),
    ],
    cwd=repo_root,
    env=os.environ | {"PYTHONPATH": str(repo_root)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert "3 of 3 cases as claimed" in done.stdout
  data = json.loads(path.read_text())
  assert data["held"] == [True] * 3
  assert data["rows"][2]["refusal"].startswith("one neuron of population")
  made = sorted(os.listdir(folder))
  assert made == ["placement-0.json", "placement-1.json"]
  first = json.loads((folder / made[0]).read_text())
  assert first["cores_used"] == data["rows"][0]["cores"]
