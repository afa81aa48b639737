"""Counters as text: a round trip, a real chip's profile, bad fields."""

import dataclasses
import json

import numpy as np
import pytest
from numpy import testing as npt

from jaxnmc.chip.costs import energy
from jaxnmc.chip.costs.cost import cost
from jaxnmc.chip.counting.counters import Counters
from jaxnmc.errors import UserError
from tests.chip import synthetic


def test_json_round_trip(small):
  counted = Counters.of(
    [synthetic.traffic(small, range(3), seed=1), synthetic.traffic(small, [0])],
    small,
    {"x": 2},
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


def _profile(cores, steps, **more):
  """A profile per core and step, as a real chip's profiler writes it."""
  stretch = {"mode": "pipelined", "tokens": 4, "steps": steps} | more
  return {
    "format": "jaxnmc-counters",
    "version": 1,
    "per": "core",
    "owners": cores,
    "stretches": [stretch],
  }


def test_profile_per_core_and_step(small):
  """Priced as what it is reduced to; every count that the issue names."""
  cores, steps = small.hardware.cores, 9
  rng = np.random.default_rng(4)
  names = ("synops_stored", "passes_executed", "messages_out", "hops")
  counts = {n: rng.integers(0, 5000, (steps, cores)) for n in names}
  counts["crossings"] = rng.integers(0, 50, (steps, cores))
  text = json.dumps(
    _profile(
      cores, steps, core_steps={k: v.tolist() for k, v in counts.items()}
    )
  )
  profile = Counters.from_json(text)
  (stretch,) = profile.stretches
  for name, values in counts.items():
    npt.assert_array_equal(stretch.totals[name], values.sum(0))
  walked, passes = counts["synops_stored"], counts["passes_executed"]
  npt.assert_array_equal(stretch.steps_of["busiest_stored"], walked.max(1))
  npt.assert_array_equal(stretch.steps_of["stored"], walked.sum(1))
  npt.assert_array_equal(stretch.steps_of["busiest_passes"], passes.max(1))
  crossed = counts["crossings"].sum(1)
  npt.assert_array_equal(stretch.steps_of["crossings"], crossed)
  chip = dataclasses.replace(
    small.hardware, synop_s=10e-9, neuron_s=10e-9, barrier_system_s=1e-9
  )
  placed = dataclasses.replace(small, hardware=chip)
  each = energy.Energy("given", "a test", 0.5, 0, 1e-6, 2e-9, 3e-9, 5e-9, 7e-9)
  report = cost(profile, placed, each)
  time = np.maximum(10e-9 * walked.max(1), 10e-9 * passes.max(1)).sum()
  assert (10e-9 * walked.max(1) < 10e-9 * passes.max(1)).any()
  npt.assert_allclose(report.run_ms.value, 1e3 * time)
  joules = len(placed.chips) * (0.5 * time + 1e-6 * steps)
  joules += 2e-9 * walked.sum() + 3e-9 * crossed.sum() + 5e-9 * passes.sum()
  joules += 7e-9 * counts["messages_out"].sum()
  npt.assert_allclose(report.run_mj.value, 1e3 * joules)
  npt.assert_allclose(report.hops_per_token.value, counts["hops"].sum() / 4)
  assert report.link_words_per_token.value is None
  assert any(n.startswith("links are not timed") for n in report.notes)
  # What was read can be written, as sums, and read again.
  again = Counters.from_json(profile.to_json())
  assert cost(again, placed, each).run_mj == report.run_mj


@pytest.mark.parametrize(
  ("change", "words"),
  [
    ({"core_steps": []}, r"stretches\[0\].core_steps is \[\]"),
    ({"core_steps": {"smiles": []}}, "core_steps.*some of synops_stored"),
    ({"core_steps": {"hops": [[1, 2]]}}, "2 lists .steps. of 2 whole"),
    ({"core_steps": {"hops": [[1, 2], [3]]}}, "2 lists .steps. of 2 whole"),
    ({"core_steps": {"hops": [[1, 2], [3, -1]]}}, "not negative"),
    ({"core_steps": {"hops": [[1, 2], [3, 0.5]]}}, "not negative"),
    (
      {"core_steps": {"hops": [[1, 2], [3, 4]]}, "totals": {"hops": [4, 6]}},
      "left out where hops is given too",
    ),
    (
      {
        "core_steps": {"synops_stored": [[1, 2], [3, 4]]},
        "steps_of": {"stored": [3, 7]},
      },
      "left out where stored is given too",
    ),
  ],
)
def test_core_steps_that_cannot_be_counts_are_refused(change, words):
  with pytest.raises(UserError, match=words):
    Counters.from_json(json.dumps(_profile(2, 2, **change)))


def test_core_steps_are_of_cores(small):
  data = _profile(2, 2, core_steps={"hops": [[1, 2], [3, 4]]})
  assert Counters.from_json(json.dumps(data)).tokens == 4
  with pytest.raises(UserError, match='left out but per "core"'):
    Counters.from_json(json.dumps(data | {"per": "tile"}))


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
    ((*STRETCH, "steps_of", "busiest_link"), [1], "steps_of.busiest_link"),
    ((*STRETCH, "sent"), [], "sent"),
    ((*STRETCH, "sent", "x"), [[], []], "sent"),
    ((*STRETCH, "sent", "0"), [[1]], "sent.0"),
    ((*STRETCH, "sent", "0"), [[1], [-1]], "sent.0"),
    ((*STRETCH, "sent", "0", 0), [True], "sent.0"),
    ((*STRETCH, "sent", "0", 1), 7, "sent.0"),
  ],
)
def test_json_that_cannot_be_counts_is_refused(small, path, value, field):
  counted = Counters.of([synthetic.traffic(small, [0])], small, {"x": 2})
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
