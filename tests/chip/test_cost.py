import dataclasses
import json

import numpy as np
import pytest
from numpy import testing as npt

from jaxnmc.chip import (
  counters,
  energy,
  folding,
  hardware,
  placement,
  timing,
)
from jaxnmc.chip.cost import cost
from jaxnmc.chip.counters import Counters, Segment, SynapseCount
from jaxnmc.errors import UserError
from tests.chip import synthetic


def traffic(placed, inject, seed=None):
  """A segment: every message sent, or a random part of them."""
  rng = np.random.default_rng(seed)
  net, tokens = placed.network, len(inject)
  rows = []
  for s, code in zip(net.synapses, placed.encodings):
    src = placed.sizes[list(placed.tiles_of[s.src])]
    dst = placed.sizes[list(placed.tiles_of[s.dst])]
    if not len(src) + len(dst):
      continue
    part = np.ones((tokens, 1)) if seed is None else rng.random((tokens, 1))
    fill = lambda values, part=part: (part * values).astype(np.int32)
    width = net.populations[s.src].width
    inc = dst if s.kind == "relay" else np.full(len(dst), width)
    stored = fill(dst * code.entries)
    rows.append(
      SynapseCount(
        *(s.index, s.depth, fill(src), fill(inc)),
        *((stored * 0.6).astype(np.int32), stored),
      )
    )
  return Segment(np.asarray(inject), tuple(rows))


@pytest.fixture(scope="module")
def big():
  """370M on 24 chips: a prompt of 400 tokens, then two tokens."""
  placed = placement.place(
    synthetic.matmulfree(vocab=64), hardware.loihi2(chips=24)
  )
  latency = placed.steps_per_token
  parts = (np.arange(400), np.arange(2) * latency)
  counted = Counters.of([traffic(placed, p) for p in parts], placed, {})
  return placed, counted, cost(counted, placed)


@pytest.fixture(scope="module")
def small():
  net = synthetic.matmulfree(layers=2, d=16, i=24, vocab=32, seed=1)
  return placement.place(net, hardware.loihi2(chips=3, cores_per_chip=5))


# --- the published figures


def test_prefill_step_of_370m_is_within_5_percent_of_the_published_one(big):
  _, _, report = big
  npt.assert_allclose(report.prefill_step_us.value, 1e6 / 13965, rtol=0.05)
  npt.assert_allclose(report.prefill_tokens_per_s.value, 13965, rtol=0.05)


def test_one_block_on_one_chip():
  placed = placement.place(synthetic.matmulfree(1, vocab=8), hardware.loihi2())
  counted = Counters.of([traffic(placed, np.arange(40))], placed)
  report = cost(counted, placed)
  npt.assert_allclose(report.prefill_step_us.value, 71.6, rtol=0.05)
  full = counted.stretches[0].steps_of["busiest_stored"].max()
  npt.assert_allclose(full * 0.66e-3, report.prefill_step_us.value)


def test_energy_of_370m_is_near_the_table_it_was_fitted_on(big):
  _, _, report = big
  npt.assert_allclose(report.prefill_mj_per_token.value, 3.7, rtol=0.15)
  npt.assert_allclose(report.generate_mj_per_token.value, 405, rtol=0.15)
  assert report.prefill_mj_per_token.label == "fitted"
  assert "Table 4" in report.prefill_mj_per_token.source
  assert report.prefill_step_us.label == "modelled"


@pytest.mark.parametrize(
  ("steps", "static", "step", "token", "links"),
  [
    (10, 0.1312, 56.82e-6, 1.211e-3, 0.651e-3),
    (15, 0.1298, 37.92e-6, 1.667e-3, 0.653e-3),
    (20, 0.1291, 28.46e-6, 1.895e-3, 0.655e-3),
  ],
)
def test_fit_of_the_step_form(steps, static, step, token, links):
  e = energy.constants("step", steps)
  npt.assert_allclose(e.static_w, static, atol=5e-5)
  npt.assert_allclose(e.chip_step_j, step, rtol=2e-4)
  npt.assert_allclose(e.synop_j * 24 * 12_845_056, token, rtol=1e-3)
  npt.assert_allclose(e.crossing_j * 23 * 1024, links, rtol=1e-3)
  # It reproduces the four rows it was solved from.
  work = lambda tokens, crossed: (
    24 * 12_845_056 * tokens,
    23 * 1024 * tokens * crossed,
    0,
    0,
  )
  for rate, joules, generation, many in energy._TABLE4:
    per = 24 * steps if generation else 1
    chips = 24 if many or not generation else 1
    found = e.joules(24, 1 / rate, 0, work(1, many))
    found += chips * per * e.chip_step_j
    npt.assert_allclose(found, joules, rtol=1e-9)


def test_fit_of_the_running_form():
  e = energy.constants("running")
  npt.assert_allclose((e.static_w, e.running_w), (0.149, 0.532), atol=5e-4)
  npt.assert_allclose(e.synop_j * 24 * 12_845_056, 1.49e-3, rtol=2e-3)
  # Residuals of the two rows that step on all chips all the time.
  for rate, joules, residual in ((6632, 3.7e-3, 0.068), (41.5, 0.405, -0.024)):
    found = e.joules(24, 1 / rate, 1, (24 * 12_845_056, 0, 0, 0))
    npt.assert_allclose(found / joules - 1, residual, atol=2e-3)


def test_energy_form_must_exist_and_be_positive():
  with pytest.raises(UserError, match="kelvin"):
    energy.constants("kelvin")
  with pytest.raises(UserError, match="negative"):
    energy.constants("step", 2)
  assert energy.candidates(hardware.loihi2(), 2)[0].chip_step_j == (
    energy.constants("step").chip_step_j
  )


# --- folding


def brute(segment, placed, name):
  """The skew of `docs`, one event at a time."""
  net = placed.network
  steps = int(segment.inject[-1]) + placed.steps_per_token
  rows = np.zeros((steps, len(placed.tiles)), np.int64)
  seen = set()
  for c in segment.counts:
    s = net.synapses[c.synapse]
    field = {
      "synops": "synops",
      "synops_stored": "stored",
      "messages_in": "inc",
      "messages_out": "out",
    }[name]
    key = {"inc": (s.source, s.dst), "out": s.source}.get(field, c.synapse)
    if key in seen:
      continue
    seen.add(key)
    tiles = placed.tiles_of[s.src if field == "out" else s.dst]
    for n, at in enumerate(segment.inject):
      for k, tile in enumerate(tiles):
        rows[at + s.depth, tile] += getattr(c, field)[n, k]
  return rows


@pytest.mark.parametrize("window", [1, 300, 1 << 22])
@pytest.mark.parametrize(
  ("inject", "mode"),
  [
    ([0], "fall-through"),
    ([3], "fall-through"),
    (range(9), "pipelined"),
    (range(4, 9), "pipelined"),
    ([0, 60, 200], "fall-through"),
    ([0, 1, 5, 6, 100, 101], "mixed"),
  ],
)
def test_folding_equals_the_events_one_by_one(
  small, inject, mode, window, monkeypatch
):
  monkeypatch.setattr(folding, "_WINDOW", window)
  segment = traffic(small, list(inject), seed=5)
  counted = Counters.of([segment], small, {"a": 3})
  (stretch,) = counted.stretches
  assert stretch.mode == mode
  assert stretch.tokens == len(inject)
  assert stretch.steps == segment.inject[-1] + small.steps_per_token
  assert stretch.first_logits == segment.inject[0] + small.steps_per_token - 1
  for name in ("synops", "synops_stored", "messages_in", "messages_out"):
    rows = brute(segment, small, name)
    npt.assert_array_equal(rows.sum(0), stretch.totals[name])
    npt.assert_array_equal(rows, counters.series(segment, small, name))
    assert stretch.totals[name].dtype == np.int64
  rows = brute(segment, small, "synops_stored")
  cores = small.sum_by(small.tile_core, rows)
  npt.assert_array_equal(cores.max(1), stretch.steps_of["busiest_stored"])
  npt.assert_array_equal(cores.sum(1), stretch.steps_of["stored"])
  passes = small.passes
  npt.assert_array_equal(
    stretch.totals["passes_executed"], passes * stretch.steps
  )
  npt.assert_array_equal(stretch.totals["passes_active"], passes * len(inject))


def test_counts_do_not_overflow(small):
  segment = traffic(small, [0, 1])
  huge = tuple(
    dataclasses.replace(c, stored=np.full_like(c.stored, 2**31 - 1))
    for c in segment.counts
  )
  counted = Counters.of([Segment(segment.inject, huge)], small)
  dst = [small.network.synapses[c.synapse].dst for c in huge]
  entries = 2 * sum(len(small.tiles_of[i]) for i in dst)
  assert counted.total("synops_stored").sum() == entries * (2**31 - 1)


def test_crossings_and_host_messages(big):
  placed, counted, _ = big
  prompt = counted.stretches[0]
  # One vector from each block to the next one; the first comes from the host.
  assert prompt.totals["crossings"].sum() == 400 * 23 * 1024
  assert prompt.steps_of["crossings"].sum() == 400 * 23 * 1024
  host = prompt.steps_of["host_messages"]
  assert host.sum() == 400 * 2 * 1024  # in at depth 0, out at the last one
  assert host[0] == 1024
  assert host.max() == 2048
  by_chip = counted.by("chip", "crossings", placed)
  assert by_chip.tolist() == [402 * 1024] * 23 + [0]


def test_a_value_for_two_chips_crosses_twice():
  b = synthetic.Builder()
  b.population("embed", None, 4, 1, host=True)
  names = [b.population(f"layers.{n}.out", n, 4, 1) for n in range(3)]
  b.join(0, names[0], "relay", 0)
  for k in (1, 2):
    weights = synthetic.ternary(4, 4)
    b.join(names[0], names[k], "dense", k, weights, source=9)
  placed = placement.place(b.network(), hardware.loihi2(chips=3))
  counted = Counters.of([traffic(placed, [0])], placed)
  assert counted.by("layer", "crossings", placed).tolist() == [8, 0, 0]
  assert counted.by("layer", "messages_out", placed).tolist() == [4, 0, 0]


def test_sums_by_core_chip_and_layer(small):
  counted = Counters.of([traffic(small, [0, 1, 2], seed=2)], small)
  for name in counted.names:
    total = counted.total(name).sum()
    assert counted.by("core", name, small).sum() == total
    assert counted.by("chip", name, small).sum() == total
  assert set(counted.names) == set(counters.TOTALS)
  layer = counted.by("layer", "synops", small)
  mine = counted.total("synops")[small.tile_layer == 1].sum()
  assert layer[1] == mine
  with pytest.raises(UserError, match="galaxy"):
    counted.by("galaxy", "synops", small)


def test_merge_appends_and_checks(small, big):
  one = Counters.of([traffic(small, [0, 1])], small, {"a": 1})
  two = Counters.of([traffic(small, [0])], small, {"a": 2, "b": 1})
  both = one.merge(two)
  assert [s.tokens for s in both.stretches] == [2, 1]
  assert both.tokens == 3
  assert both.steps == one.steps + two.steps
  assert both.saturations == {"a": 3, "b": 1}
  blank = Counters.of([traffic(small, [0])], small)
  assert one.merge(blank).saturations is None
  assert cost(blank, small).saturations.value is None
  assert Counters.from_json(blank.to_json()).saturations is None
  none = Counters.of([traffic(small, [0])], small, {"a": 0})
  assert Counters.from_json(none.to_json()).saturations == {"a": 0}
  falling = both.total("synops", "fall-through")
  npt.assert_array_equal(falling, two.total("synops"))
  with pytest.raises(UserError, match="different placements"):
    one.merge(big[1])
  with pytest.raises(UserError, match="do not belong"):
    cost(one, big[0])


# --- time


def test_time_of_a_run_is_the_sum_of_its_steps(small):
  chip = dataclasses.replace(small.hardware, synop_s=1e-6)
  placed = placement.place(small.network, chip)
  parts = [traffic(placed, p, seed=1) for p in (range(5), [0])]
  counted = Counters.of(parts, placed)
  report = cost(counted, placed)
  cores = placed.sum_by(placed.tile_core, placed.passes).max()
  floor = max(10e-6, cores * 4e-9)
  total = []
  for s in counted.stretches:
    busiest, host = s.steps_of["busiest_stored"], s.steps_of["host_messages"]
    steps = np.maximum(np.maximum(busiest * 1e-6, host / 160e6), floor)
    total.append(steps.sum())
  npt.assert_allclose(report.run_ms.value, 1e3 * sum(total))
  npt.assert_allclose(report.ttft_ms.value, 1e3 * total[0])
  npt.assert_allclose(report.generate_ms_per_token.value, 1e3 * total[1])
  steps = placed.steps_per_token
  npt.assert_allclose(report.generate_step_us.value, 1e6 * total[1] / steps)
  assert report.steps_per_token.value == steps
  assert report.tokens == {"prefill": 5, "generate": 1}


def test_floor_of_a_step():
  b = synthetic.Builder()
  b.population("embed", None, 4, 1, host=True)
  b.population("layers.0.out", 0, 4, 1)
  b.join(0, 1, "relay", 0)
  net = b.network()

  def step(**overrides):
    placed = placement.place(net, hardware.loihi2(**overrides))
    counted = Counters.of([traffic(placed, range(3))], placed)
    return cost(counted, placed)

  npt.assert_allclose(step().prefill_step_us.value, 1.78)
  slow = step(neuron_s=1e-3, cores_per_chip=1)
  npt.assert_allclose(slow.prefill_step_us.value, 4000)
  weights = step(synop_s=1.0, cores_per_chip=1)
  npt.assert_allclose(weights.prefill_step_us.value, 4e6)
  host = step(host_messages_per_s=1.0, barrier_s=None)
  npt.assert_allclose(host.ttft_ms.value, 3 * 4e3, rtol=1e-5)
  nothing = step(synop_s=None)
  assert nothing.prefill_step_us.value is None
  assert nothing.mean_w.value is None
  assert nothing.peak_w.value is None
  assert nothing.synops_per_token.value == 4
  assert "synop_s" in " ".join(nothing.notes)


def test_totals_alone_give_the_per_token_form(big):
  placed, counted, report = big
  bare = tuple(dataclasses.replace(s, steps_of={}) for s in counted.stretches)
  found = cost(dataclasses.replace(counted, stretches=bare), placed)
  # All messages were sent, so the prediction by depth is the count by step.
  for name in ("prefill_step_us", "generate_ms_per_token", "generate_w"):
    npt.assert_allclose(
      getattr(found, name).value, getattr(report, name).value, rtol=1e-6
    )
  assert found.run_ms.value >= report.run_ms.value
  assert found.peak_w.value > 0


def test_a_mode_that_was_not_run_is_predicted(big):
  placed, counted, report = big
  prompt = dataclasses.replace(counted, stretches=counted.stretches[:1])
  found = cost(prompt, placed)
  assert "predicted" in found.generate_tokens_per_s.source
  assert "predicted" not in report.generate_tokens_per_s.source
  npt.assert_allclose(
    found.generate_tokens_per_s.value,
    report.generate_tokens_per_s.value,
    rtol=1e-6,
  )
  single = dataclasses.replace(counted, stretches=counted.stretches[1:])
  found = cost(single, placed)
  npt.assert_allclose(found.prefill_step_us.value, report.prefill_step_us.value)


def test_more_steps_than_the_tokens_need_are_floor(small):
  counted = Counters.of([traffic(small, [0])], small)
  late = dataclasses.replace(
    counted.stretches[0], steps_of={}, steps=small.steps_per_token + 7
  )
  clock = timing.Clock(small, np.zeros(3), 1.0)
  times = clock.stretch(late)
  assert times.shape == (late.steps,)
  npt.assert_array_equal(times[-7:], clock.floor)


# --- power and energy


def test_energy_adds_up(small):
  each = energy.Energy(
    "given", "a test", 0.5, 0.25, 1e-3, 2e-9, 3e-9, 5e-9, 7e-9
  )
  counted = Counters.of([traffic(small, range(6), seed=3)], small)
  report = cost(counted, small, each)
  (s,) = counted.stretches
  sums = {k: v.sum() for k, v in s.totals.items()}
  chips = len(small.chips)
  expected = chips * 0.75 * report.run_ms.value / 1e3
  expected += chips * 1e-3 * s.steps
  expected += 2e-9 * sums["synops_stored"] + 3e-9 * sums["crossings"]
  expected += 5e-9 * sums["passes_executed"] + 7e-9 * sums["messages_out"]
  npt.assert_allclose(report.run_mj.value, 1e3 * expected)
  mean = report.run_mj.value / report.run_ms.value
  npt.assert_allclose(report.mean_w.value, mean)
  assert report.mean_w.source == "a test"
  assert report.mean_w.label == "modelled"
  for mode in ("prefill", "generate"):
    time = {
      "prefill": report.prefill_step_us.value / 1e3,
      "generate": report.generate_ms_per_token.value,
    }[mode]
    watts = getattr(report, f"{mode}_w").value
    joules = getattr(report, f"{mode}_mj_per_token").value
    npt.assert_allclose(watts * time, joules)
  assert report.peak_w.value >= report.mean_w.value * 0.9


def test_constants_of_the_hardware_win(small):
  chip = dataclasses.replace(small.hardware, static_w=2.0, synop_j=1e-12)
  placed = placement.place(small.network, chip)
  counted = Counters.of([traffic(placed, [0])], placed)
  report = cost(counted, placed)
  assert report.mean_w.value > 2.0 * len(placed.chips)
  assert report.mean_w.source == "given with Loihi 2"


def test_another_chip_has_no_energy_of_loihi(small):
  chip = dataclasses.replace(small.hardware, name="mine", facts={})
  placed = placement.place(small.network, chip)
  report = cost(Counters.of([traffic(placed, [0])], placed), placed)
  assert report.mean_w.value is None
  assert report.peak_w.value is None
  assert report.per_chip[0]["walk_mj_per_token"] is None
  assert report.run_ms.value is not None
  assert any(note.startswith("no energy") for note in report.notes)


def test_short_steps_use_the_running_form():
  net = synthetic.matmulfree(layers=2, d=16, i=24, vocab=32)
  placed = placement.place(net, hardware.loihi2())
  counted = Counters.of([traffic(placed, range(4))], placed)
  auto = cost(counted, placed)
  assert "form C" in auto.mean_w.source
  assert "outside what it was fitted on" in auto.notes[0]
  step = cost(counted, placed, "step")
  assert "B+L" in step.mean_w.source
  assert step.mean_w.value > 2.26 > auto.mean_w.value
  assert cost(counted, placed, "running").mean_w == auto.mean_w
  assert auto.mean_w.label == "modelled"  # not the system it was fitted on
  assert any(note.startswith("peak_w") for note in step.notes)
  with pytest.raises(UserError, match="volt"):
    cost(counted, placed, "volt")


# --- the report and its tables


def test_every_figure_has_a_label_and_a_source(big):
  _, _, report = big
  assert len(report.figures) == len(report.rows()) == 21
  for row in report.rows():
    assert row["label"] in ("measured", "modelled", "fitted", "quoted")
    assert row["source"]
    assert row["unit"]
    assert row["value"] is not None, row["name"]
  data = json.loads(report.to_json())
  assert data["ttft_ms"]["value"] == report.ttft_ms.value
  assert "prefill_tokens_per_s" in str(report)
  unknown = dataclasses.replace(
    report, ttft_ms=dataclasses.replace(report.ttft_ms, value=None)
  )
  assert "unknown" in str(unknown)


def test_tables_add_up(big):
  placed, _, report = big
  assert [row["chip"] for row in report.per_chip] == list(range(24))
  walked = sum(row["synops_per_token"] for row in report.per_chip)
  npt.assert_allclose(walked, report.synops_per_token.value)
  layers = sum(row["synops_stored_per_token"] for row in report.per_layer)
  npt.assert_allclose(layers, walked)
  time = sum(row["ms"] for row in report.per_layer)
  npt.assert_allclose(time, report.generate_ms_per_token.value, rtol=0.01)
  assert len(report.per_core) == 10
  first = report.per_core[0]
  npt.assert_allclose(first["walk_us"], report.prefill_step_us.value)
  slowest = max(row["step_us"] for row in report.per_chip)
  npt.assert_allclose(slowest, report.prefill_step_us.value)
  assert report.memory_bytes.value == placed.memory_bytes
  assert any("2.1 times" in note for note in report.notes)


# --- JSON of a real chip


def test_json_round_trip(small):
  counted = Counters.of(
    [traffic(small, range(3), seed=1), traffic(small, [0])], small, {"x": 2}
  )
  text = counted.to_json()
  again = Counters.from_json(text)
  assert again.to_json() == text
  assert cost(again, small).run_ms == cost(counted, small).run_ms


def test_profile_per_core_of_a_real_chip(small):
  cores = small.hardware.cores
  walked = np.zeros(cores, int)
  walked[small.used_cores] = 1000
  data = {
    "format": "jaxnmc-counters",
    "version": 1,
    "per": "core",
    "owners": cores,
    "stretches": [
      {
        "mode": "pipelined",
        "tokens": 10,
        "steps": 45,
        "totals": {"synops_stored": walked.tolist()},
      }
    ],
  }
  profile = Counters.from_json(json.dumps(data))
  chip = dataclasses.replace(small.hardware, synop_s=1e-6)
  placed = dataclasses.replace(small, hardware=chip)
  report = cost(profile, placed)
  npt.assert_allclose(report.prefill_step_us.value, 100)
  npt.assert_allclose(report.ttft_ms.value, 45 * 0.1)
  assert report.nonzero_percent.value is None
  assert report.per_layer == ()
  used = len(small.used_cores)
  assert profile.by("chip", "synops_stored", placed).sum() == 1000 * used
  with pytest.raises(UserError, match="layer"):
    profile.by("layer", "synops_stored", placed)


def _edit(data, path, value):
  *path, last = path
  for key in path:
    data = data[key]
  if value is KeyError:
    del data[last]
  else:
    data[last] = value


STRETCH = ("stretches", 0)


@pytest.mark.parametrize(
  ("path", "value", "field"),
  [
    (("format",), "profile", "format"),
    (("version",), 2, "version"),
    (("per",), "chip", "per"),
    (("owners",), -1, "owners"),
    (("owners",), True, "owners"),
    (("stretches",), {}, "stretches"),
    (("saturations",), [], "saturations"),
    (("saturations", "x"), 0.5, "saturations.x"),
    (STRETCH, 7, r"stretches\[0\]"),
    ((*STRETCH, "mode"), "fast", "mode"),
    ((*STRETCH, "tokens"), None, "tokens"),
    ((*STRETCH, "steps"), 1.5, "steps"),
    ((*STRETCH, "first_logits"), "soon", "first_logits"),
    ((*STRETCH, "totals"), {"smiles": []}, "totals"),
    ((*STRETCH, "totals", "synops"), [1], "totals.synops"),
    ((*STRETCH, "totals", "synops", 0), -1, "totals.synops"),
    ((*STRETCH, "totals", "synops", 0), 0.5, "totals.synops"),
    ((*STRETCH, "steps_of", "stored"), 3, "steps_of.stored"),
  ],
)
def test_json_that_cannot_be_counts_is_refused(small, path, value, field):
  counted = Counters.of([traffic(small, [0])], small, {"x": 2})
  data = json.loads(counted.to_json())
  _edit(data, path, value)
  with pytest.raises(UserError, match=field) as e:
    Counters.from_json(json.dumps(data), "profile.json")
  assert "profile.json" in str(e.value)


def test_json_must_be_json():
  with pytest.raises(UserError, match="not JSON"):
    Counters.from_json("{")
  with pytest.raises(UserError, match="format"):
    Counters.from_json("[]")


def test_counters_that_cannot_be_priced(small):
  counted = Counters.of([traffic(small, [0])], small)
  with pytest.raises(UserError, match="at least one token"):
    cost(dataclasses.replace(counted, stretches=()), small)
  bare = dataclasses.replace(counted.stretches[0], totals={})
  with pytest.raises(UserError, match="synops_stored"):
    cost(dataclasses.replace(counted, stretches=(bare,)), small)
