"""Energy constants: the fits, and what a run draws."""

import dataclasses

import pytest
from numpy import testing as npt

from jaxnmc.chip import hardware
from jaxnmc.chip.costs import energy
from jaxnmc.chip.costs.cost import cost
from jaxnmc.chip.counting.counters import Counters
from jaxnmc.chip.placement import place
from jaxnmc.errors import UserError
from tests.chip import synthetic


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


def test_energy_adds_up(small):
  each = energy.Energy(
    "given", "a test", 0.5, 0.25, 1e-3, 2e-9, 3e-9, 5e-9, 7e-9
  )
  counted = Counters.of([synthetic.traffic(small, range(6), seed=3)], small)
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
  placed = place.place(small.network, chip)
  counted = Counters.of([synthetic.traffic(placed, [0])], placed)
  report = cost(counted, placed)
  assert report.mean_w.value > 2.0 * len(placed.chips)
  assert report.mean_w.source == "given with Loihi 2"


def test_another_chip_has_no_energy_of_loihi(small):
  chip = dataclasses.replace(small.hardware, name="mine", facts={})
  placed = place.place(small.network, chip)
  report = cost(Counters.of([synthetic.traffic(placed, [0])], placed), placed)
  assert report.mean_w.value is None
  assert report.peak_w.value is None
  assert report.per_chip[0]["walk_mj_per_token"] is None
  assert report.run_ms.value is not None
  assert any(note.startswith("no energy") for note in report.notes)


def test_short_steps_use_the_running_form():
  net = synthetic.matmulfree(layers=2, d=16, i=24, vocab=32)
  placed = place.place(net, hardware.loihi2())
  counted = Counters.of([synthetic.traffic(placed, range(4))], placed)
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


def test_peak_is_the_step_with_the_highest_power(small):
  """By steps; one without any event takes no time and counts for nothing."""
  chip = dataclasses.replace(
    small.hardware,
    barrier_s=None,
    barrier_system_s=None,
    neuron_s=None,
    host_messages_per_s=None,
    link_messages_per_s=None,
    mesh_bytes_per_s=None,
  )
  placed = place.place(small.network, chip)
  inject = [0, 3, 3 + 2 * placed.steps_per_token]
  counted = Counters.of([synthetic.traffic(placed, inject, seed=4)], placed)
  each = energy.Energy("given", "a test", synop_j=2e-12, crossing_j=3e-12)
  (stretch,) = counted.stretches
  watts = []
  for busiest, walked, crossed in zip(
    stretch.steps_of["busiest_stored"],
    stretch.steps_of["stored"],
    stretch.steps_of["crossings"],
  ):
    if busiest:
      joules = 2e-12 * walked + 3e-12 * crossed
      watts.append(joules / (busiest * chip.synop_s))
  assert len(watts) < stretch.steps
  peak = cost(counted, placed, each).peak_w.value
  assert peak < 1
  npt.assert_allclose(peak, max(watts))
