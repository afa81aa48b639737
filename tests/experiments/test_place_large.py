"""The experiment on a thousand chips, in small."""

import json
import os


def test_smoke(smoke, tmp_path):
  path, folder = tmp_path / "large.json", tmp_path / "out"
  done = smoke("place_large", "--json", path, "--workdir", folder)
  assert "3 of 3 cases as claimed" in done.stdout
  data = json.loads(path.read_text())
  assert data["held"] == [True] * 3
  assert data["rows"][2]["refusal"].startswith("one neuron of population")
  made = sorted(os.listdir(folder))
  assert made == ["placement-0.json", "placement-1.json"]
  first = json.loads((folder / made[0]).read_text())
  assert first["cores_used"] == data["rows"][0]["cores"]
