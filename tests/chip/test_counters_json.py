"""Counters as text: a round trip, a real chip's profile, bad fields."""

import dataclasses
import json

import numpy as np
import pytest
from numpy import testing as npt

from jaxnmc.chip.cost import cost
from jaxnmc.chip.counters import Counters
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
