"""Times and tables of a run, beside the published ones."""

import dataclasses
import json

import numpy as np
import pytest
from numpy import testing as npt

from jaxnmc.chip import hardware
from jaxnmc.chip.costs import timing
from jaxnmc.chip.costs.cost import cost
from jaxnmc.chip.counting.counters import Counters
from jaxnmc.chip.placement import packing, place
from jaxnmc.chip.routing import by_step, link_steps, links
from jaxnmc.errors import UserError
from tests.chip import synthetic


def test_prefill_step_of_370m_is_within_5_percent_of_the_published_one(big):
  _, _, report = big
  npt.assert_allclose(report.prefill_step_us.value, 1e6 / 13965, rtol=0.05)
  npt.assert_allclose(report.prefill_tokens_per_s.value, 13965, rtol=0.05)


def test_one_block_on_one_chip():
  placed = place.place(synthetic.matmulfree(1, vocab=8), hardware.loihi2())
  counted = Counters.of([synthetic.traffic(placed, np.arange(40))], placed)
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


def test_time_of_a_run_is_the_sum_of_its_steps(small):
  chip = dataclasses.replace(small.hardware, synop_s=1e-6)
  placed = place.place(small.network, chip)
  parts = [synthetic.traffic(placed, p, seed=1) for p in (range(5), [0])]
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


def test_links_set_the_time_of_a_step(small):
  """Slow links: steps last as long as their busiest link needs."""
  counted = Counters.of([synthetic.traffic(small, range(4), seed=5)], small)
  (stretch,) = counted.stretches
  steps = stretch.steps_of
  loads = links.link_loads(counted, small)

  def report(**slow):
    chip = dataclasses.replace(small.hardware, **slow)
    return cost(counted, dataclasses.replace(small, hardware=chip))

  chip = report(link_messages_per_s=1e3)
  time = np.maximum(1e-3 * steps["busiest_link"], 10e-6).sum()
  npt.assert_allclose(chip.run_ms.value, 1e3 * time)
  most = loads.busiest(["chip"])["messages"] / 4
  npt.assert_allclose(chip.prefill_step_us.value, 1e3 * most)
  mesh = report(mesh_bytes_per_s=4e3)
  time = np.maximum(1e-3 * steps["busiest_mesh"], 10e-6).sum()
  npt.assert_allclose(mesh.run_ms.value, 1e3 * time)
  most = loads.busiest(["mesh"])["words"] / 4
  npt.assert_allclose(mesh.prefill_step_us.value, 1e3 * most)
  # A token alone, which was not run: by depth, at the share that was counted.
  link, _ = link_steps.by_depth(small)
  share = counted.total("synops_stored").sum() / 4 / small.walk.sum()
  alone = np.maximum(1e-3 * link * share, 10e-6).sum()
  npt.assert_allclose(chip.generate_ms_per_token.value, 1e3 * alone, rtol=1e-3)
  unknown = report(link_messages_per_s=None, mesh_bytes_per_s=None)
  assert unknown.run_ms.value < min(chip.run_ms.value, mesh.run_ms.value)
  assert "link_messages_per_s" in " ".join(unknown.notes)


def test_floor_of_a_step():
  b = synthetic.Builder()
  b.population("embed", None, 4, 1, host=True)
  b.population("layers.0.out", 0, 4, 1)
  b.join(0, 1, "relay", 0)
  net = b.network()

  def step(**overrides):
    placed = place.place(net, hardware.loihi2(**overrides))
    counted = Counters.of([synthetic.traffic(placed, range(3))], placed)
    return cost(counted, placed)

  npt.assert_allclose(step().prefill_step_us.value, 1.78)
  slow = step(neuron_s=1e-3, cores_per_chip=1)
  npt.assert_allclose(slow.prefill_step_us.value, 4000)
  weights = step(synop_s=1.0, cores_per_chip=1)
  npt.assert_allclose(weights.prefill_step_us.value, 4e6)
  free = step(barrier_s=None, neuron_s=None)
  npt.assert_allclose(free.prefill_step_us.value, 0.66e-3)  # one weight
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
  # No step is known, so the peak is that of a mode.
  modes = (found.prefill_w.value, found.generate_w.value)
  npt.assert_allclose(found.peak_w.value, max(modes))


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


def test_walk_by_depth_is_that_of_the_placement(small, monkeypatch):
  for window in (1, 1 << 22):
    monkeypatch.setattr(by_step, "WINDOW", window)
    most, total = timing._walk(small)
    npt.assert_array_equal(most, small.walk.max(1))
    assert total == small.walk.sum()


def test_more_steps_than_the_tokens_need_are_floor(small):
  counted = Counters.of([synthetic.traffic(small, [0])], small)
  late = dataclasses.replace(
    counted.stretches[0], steps_of={}, steps=small.steps_per_token + 7
  )
  clock = timing.Clock(timing.Forms(small, np.zeros(3), 1.0))
  times = clock.stretch(late)
  assert times.shape == (late.steps,)
  npt.assert_array_equal(times[-7:], clock.floor)


def test_every_figure_has_a_label_and_a_source(big):
  _, _, report = big
  assert len(report.figures) == len(report.rows()) == 23
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


def test_shares_are_percentages(small):
  counted = Counters.of([synthetic.traffic(small, range(3), seed=2)], small)
  report = cost(counted, small)
  part = counted.total("synops").sum() / counted.total("synops_stored").sum()
  npt.assert_allclose(report.nonzero_percent.value, 100 * part)
  units = small.demand[:, packing.COLUMN["synapse_units"]].sum()
  cores = len(small.chips) * small.hardware.cores_per_chip
  room = cores * small.hardware.synapse_units
  npt.assert_allclose(report.memory_percent.value, 100 * units / room)


def test_rows_of_cores_are_those_of_the_counters(small):
  counted = Counters.of([synthetic.traffic(small, range(4), seed=3)], small)
  rows = cost(counted, small, top=99).per_core
  per = small.hardware.cores_per_chip
  walked = counted.by("core", "synops_stored", small) / 4
  assert [row["synops_per_token"] for row in rows] == sorted(walked)[::-1]
  assert any(row["chip"] for row in rows)
  for row in rows:
    core = row["chip"] * per + row["core"]
    assert 0 <= row["core"] < per
    mine = small.tile_core == core
    assert row["synops_per_token"] == walked[core]
    assert row["weights"] == small.stored[mine].sum()
    assert row["neurons"] == small.sizes[mine].sum()
    assert row["neuron_passes"] == small.passes[mine].sum()
    units = small.demand[mine, packing.COLUMN["synapse_units"]].sum()
    share = 100 * units / small.hardware.synapse_units
    npt.assert_allclose(row["memory_percent"], share)
    seconds = walked[core] * small.hardware.synop_s
    npt.assert_allclose(row["walk_us"], 1e6 * seconds)


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


def test_counters_that_cannot_be_priced(small):
  counted = Counters.of([synthetic.traffic(small, [0])], small)
  with pytest.raises(UserError, match="at least one token"):
    cost(dataclasses.replace(counted, stretches=()), small)
  bare = dataclasses.replace(counted.stretches[0], totals={})
  with pytest.raises(UserError, match="synops_stored"):
    cost(dataclasses.replace(counted, stretches=(bare,)), small)
