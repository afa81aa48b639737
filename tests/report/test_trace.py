"""The Chrome trace of the first time steps: its form, and its numbers."""

import collections
import dataclasses
import json

import numpy as np
import pytest
from numpy import testing as npt

from jaxnmc.chip import hardware
from jaxnmc.chip.costs import timing
from jaxnmc.chip.counting import folding
from jaxnmc.chip.placement import place
from jaxnmc.chip.routing import links
from jaxnmc.errors import ConfigError, UserError
from jaxnmc.report import trace
from tests.chip import synthetic


@pytest.fixture(scope="module")
def placed():
  net = synthetic.matmulfree(layers=2, d=16, i=24, vocab=32, seed=1)
  return place.place(net, hardware.loihi2(chips=3, cores_per_chip=5))


def _bars(data, cat):
  return [e for e in data["traceEvents"] if e.get("cat") == cat]


def _check_form(data):
  """What the viewers want."""
  assert json.loads(json.dumps(data, allow_nan=False)) == data
  assert set(data) == {"traceEvents", "displayTimeUnit", "otherData"}
  assert data["displayTimeUnit"] in ("ms", "ns")
  tracks, named = collections.defaultdict(list), set()
  for e in data["traceEvents"]:
    assert e["ph"] in ("M", "X")
    assert type(e["pid"]) is int
    assert type(e["tid"]) is int
    assert isinstance(e["args"], dict)
    if e["ph"] == "M":
      assert ("name" in e["args"]) or ("sort_index" in e["args"])
      if e["name"] == "thread_name":
        named.add((e["pid"], e["tid"]))
    else:
      assert e["name"]
      assert e["ts"] >= 0
      assert e["dur"] >= 0
      tracks[e["pid"], e["tid"]].append((e["ts"], e["ts"] + e["dur"]))
  assert set(tracks) <= named
  for spans in tracks.values():
    spans.sort()
    for (_, end), (start, _) in zip(spans, spans[1:]):
      assert end <= start + 1e-6  # bars of a track do not overlap
  processes = {
    e["pid"] for e in data["traceEvents"] if e["name"] == "process_name"
  }
  assert {pid for pid, _ in tracks} <= processes


def test_bars_are_the_walks_of_the_cores(placed):
  segments = [synthetic.traffic(placed, p) for p in (range(4), [0], [3, 4, 60])]
  lengths = [int(s.inject[-1]) + placed.steps_per_token for s in segments]
  steps = lengths[0] + lengths[1] + 7
  data = trace.trace(segments, placed, steps)
  _check_form(data)
  assert data["otherData"]["steps"] == steps
  walked = collections.Counter()
  per = placed.hardware.cores_per_chip
  synop_us = 1e6 * placed.hardware.synop_s
  for e in _bars(data, "walk"):
    core = (e["pid"] - 1) * per + e["tid"] - 1
    walked[e["args"]["step"], core] += e["args"]["weights"]
    npt.assert_allclose(e["dur"], e["args"]["weights"] * synop_us, atol=2e-4)
  want, seconds = [], []
  clock = timing.Clock(timing.Forms(placed, np.zeros(1), 0.0))
  for s in segments:
    rows = folding.series(s, placed)
    want.append(placed.sum_by(placed.tile_core, rows))
    seconds.append(clock.stretch(folding.fold(s, placed)))
  want = np.concatenate(want)[:steps]
  found = np.zeros_like(want)
  for where, n in walked.items():
    found[where] = n
  npt.assert_array_equal(found, want)
  bars = _bars(data, "step")
  us = 1e6 * np.concatenate(seconds)[:steps]
  npt.assert_allclose([e["dur"] for e in bars], us, atol=2e-4)
  npt.assert_allclose(bars[-1]["ts"] + bars[-1]["dur"], us.sum(), atol=1e-3)


def test_bars_of_links_add_up(placed):
  segment = synthetic.traffic(placed, range(3))
  steps = 2 + placed.steps_per_token
  data = trace.trace([segment], placed, steps)
  whole = links.link_loads(segment, placed)
  best = whole.ranking(8)
  threads = collections.Counter()
  for e in _bars(data, "link"):
    threads[e["tid"]] += e["args"]["words"]
  assert threads
  for k, row in enumerate(best):
    assert threads[1000 + k] == row["words"]
  # As long as the link takes; no step is over before its links are done.
  chip = placed.hardware
  rates = {"chip": 1 / chip.link_messages_per_s}
  rates["mesh"] = 4 / chip.mesh_bytes_per_s
  length = {e["args"]["step"]: e["dur"] for e in _bars(data, "step")}
  for e in _bars(data, "link"):
    kind = best[e["tid"] - 1000]["kind"]
    unit = "messages" if kind == "chip" else "words"
    took = 1e6 * e["args"][unit] * rates[kind]
    npt.assert_allclose(e["dur"], took, atol=2e-4)
    assert e["dur"] <= length[e["args"]["step"]] + 2e-4


def test_steps_name_what_set_them(placed):
  chip = dataclasses.replace(placed.hardware, synop_s=1e-6)
  slow = dataclasses.replace(placed, hardware=chip)
  segment = synthetic.traffic(placed, range(3))
  for where, name in ((placed, "barrier"), (slow, "walk")):
    bars = _bars(trace.trace([segment], where, 8), "step")
    assert name in {e["args"]["set by"] for e in bars}
  assert "barrier" not in {e["args"]["set by"] for e in bars if e["dur"] > 11}


def test_a_recorder_keeps_no_more_than_it_needs(placed):
  latency = placed.steps_per_token
  run = [synthetic.traffic(placed, p) for p in ([0, 5, 400, 401], [0], [0])]
  recorder = trace.Recorder(placed, steps=100)
  for segment in run:
    recorder(segment)
  (kept,) = recorder.segments
  assert kept.inject.tolist() == [0, 5, 400]
  assert kept.counts[0].out.base is None
  assert recorder.trace() == trace.trace(run, placed, 100)
  assert recorder.trace()["otherData"]["steps"] == 100
  recorder = trace.Recorder(placed, steps=402 + latency)
  for segment in run:
    recorder(segment)
  assert len(recorder.segments) == 2
  _check_form(trace.Recorder(placed).trace())


def test_a_large_trace_is_cut_at_a_step(placed, monkeypatch):
  segment = synthetic.traffic(placed, range(9))
  full = trace.trace([segment], placed)
  monkeypatch.setattr(trace, "MAX_EVENTS", 60)
  data = trace.trace([segment, segment], placed)
  _check_form(data)
  steps = data["otherData"]["steps"]
  assert 0 < steps < full["otherData"]["steps"]
  assert data["otherData"]["cut at"] == "60 bars"
  assert full["otherData"]["cut at"] == ""
  kept = [e for e in _bars(full, "walk") if e["args"]["step"] < steps]
  assert _bars(data, "walk") == kept


def test_impossible_traces_are_refused(placed):
  segment = synthetic.traffic(placed, [0])
  with pytest.raises(ConfigError, match="at least one time step, not 0"):
    trace.trace([segment], placed, 0)
  chip = dataclasses.replace(placed.hardware, synop_s=None)
  timeless = dataclasses.replace(placed, hardware=chip)
  with pytest.raises(UserError, match="synop_s is unknown"):
    trace.trace([segment], timeless)
