"""Counters: what an engine counted, folded to totals and steps."""

import dataclasses

import numpy as np
import pytest
from numpy import testing as npt

from jaxnmc.chip import hardware
from jaxnmc.chip.costs.cost import cost
from jaxnmc.chip.counting import counters
from jaxnmc.chip.counting.counters import Counters, Segment
from jaxnmc.chip.placement import place
from jaxnmc.chip.routing import by_step
from jaxnmc.errors import UserError
from tests.chip import synthetic


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
  monkeypatch.setattr(by_step, "WINDOW", window)
  segment = synthetic.traffic(small, list(inject), seed=5)
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
  segment = synthetic.traffic(small, [0, 1])
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
  placed = place.place(b.network(), hardware.loihi2(chips=3))
  counted = Counters.of([synthetic.traffic(placed, [0])], placed)
  assert counted.by("layer", "crossings", placed).tolist() == [8, 0, 0]
  assert counted.by("layer", "messages_out", placed).tolist() == [4, 0, 0]


def test_sums_by_core_chip_and_layer(small):
  counted = Counters.of([synthetic.traffic(small, [0, 1, 2], seed=2)], small)
  for name in counted.names:
    total = counted.total(name).sum()
    assert counted.by("core", name, small).sum() == total
    assert counted.by("chip", name, small).sum() == total
  assert set(counted.names) == set(counters.TOTALS) - {"hops"}
  layer = counted.by("layer", "synops", small)
  mine = counted.total("synops")[small.tile_layer == 1].sum()
  assert layer[1] == mine
  with pytest.raises(UserError, match="galaxy"):
    counted.by("galaxy", "synops", small)


def test_merge_appends_and_checks(small, big):
  one = Counters.of([synthetic.traffic(small, [0, 1])], small, {"a": 1})
  two = Counters.of([synthetic.traffic(small, [0])], small, {"a": 2, "b": 1})
  both = one.merge(two)
  assert [s.tokens for s in both.stretches] == [2, 1]
  assert both.tokens == 3
  assert both.steps == one.steps + two.steps
  assert both.saturations == {"a": 3, "b": 1}
  blank = Counters.of([synthetic.traffic(small, [0])], small)
  assert one.merge(blank).saturations is None
  assert cost(blank, small).saturations.value is None
  assert Counters.from_json(blank.to_json()).saturations is None
  none = Counters.of([synthetic.traffic(small, [0])], small, {"a": 0})
  assert Counters.from_json(none.to_json()).saturations == {"a": 0}
  falling = both.total("synops", "fall-through")
  npt.assert_array_equal(falling, two.total("synops"))
  with pytest.raises(UserError, match="different placements"):
    one.merge(big[1])
  with pytest.raises(UserError, match="do not belong"):
    cost(one, big[0])
