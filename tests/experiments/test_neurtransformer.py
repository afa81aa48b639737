"""The study of spiking attention, on a tiny model."""

import importlib.util
import json

import numpy as np
import pytest


@pytest.mark.slow
def test_smoke(smoke, tmp_path):
  path, work = tmp_path / "found.json", tmp_path / "runs"
  flags = ("--workdir", work, "--json", path)
  drawn = importlib.util.find_spec("matplotlib") is not None
  if drawn:
    flags += ("--plot", tmp_path)
  done = smoke("neurtransformer", *flags, compile_fast=True)
  found = json.loads(path.read_text())
  rows = {row["row"]: row for row in found["rows"]}
  assert len(rows) == 6
  teacher = rows["teacher"]
  assert teacher["change"]["value"] == 0
  assert teacher["agreement"]["value"] == 1
  assert teacher["cosine_hidden"] == pytest.approx(1, abs=1e-6)
  spiking = rows["attention, 2 ticks, tuned"]
  assert set(spiking["rates"]) == {"q", "k", "v", "out"}
  assert all(0 < rate < 1 for rate in spiking["rates"].values())
  assert 0 < rows["and blocks, 3 levels"]["rates"]["mlp"] < 1
  assert rows["control: dense, tuned"]["change"]["value"] != 0
  # Attention was trained, and nothing else.
  one, two = (np.load(work / n / "final.npz") for n in ("spiking", "control"))
  same = {
    name: np.array_equal(one[name], two[name])
    for name in set(one.files) & set(two.files)
    if one[name].dtype.kind == "f"
  }
  assert {name for name, equal in same.items() if not equal} == {
    name for name in same if "/attn/" in name
  }
  # What the claims need, from the published table.
  needs = {name: pair for name, *pair in found["inverted"]}
  assert needs["fp32"] == pytest.approx([1.804, 0.752], abs=5e-4)
  assert needs["int32"] == pytest.approx([11.29, 4.71], abs=6e-3)
  chip = found["chip"]
  assert chip["ids"] == 6
  assert chip["spikes"] > 0
  assert set(chip["equal"]) == {"spiking", "functional", "stepped"}
  assert all(equal == size > 0 for equal, size in chip["equal"].values())
  assert "read as 9.7 % lower" in done.stdout
  assert (tmp_path / "neurtransformer.png").exists() == drawn
