"""`run --plots` and the charts of `run --report`, on a tiny model."""

import json
import sys

import pytest

PROMPT = ("--prompt", "Once", "--tokens", 3)


def test_run_writes_plots_and_charts(run, folders, tmp_path):
  pytest.importorskip("matplotlib")
  out, page, folder = (tmp_path / n for n in ("o.json", "p.html", "plots"))
  status, said, err = run(
    *("run", folders["tiny"], *PROMPT, "--backend", "loihi"),
    *("--json", out, "--report", page, "--plots", folder),
  )
  assert status == 0, err
  names = {path.name for path in folder.iterdir()}
  assert names == {
    *("cores.png", "steps.png", "power.png", "core_messages.png"),
    *("message_sizes.png", "send_rates.png"),
  }
  assert all(p.read_bytes().startswith(b"\x89PNG") for p in folder.iterdir())
  assert f"plot: {folder / 'steps.png'}" in said
  data = json.loads(out.read_text())
  found = data["activity"]
  # Every fed token (prompt with its begin token, and all written but one).
  assert found["messages"]["tokens"] == data["counters"]["tokens"]
  assert found["steps"]["steps"] == data["counters"]["steps"]
  text = page.read_text()
  for title in ("Time per step", "How large messages are", "How often neurons"):
    assert title in text
  assert "<script" not in text


def test_plots_need_cores_a_place_and_matplotlib(
  refused, folders, tmp_path, monkeypatch
):
  story = ("run", folders["tiny"], *PROMPT)
  assert "add --backend loihi" in refused(*story, "--plots", tmp_path / "x")
  story = (*story, "--backend", "loihi", "--plots")
  assert "does not exist" in refused(*story, tmp_path / "no" / "x")
  file = tmp_path / "file"
  file.write_text("")
  assert "is no folder" in refused(*story, file)
  monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
  assert "jaxnmc[plot]" in refused(*story, tmp_path / "x")
  assert [p.name for p in tmp_path.iterdir()] == ["file"]
