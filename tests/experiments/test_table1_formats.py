"""The study of number formats, on a tiny model."""

import importlib.util
import json

import pytest

from jaxnmc.errors import UserError


@pytest.fixture(scope="module")
def script(load_script, repo_root):
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(repo_root / "experiments"))
    yield load_script("table1_formats")


@pytest.mark.slow
def test_smoke(smoke, tmp_path):
  path, plots = tmp_path / "table.json", []
  if importlib.util.find_spec("matplotlib"):
    plots = ["--workdir", tmp_path / "plots"]
  done = smoke("table1_formats", "--json", path, *plots)
  data = json.loads(path.read_text())
  first, *others = data["rows"]
  assert first["row"] == "FP16"
  assert first["texts"]["stories"]["agreement"]["value"] == 1
  assert [row["backend"] for row in others] == ["fake_quant", "fixed"]
  for row in data["rows"]:
    assert row["texts"]["stories"]["ids"] > 100
    assert row["tasks"]["tiny"]["items"] == 2
  close = others[-1]["texts"]["stories"]["float32"]
  assert close["agreement"]["value"] > 0.99
  assert abs(close["loss"]["value"]) < 1e-3
  # What a chip cannot compute is refused, with the site.
  assert len(data["refusals"]) == 9
  assert all("embed" in why for why in data["refusals"].values())
  assert "eps 1e-06 underflows at 12 fraction bits" in data["underflow"]
  assert data["census"]["product_multiplications"] == 0
  out = " ".join(done.stdout.split())
  assert "The paper's 370M (quoted)" in out
  assert "change from the first row" in out
  if plots:
    plot = tmp_path / "plots" / "table1_formats.png"
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_rows_are_the_paper_s(script):
  rows, quoted = script.rows, script.quoted
  found = rows.paper_rows()
  assert [row.quoted for row in found] == [
    name for name in quoted.TABLE1 if name.startswith(("MatMul", "PT"))
  ]
  for name, values in quoted.TABLE1.items():
    *tasks, mean, change = values
    assert sum(tasks) / len(tasks) == pytest.approx(mean, abs=0.06), name
    base = quoted.TABLE1["MatMul-free baseline"][-2]
    assert 100 * (mean / base - 1) == pytest.approx(change, abs=0.8), name
  assert {row.backend for row in rows.chip_rows()} == {"fixed"}
  assert all(row.quoted is None for row in rows.own_rows())


@pytest.mark.parametrize(
  ("given", "words"),
  [
    ({"text": []}, "name at least one text"),
    ({"text": ["stories"]}, "expected NAME=FILE"),
    ({"text": ["a=/no/such/file"]}, "/no/such/file"),
  ],
)
def test_flags_that_cannot_be_used(script, monkeypatch, given, words):
  _set(script, monkeypatch, given)
  with pytest.raises(UserError, match=words):
    script.run()


def test_an_empty_folder_of_tasks(script, monkeypatch, tmp_path):
  text = tmp_path / "text.txt"
  text.write_text("A cat sat.")
  flags = {"text": [f"t={text}"], "tasks": str(tmp_path)}
  _set(script, monkeypatch, flags)
  with pytest.raises(UserError, match=r"found no \*\.jsonl"):
    script.run()


def _set(script, monkeypatch, given):
  """Flags of the script for one test."""
  for name, value in given.items():
    holder = getattr(script, f"_{name.upper()}")
    monkeypatch.setattr(holder._flagvalues[holder.name], "value", value)
