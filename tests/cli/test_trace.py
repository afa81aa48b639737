"""`run --trace` and the map in `run --report`, on a tiny model."""

import json

import pytest

PROMPT = ("--prompt", "Once")


@pytest.mark.parametrize("engine", ["functional", "stepped"])
def test_run_writes_a_trace_and_a_map(run, folders, tmp_path, engine):
  out, page, file = (tmp_path / n for n in ("o.json", "p.html", "t.json"))
  status, said, err = run(
    *("run", folders["tiny"], *PROMPT, "--tokens", 3, "--backend", "loihi"),
    *("--engine", engine, "--json", out, "--report", page),
    *("--trace", file, "--trace_steps", 40),
  )
  assert status == 0, err
  assert f"trace: {file}" in said
  data, found = json.loads(out.read_text()), json.loads(file.read_text())
  assert found["otherData"]["steps"] == 40
  bars = [e for e in found["traceEvents"] if e["ph"] == "X"]
  assert {e["cat"] for e in bars} == {"step", "walk", "link"}
  # The prompt's first layers, a part of what the whole run walked.
  walked = sum(e["args"]["weights"] for e in bars if e["cat"] == "walk")
  assert 0 < walked < data["counters"]["synops_stored"]
  assert data["cost"]["hops_per_token"]["value"] > 0
  assert data["cost"]["link_words_per_token"]["label"] == "modelled"
  # The stepped engine has all charts but those of sizes of messages.
  assert data["activity"]["steps"]["steps"] == data["counters"]["steps"]
  assert (data["activity"]["messages"] is None) == (engine == "stepped")
  assert ("How large" in page.read_text()) == (engine == "functional")
  assert "weights walked per token (" in page.read_text()
  assert "words per token (100 % of the busiest link)" in page.read_text()


def test_a_trace_needs_cores_and_a_place(refused, folders, tmp_path):
  story = ("run", folders["tiny"], *PROMPT)
  file = tmp_path / "t.json"
  assert "add --backend loihi" in refused(*story, "--trace", file)
  assert "positive integer" in refused(
    *story, "--backend", "loihi", "--trace", file, "--trace_steps", 0
  )
  missing = tmp_path / "no" / "t.json"
  assert "does not exist" in refused(
    *story, "--backend", "loihi", "--trace", missing
  )
  assert list(tmp_path.iterdir()) == []
