"""The growth curves: every point is measured, and drawn."""

import json

import pytest

from tools import bench_growth


def test_small_curves(tmp_path, capsys):
  pytest.importorskip("matplotlib")
  data, png = tmp_path / "growth.json", tmp_path / "growth.png"
  flags = ["--small", "--json", str(data), "--plot", str(png)]
  assert bench_growth.main(flags) == 0
  found = json.loads(data.read_text())
  assert set(found["curves"]) == set(bench_growth.curves(True))
  for name, rows in found["curves"].items():
    assert [r["x"] for r in rows] == [
      p.x for p in bench_growth.curves(True)[name]
    ]
    for row in rows:
      assert 0 < row["decode_s"] <= row["first_decode_s"] * 10
      assert row["prefill_s"] > 0
  assert png.read_bytes().startswith(b"\x89PNG")
  assert "ms a token" in capsys.readouterr().out
