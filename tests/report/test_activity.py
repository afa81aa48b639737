"""Charts' data counted again by hand, and drawn in both ways."""

import dataclasses
import json
import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from numpy import testing as npt

from jaxnmc.chip import hardware
from jaxnmc.chip.costs.cost import cost
from jaxnmc.chip.counting.counters import Counters
from jaxnmc.chip.counting.histograms import Histogram
from jaxnmc.chip.placement import place
from jaxnmc.errors import MissingExtra
from jaxnmc.report import activity, charts, files, meshmap, plots
from tests.chip import synthetic

MODES = {"prompt": "prefill", "writing": "generate"}


@pytest.fixture(scope="module")
def run():
  """A placement, and counters of a prompt and two tokens."""
  net = synthetic.matmulfree(layers=2, d=16, i=24, vocab=32)
  placed = place.place(net, hardware.loihi2(chips=3, cores_per_chip=30))
  parts = [synthetic.traffic(placed, range(6), seed=1)]
  parts += [synthetic.traffic(placed, [0], seed=s) for s in (2, 3)]
  sent = np.array([0, 1, 4, 7, 8])
  bits = np.zeros(33, np.int64)
  bits[[0, 3, 15]] = 20, 9, 11
  found = {f"layers.{k}.x": Histogram(bits, sent, 8) for k in (0, 1)}
  return placed, Counters.of(parts, placed, histograms=found)


def test_steps_are_those_of_the_run(run):
  placed, counters = run
  data = json.loads(json.dumps(activity.steps(counters, placed)))
  report = cost(counters, placed)
  assert data["steps"] == counters.steps == data["ends"][-1]
  assert data["prompt_steps"] == counters.stretches[0].steps
  wide = np.diff([0, *data["ends"]])
  mean = np.sum([*data["us"].values()], axis=0)
  npt.assert_allclose((wide * mean).sum() / 1e3, report.run_ms.value)
  npt.assert_allclose(sum(b["ms"] for b in data["bounds"]), report.run_ms.value)
  assert sum(b["steps"] for b in data["bounds"]) == counters.steps
  npt.assert_allclose(sum(b["percent_of_time"] for b in data["bounds"]), 100)


def test_bounds_by_hand(run):
  placed, counters = run
  chip = placed.hardware
  data = activity.steps(counters, placed, columns=counters.steps)
  # A column per step: where walk is named it is the busiest core's walk.
  walks = np.concatenate(
    [s.steps_of["busiest_stored"] for s in counters.stretches]
  )
  for name, column in data["us"].items():
    mine = np.array(column) > 0
    if name == "walk":
      npt.assert_allclose(
        np.array(column)[mine], 1e6 * chip.synop_s * walks[mine]
      )
    if name == "barrier":
      npt.assert_allclose(np.array(column)[mine], 1e6 * chip.barrier_system_s)
  # This small network never walks for longer than the barrier between chips.
  assert "barrier" in data["us"]
  slow = dataclasses.replace(placed.hardware, synop_s=1e-6)
  other = dataclasses.replace(placed, hardware=slow)
  data = activity.steps(counters, other)
  assert data["bounds"][0]["bound"] == "walk"


def test_power_adds_up_to_the_report(run):
  placed, counters = run
  report = cost(counters, placed)
  data = activity.power(counters, placed, report)
  for mode, parts in data["rows"].items():
    npt.assert_allclose(
      sum(parts.values()), getattr(report, f"{MODES[mode]}_w").value
    )
    assert parts["static"] > 0
  assert data["source"] == report.prefill_w.source


def test_unknown_constants_are_no_numbers(run):
  placed, counters = run
  blank = dataclasses.replace(placed.hardware, synop_s=None)
  other = dataclasses.replace(placed, hardware=blank)
  assert activity.steps(counters, other) is None
  assert activity.power(counters, other, cost(counters, other)) is None


def test_messages_of_cores_are_the_counters(run):
  placed, counters = run
  data = activity.core_messages(counters, placed)
  for key, name in (("out", "messages_out"), ("in", "messages_in")):
    total = counters.total(name).sum() / counters.tokens
    npt.assert_allclose(sum(data[key]), total)
  assert len(data["cores"]) == len(data["in"])


def test_roles_and_rates(run):
  (row,) = activity.messages(run[1])["roles"]
  assert row["role"] == "layers.*.x"
  assert row["neurons"] == 10
  assert row["bits"][15] == 22
  npt.assert_allclose(row["sent_percent"], 100 * 40 / 80)
  # 0, 1/8 = 12.5 %, 50 %, 87.5 % and all of the tokens, in both layers.
  places = {activity.RATES[k]: n for k, n in enumerate(row["rates"]) if n}
  assert places == {"0": 2, "10-15": 2, "50-55": 2, "85-90": 2, "100": 2}
  assert activity.messages(Counters((), 3)) is None


def _svgs(text):
  return [ET.fromstring(x) for x in re.findall(r"<svg.*?</svg>", text)]


def test_charts_stay_inside_and_say_their_numbers(run):
  placed, counters = run
  data = activity.collect(counters, placed, cost(counters, placed))
  drawn = {
    "steps": charts.steps(data["steps"]),
    "power": charts.power(data["power"]),
    "cores": charts.core_messages(data["core_messages"]),
    "sizes": charts.messages(data["messages"]),
    "rates": charts.rates(data["messages"]),
  }
  for name, text in drawn.items():
    for svg in _svgs(text):
      _, _, wide, high = map(float, svg.get("viewBox").split())
      for e in svg.iter("rect"):
        x, y, w, h = (float(e.get(k)) for k in ("x", "y", "width", "height"))
        assert -0.01 <= x <= x + w <= wide + 0.01, name
        assert -0.01 <= y <= y + h <= high + 0.01, name
      for e in svg.iter("text"):
        assert 0 <= float(e.get("y")) <= high, name
  assert "layers.*.x, 15 bits: 22 values, 27.5 %" in drawn["sizes"]
  assert "bits of the magnitude" in drawn["sizes"]
  assert "us per step" in drawn["steps"]


def test_many_cores_share_bars():
  values = [float(k) for k in range(1000)]
  data = {"cores": [*range(1000)], "cores_per_chip": 120, "in": None}
  text = charts.core_messages(data | {"out": values})
  assert text.count("<title>") == 200
  shown = "chip 0, core 5 and the 4 after it, mean: 7 messages out per token"
  assert shown in text


@pytest.mark.parametrize(
  ("most", "end"), [(0, 1), (0.7, 0.8), (1, 1), (13, 15), (99, 100), (101, 150)]
)
def test_axes_end_at_round_numbers(most, end):
  top, ticks = charts._scale(most)
  npt.assert_allclose(top, end)
  assert 1 < len(ticks) <= 7
  npt.assert_allclose(ticks[-1], top)


def test_plots_are_figures_and_files(run, tmp_path):
  pytest.importorskip("matplotlib")
  placed, counters = run
  done = activity.collect(counters, placed, cost(counters, placed))
  data = {"activity": done, "mesh": meshmap.collect(counters, placed)}
  figures = plots.of_run(data)
  assert [*figures] == [
    *("cores", "steps", "power", "core_messages"),
    *("message_sizes", "send_rates"),
  ]
  for name, figure in figures.items():
    axes = [ax for ax in figure.axes if ax.axison]
    assert axes, name
  steps = figures["steps"].axes[0]
  assert steps.get_xlabel() == "time step"
  assert steps.get_ylabel() == "us per step"
  image = figures["send_rates"].axes[0].get_images()[0].get_array()
  npt.assert_allclose(np.nansum(image), 100)
  folder = tmp_path / "new"
  paths = plots.save({"steps": figures["steps"]}, str(folder))
  assert [p.name for p in folder.iterdir()] == ["steps.png"]
  assert paths[0].read_bytes().startswith(b"\x89PNG")


def test_plots_are_refused_before_the_work(tmp_path, monkeypatch):
  pytest.importorskip("matplotlib")
  file = tmp_path / "file"
  file.write_text("x")
  with pytest.raises(files.OutputError, match="is no folder"):
    plots.check(str(file))
  with pytest.raises(files.OutputError, match="does not exist"):
    plots.check(str(tmp_path / "no" / "folder"))
  plots.check(str(tmp_path))
  plots.check(str(tmp_path / "new"))
  assert [p.name for p in tmp_path.iterdir()] == ["file"]
  with monkeypatch.context() as patch:
    patch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match=r"jaxnmc\[plot\]"):
      plots.check(str(tmp_path))


def test_no_half_written_plot(tmp_path):
  class Broken:
    def savefig(self, file, **options):
      file.write(b"half")
      raise RuntimeError("no ink")

  with pytest.raises(RuntimeError, match="no ink"):
    plots.save({"a": Broken()}, str(tmp_path))
  assert list(tmp_path.iterdir()) == []
