"""Loads of the busiest links by step, against `link_loads` of that step."""

import dataclasses
import gc

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from numpy import testing as npt

from jaxnmc.chip import hardware
from jaxnmc.chip.costs.cost import cost
from jaxnmc.chip.counting import folding
from jaxnmc.chip.counting.counters import Counters, Segment
from jaxnmc.chip.placement import place
from jaxnmc.chip.placement.tiles import Encoding, Placement, Tile
from jaxnmc.chip.routing import by_step, link_steps, links
from jaxnmc.errors import PlacementError, UserError
from tests.chip import synthetic
from tests.chip.routing.test_routes import _random


def _check(segment, placed):
  """Every step on its own, and all steps together."""
  stretch = folding.fold(segment, placed)
  link, mesh = (stretch.steps_of[n] for n in ("busiest_link", "busiest_mesh"))
  assert link.dtype == mesh.dtype == np.int64
  assert len(link) == len(mesh) == stretch.steps
  for step in range(stretch.steps):
    loads = links.link_loads(segment, placed, (step, step + 1))
    assert link[step] == loads.busiest(["chip"])["messages"]
    assert mesh[step] == loads.busiest(["mesh"])["words"]
  found = segment.measured()
  skews = link_steps.link_skews(placed, found.columns.synapses)
  sums = found.rows.sum(0, dtype=np.int64)
  loads = [
    np.bincount(s.place, s.weights @ sums, s.places)
    for s in (skews.mesh, skews.chip)
  ]
  whole = links.link_loads(segment, placed)
  words, messages = whole.words["mesh"], whole.messages["chip"].sum(0)
  # Links in the order of their numbers, those that are never used left out.
  for load, whole in zip(loads, (words, messages)):
    npt.assert_array_equal(_some(load), _some(whole))


def _some(loads):
  return np.sort(loads[loads > 0])


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(
  seed=st.integers(0, 2**32 - 1),
  chips=st.integers(1, 9),
  cores=st.integers(1, 128),
  tokens=st.integers(1, 3),
)
def test_steps_are_those_of_link_loads(seed, chips, cores, tokens):
  rng = np.random.default_rng(seed)
  placed, segment, _ = _random(rng, chips, cores, tokens)
  # Engines leave out what never touches a chip.
  rows = tuple(c for c in segment.counts if c.out.size + c.inc.size)
  if rows:
    _check(Segment(segment.inject, rows), placed)


def test_a_relay_crosses_once_for_all_cores_of_a_chip():
  """Two populations of a chip read it part by part, a third all of it."""
  for wide in (False, True):
    b = synthetic.Builder()
    for name in ("a", "one", "two", "all"):
      b.population(name, 0, 4, 1)
    b.join(0, 1, "relay", 0, None, 7)
    b.join(0, 2, "relay", 0, None, 7)
    if wide:
      b.join(0, 3, "reduce", 0, None, 7)
    tiles = (
      Tile("a", 0, 3, 0, 0),
      Tile("a", 3, 4, 0, 8),
      Tile("one", 0, 2, 1, 0),
      Tile("one", 2, 4, 1, 9),
      Tile("two", 0, 4, 1, 5),
      Tile("all", 0, 4, 1, 30),
    )
    net = b.network()
    codes = tuple(Encoding("dense", 1, 8) for _ in net.synapses)
    placed = Placement(tiles, (), hardware.loihi2(2), net, codes, {})
    segment = synthetic.traffic(placed, [0, 1])
    _check(segment, placed)
    link = folding.fold(segment, placed).steps_of["busiest_link"]
    npt.assert_array_equal(link[:2], [4, 4])


@pytest.mark.parametrize("window", [1, 1 << 22])
@pytest.mark.parametrize("chips", [1, 2, 5])
@pytest.mark.parametrize("falls", [False, True])
def test_a_block_on_few_and_many_chips(chips, falls, window, monkeypatch):
  net = synthetic.matmulfree(layers=2, d=16, i=24, vocab=32)
  placed = place.place(
    net, hardware.loihi2(chips=chips, cores_per_chip=36 // chips)
  )
  monkeypatch.setattr(by_step, "WINDOW", window)
  inject = np.arange(3) * (placed.steps_per_token if falls else 1)
  segment = synthetic.traffic(placed, inject, seed=chips)
  (stretch,) = Counters.of([segment], placed).stretches
  assert stretch.mode == ("fall-through" if falls else "pipelined")
  assert (stretch.steps_of["busiest_link"].max() > 0) == (chips > 1)
  _check(segment, placed)


def test_depths_are_those_of_a_token_at_full_activity(small):
  link, mesh = link_steps.by_depth(small)
  stretch = folding.fold(synthetic.traffic(small, [0]), small)
  npt.assert_array_equal(link, stretch.steps_of["busiest_link"])
  npt.assert_array_equal(mesh, stretch.steps_of["busiest_mesh"])
  assert link.max() > 0


def test_routes_are_known_for_small_chips_only(small):
  wide = place.place(
    small.network, hardware.loihi2(chips=3, cores_per_chip=200)
  )
  counted = Counters.of([synthetic.traffic(wide, [0])], wide)
  assert "busiest_mesh" not in counted.stretches[0].steps_of
  assert not link_steps.by_depth(wide)[1].any()
  report = cost(counted, wide)
  assert report.run_ms.value > 0
  assert any(note.startswith("links are not timed") for note in report.notes)
  wrong = (dataclasses.replace(small.tiles[0], core=7), *small.tiles[1:])
  with pytest.raises(PlacementError, match="core 7 does not exist"):
    folding.fold(
      synthetic.traffic(small, [0]), dataclasses.replace(small, tiles=wrong)
    )


def test_messages_that_do_not_agree_are_refused(small):
  segment = synthetic.traffic(small, [0, 1])
  rows = list(segment.counts)
  k = next(
    i
    for i, c in enumerate(rows)
    if small.network.synapses[c.synapse].kind == "relay" and c.out.size
  )
  late = rows[k].out + np.array([[0], [1]])
  rows[k] = dataclasses.replace(rows[k], out=late)
  with pytest.raises(UserError, match="one to one.* do not agree"):
    folding.fold(Segment(segment.inject, tuple(rows)), small)


def test_a_placement_is_not_kept_alive():
  net = synthetic.matmulfree(layers=1, d=8, i=8, vocab=8)
  placed = place.place(net, hardware.loihi2())
  folding.fold(synthetic.traffic(placed, [0]), placed)
  (known,) = (
    cell.cell_contents
    for cell in link_steps.link_skews.__closure__
    if hasattr(cell.cell_contents, "keyrefs")
  )
  assert placed in known
  before = len(known)
  del placed
  gc.collect()
  assert len(known) < before
