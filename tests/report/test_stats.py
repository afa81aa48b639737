"""Spikes, energy and time of a run, and the gates of a user."""

import dataclasses
import functools

import numpy as np
import pytest

from jaxnmc.chip import hardware
from jaxnmc.chip.costs.cost import cost
from jaxnmc.chip.counting.counters import Counters
from jaxnmc.chip.placement import place
from jaxnmc.errors import ConfigError
from jaxnmc.report import stats, tables
from tests.chip import synthetic

KEYS = ["spike_count", "energy_consumed", "runtime_ms", "estimated"]
KEYS += ["labels", "convention"]


@functools.cache
def ran(**changes):
  """(counters, placement) of 12 tokens of a prompt and 3 alone."""
  placed = place.place(
    synthetic.matmulfree(2, vocab=8), hardware.loihi2(chips=2, **changes)
  )
  parts = [range(12), *([k] for k in range(3))]
  counted = [synthetic.traffic(placed, p, seed=1) for p in parts]
  return Counters.of(counted, placed), placed


def test_the_keys_are_those_and_no_others():
  found = stats.stats(*ran())
  assert list(found) == KEYS
  assert found["estimated"] is True
  assert set(found["labels"]) == set(KEYS[:3])
  assert set(found["labels"].values()) <= {"modelled", "fitted"}
  assert "not 0" in found["convention"]


def test_units_are_those_of_the_cost():
  counters, placed = ran()
  found, report = stats.stats(counters, placed), cost(counters, placed)
  assert found["energy_consumed"] == pytest.approx(1e3 * report.run_mj.value)
  assert found["runtime_ms"] == report.run_ms.value
  total = counters.total("messages_out").sum()
  assert found["spike_count"] == total > 0
  assert isinstance(found["spike_count"], int)


def test_free_running_is_faster_than_a_kilohertz():
  free = stats.profile(*ran())
  slow = stats.profile(*ran(), tick_hz=1000)
  assert slow["ticks"] == free["ticks"] > 10
  ms = [x["figures"]["runtime_ms"].value for x in (free, slow)]
  # No step of this network takes a millisecond of its own.
  assert ms[0] < 0.2 * ms[1]
  assert ms[1] == pytest.approx(slow["ticks"])
  joules = [x["figures"]["energy_consumed"].value for x in (free, slow)]
  assert joules[1] > joules[0]


def test_a_tick_is_never_shorter_than_what_is_in_it():
  """At a rate that some steps meet and others do not: the sum of the maxima."""
  counters, placed = ran(synop_s=1e-8)
  free = stats.profile(counters, placed)["figures"]["runtime_ms"].value
  steps = counters.steps
  hz = 1e3 * steps / free  # as many steps in the same time
  bounded = stats.profile(counters, placed, tick_hz=hz)
  ms = bounded["figures"]["runtime_ms"].value
  assert ms >= 1e3 * steps / hz
  assert free < ms < 2 * free


@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf"), "1 kHz"])
def test_what_is_no_rate_is_refused(bad):
  with pytest.raises(ConfigError, match="tick_hz is .* above 0, or None"):
    stats.stats(*ran(), tick_hz=bad)


def test_memory_with_runtime_is_that_of_whole_cores():
  counters, placed = ran()
  figures = stats.profile(counters, placed)["figures"]
  whole = figures["memory_with_runtime_bytes"].value
  assert whole == len(placed.used_cores) * 192 * 1024
  assert figures["memory_bytes"].value < whole


def test_unknown_times_stay_unknown():
  counters, placed = ran()
  chip = dataclasses.replace(
    placed.hardware, synop_s=None, core_memory_bytes=None
  )
  placed = dataclasses.replace(placed, hardware=chip)
  found = stats.stats(counters, placed)
  assert found["runtime_ms"] is found["energy_consumed"] is None
  assert found["spike_count"] > 0
  limits = {"ms": 50, "ram_bytes": 1e9, "w": 1, "spikes": 1e9}
  rows = stats.check_budgets(stats.profile(counters, placed), limits)
  results = {row["budget"]: row["result"] for row in rows}
  assert results == {
    "ms": "unknown",
    "ram_bytes": "unknown",
    "w": "unknown",
    "spikes": "pass",
  }
  assert not stats.passed(rows)


def test_gates_pass_at_the_limit_and_fail_above():
  found = stats.profile(*ran())
  for name, (figure, unit) in stats.BUDGETS.items():
    value = found["figures"][figure].value
    for limit, result in ((value, "pass"), (0.999 * value, "fail")):
      (row,) = stats.check_budgets(found, {name: limit})
      assert (row["result"], row["unit"]) == (result, unit)
      assert row["value"] == value
      assert stats.passed([row]) == (result == "pass")


@pytest.mark.parametrize(
  ("budgets", "words"),
  [({"watts": 1}, "no such budget; allowed are w,"), ({"w": 0}, "above 0")]
  + [({"ms": float("nan")}, "above 0"), ({"spikes": "2M"}, "found '2M'")],
)
def test_what_is_no_budget_is_refused(budgets, words):
  with pytest.raises(ConfigError, match=words):
    stats.check_budgets(stats.profile(*ran()), budgets)


def test_tables_fit_80_columns():
  found = stats.profile(*ran(), tick_hz=1000)
  rows = stats.check_budgets(found, {"w": 0.18, "ms": 1e6, "spikes": 2e6})
  people = tables.console()
  with people.capture() as said:
    stats.show(people, found, rows)
  lines = said.get().splitlines()
  assert max(map(len, lines)) <= 80
  assert any("fail" in line for line in lines)
  assert any("1000 ticks/s" in line for line in lines)
  assert any(line.startswith("energy: ") for line in lines)
  assert np.all([name in said.get() for name in found["figures"]])
