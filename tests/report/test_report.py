"""Tables, pages and files of results, without running a model."""

import json
import os
import re
import threading
from html.parser import HTMLParser

import numpy as np
import pytest

from jaxnmc.report import bench, costs, files, pages, tables

_FIGURES = {
  "ttft_ms": 0.1,
  "prefill_step_us": 1.78,
  "prefill_tokens_per_s": 561798.0,
  "generate_step_us": 1.78,
  "generate_ms_per_token": 0.08,
  "generate_tokens_per_s": 12500.0,
  "prefill_mj_per_token": 0.0013,
  "generate_mj_per_token": 0.055,
  "prefill_w": 0.75,
  "generate_w": 0.68,
  "mean_w": None,
  "peak_w": 0.7,
  "run_ms": 0.98,
  "run_mj": 0.67,
  "memory_bytes": 177680,
  "memory_percent": 1.4,
  "steps_per_token": 45,
  "steps_per_layer": 19.0,
  "synops_per_token": 27380.0,
  "nonzero_percent": 73.1,
  "hops_per_token": 512.5,
  "link_words_per_token": None,
  "saturations": 0,
}


@pytest.fixture
def data():
  """A result of `run` as its JSON has it."""
  figure = lambda v: {
    "value": v,
    "unit": "B",
    "label": "modelled",
    "source": "a <source>",
  }
  layer = {"layer": 0, "synops_stored_per_token": 10.0, "ms": None}
  core = {"chip": 0, "core": 1, "populations": ["a", "b"], "neurons": 3}
  return {
    "model": "tiny & small",
    "backend": "loihi",
    "engine": "functional",
    "prompt": "<b>Once",
    "text": " upon</b>",
    "tokens": 11,
    "sampling": "greedy",
    "host": {
      "label": "measured",
      "seconds": 1.5,
      "first_token_s": 1.0,
      "tokens_per_s": None,
    },
    "config": {"hidden_size": 32, "pad_token_id": None},
    "cost": {
      **{name: figure(value) for name, value in _FIGURES.items()},
      "tokens": {"prefill": 12, "generate": 11},
      "per_layer": [layer],
      "per_core": [core],
      "per_chip": [{"chip": 0, "cores": 2}],
      "notes": ["links are not timed"],
    },
    "placement": {
      "system": "Loihi 2",
      "cores_used": 2,
      "chips_used": 1,
      "limits": [{"limit": "x", "found": 1, "allowed": None, "others": []}],
      "policy": {"head": "chip"},
      "host": ["embed"],
    },
    "counters": {"tokens": 23, "saturations": {}},
    "core_walk": [5.0, 0.0],
    "mesh": {
      "columns": 2,
      "rows": 1,
      "cores_per_router": 4,
      "cores": 6,
      "chips": [
        {
          "chip": 0,
          "layers": "<0>",
          "walked": [5.0, 0.0],
          "stored": [7, 0],
          "links": [[2.5, 0, 0, 0], [0, 0.5, 0, 0]],
        }
      ],
      "busiest": [{"chip": 0, "link": "link +x", "words_per_token": 2.5}],
      "facts": [
        {"fact": "a", "value": None, "unit": "", "kind": "assumed"}
        | {"source": "b"}
      ],
      "note": None,
    },
    "activity": {
      "steps": {
        "label": "modelled",
        "steps": 4,
        "ends": [2, 4],
        "us": {"walk": [1.5, 0.0], "barrier": [0.0, 2.0]},
        "bounds": [{"bound": "walk", "steps": 2, "ms": 0.003}],
        "prompt_steps": 2,
      },
      "power": {
        "label": "modelled",
        "source": "a <form>",
        "rows": {"prompt": {"static": 0.5, "weights walked": 1.0}},
      },
      "core_messages": {
        "label": "modelled",
        "cores": [0, 1],
        "cores_per_chip": 6,
        "out": [4.0, 0.5],
        "in": None,
      },
      "messages": {
        "label": "modelled",
        "tokens": 23,
        "roles": [
          {
            "role": "layers.*.<x>",
            "neurons": 2,
            "sent_percent": 75.0,
            "bits": [1, 0, 3, *([0] * 30)],
            "rates": [1, *([0] * 20), 1],
          }
        ],
      },
    },
    "plan": "W8A16",
    "weights_sha256": "ab",
    "plan_sha256": "cd",
    "versions": {"jax": "0"},
    "notes": ["a note"],
  }


def _lines(*renderables) -> list[str]:
  console = tables.console()
  with console.capture() as captured:
    for renderable in renderables:
      console.print(renderable)
  return captured.get().splitlines()


def test_cost_tables_fit_and_have_energy_per_token(data, capsys):
  costs.show(tables.console(), data)
  out = capsys.readouterr().out
  assert "mJ/token" in out
  assert "modelled" in out
  assert "measured" in out
  assert "unknown" in out
  assert max(len(line) for line in out.splitlines()) <= 80
  # No row of the phase table is folded.
  assert len([x for x in out.splitlines() if x.startswith("writing")]) == 1
  rows = costs.phases(data)
  assert [len(row) for row in rows] == [len(costs.PHASE_COLUMNS)] * 3
  assert rows[0][3] == pytest.approx(1e3 / 561798)
  assert rows[2][5] == pytest.approx(0.67 / 23)


def test_float_runs_have_no_cost_of_cores(data, capsys):
  data |= {"cost": None, "placement": None}
  costs.show(tables.console(), data)
  assert "mJ/token" not in capsys.readouterr().out
  page = pages.run_page(data)
  assert "Cores" not in page
  assert "Links" not in page


class Balance(HTMLParser):
  """Keeps the tags that are open."""

  EMPTY = {"meta", "br", "rect"}

  def __init__(self):
    super().__init__()
    self.open = []

  def handle_starttag(self, tag, attrs):
    if tag not in self.EMPTY:
      self.open.append(tag)

  def handle_endtag(self, tag):
    if tag not in self.EMPTY:
      assert self.open.pop() == tag


def test_page_is_whole_and_alone(data):
  page = pages.run_page(data)
  checker = Balance()
  checker.feed(page)
  assert checker.open == []
  assert "&lt;b&gt;Once" in page
  assert "tiny &amp; small" in page
  assert "<script" not in page
  assert not re.findall(r"(?:src|href)=|url\(|https?://", page)
  charts = {"power": 2, "steps": 2, "cores": 2, "sizes": 1, "rates": 1}
  assert page.count("<svg") == 3 + sum(charts.values())
  assert "5 weights walked per token (100 % of the busiest core)" in page
  assert "&lt;0&gt;" in page
  assert "layers.*.&lt;x&gt;, 2 bits: 3 values, 75 %" in page
  assert "layers.*.&lt;x&gt;, 100 % of the tokens: 1 neurons, 50 %" in page
  assert "steps 2 to 3: 2 us each (barrier 2)" in page
  assert "prompt, weights walked: 1 W" in page
  assert "chip 0, core 1: 0.5 messages out per token" in page


def test_page_without_what_was_not_counted(data):
  data["activity"] |= {"steps": None, "power": None, "messages": None}
  data["activity"]["core_messages"]["out"] = None
  page = pages.run_page(data)
  for title in ("Time per step", "Mean power", "How large", "Messages of each"):
    assert title not in page


def test_number_formats():
  shown = [tables.number(x) for x in (None, True, 1234567, 0.0, 0.5, 1e-5)]
  assert shown == ["unknown", "yes", "1,234,567", "0", "0.5", "1e-05"]
  assert tables.number(12345.6) == "12,346"
  assert [tables.size(n) for n in (12, 1500, 2.5e6, 3e12)] == [
    "12 B",
    "1.50 kB",
    "2.50 MB",
    "3000.00 GB",
  ]


def test_long_cells_fold():
  lines = _lines(tables.table("t", ("a", ">b"), [("x" * 200, 1)]))
  assert max(map(len, lines)) <= 80
  assert sum(line.count("x") for line in lines) == 200


def test_json_is_plain_and_whole(tmp_path, capsys):
  value = {1: np.arange(2), "x": (np.float32(0.5), float("nan")), "y": {1}}
  path = tmp_path / "a.json"
  files.write_json(str(path), value)
  want = {"1": [0, 1], "x": [0.5, None], "y": [1]}
  assert json.loads(path.read_text()) == want
  files.write_json("-", value)
  assert json.loads(capsys.readouterr().out) == want
  files.write_json(None, value)
  assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_unwritable_files_are_refused(tmp_path):
  files.check_writable(None)
  files.check_writable("-")
  with pytest.raises(files.OutputError, match="is a folder"):
    files.check_writable(str(tmp_path))
  with pytest.raises(files.OutputError, match="does not exist"):
    files.check_writable(str(tmp_path / "no" / "file"))
  with pytest.raises(files.OutputError, match="cannot be written"):
    files.write_text(str(tmp_path / "no" / "file"), "x")
  for name in ("x" * 300, "nul\0"):
    with pytest.raises(files.OutputError, match="cannot be written"):
      files.check_writable(str(tmp_path / name))
  files.check_writable(str(tmp_path / "fine"))
  assert list(tmp_path.iterdir()) == []


def test_a_full_or_read_only_folder_is_seen_before_the_work(
  tmp_path, monkeypatch
):
  def refuse(**options):
    raise PermissionError(13, "Permission denied", str(options["dir"]))

  monkeypatch.setattr(files.tempfile, "NamedTemporaryFile", refuse)
  with pytest.raises(files.OutputError, match="Permission denied"):
    files.check_writable(str(tmp_path / "file"))


def test_pipes_and_links_are_not_replaced(tmp_path):
  pipe = tmp_path / "pipe"
  os.mkfifo(pipe)
  files.check_writable(str(pipe))
  got = []
  reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
  reader.start()
  files.write_text(str(pipe), "through")
  reader.join(timeout=30)
  assert got == ["through"]
  assert pipe.is_fifo()
  link, target = tmp_path / "link", tmp_path / "target"
  target.write_text("old")
  link.symlink_to(target)
  files.write_text(str(link), "new")
  assert link.is_symlink()
  assert target.read_text() == "new"


def test_bench_interleaves_and_reports_medians():
  order = []

  def case(name):
    return bench.Case(name, "kernel", lambda: order.append(name), 8)

  rows = bench.measure([case("a"), case("b")], 5)
  assert [row["name"] for row in rows] == ["a", "b"]
  for row in rows:
    assert row["min_s"] <= row["median_s"] <= row["max_s"]
    assert row["label"] == "measured"
  # After warm-up, a and b alternate in blocks.
  blocks = [x for k, x in enumerate(order) if k == 0 or order[k - 1] != x]
  assert blocks[-10:] == ["a", "b"] * 5


def test_bench_relates_to_measured_bandwidth():
  found = bench.bench(None, repeats=5, quick=True)
  assert found["rows"][0]["share_of_limit"] == pytest.approx(1)
  groups = {row["group"] for row in found["rows"]}
  assert groups == {"memory", "kernel", "circuit"}
  circuit = found["rows"][-1]
  assert circuit["synops_per_s"] == circuit["synops"] / circuit["median_s"]
  assert circuit["synops"] > 0
  assert found["load_average"]["before"] >= 0
