"""The study of training under formats, on a tiny model."""

import json

import pytest


@pytest.mark.slow
def test_smoke(smoke, tmp_path):
  path = tmp_path / "found.json"
  flags = ("--workdir", tmp_path / "runs", "--json", path)
  done = smoke("recover_w8a8", *flags, compile_fast=True)
  found = json.loads(path.read_text())
  rows = {row["row"]: row["texts"]["stories"] for row in found["rows"]}
  assert len(rows) == 6
  assert rows["start, float"]["loss"]["value"] == 0
  assert all(row["ids"] > 100 for row in rows.values())
  plans = {row["row"]: row["plan_sha256"] for row in found["rows"]}
  assert plans["start, W8A8"] == plans["steps under W8A8, W8A8"]
  assert plans["start, W8A8"] != plans["steps in float, then W8A8"]
  # Four steps change something.
  assert rows["steps in float"]["loss"]["value"] != 0
  assert "from the start, %" in done.stdout
  for name in ("float", "W8A8"):
    assert (tmp_path / "runs" / name / "final.npz").exists()
