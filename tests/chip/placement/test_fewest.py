"""Objective "memory": the fewest cores, and no limit broken."""

import dataclasses

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from jaxnmc.chip import hardware
from jaxnmc.chip.placement import fewest, packing, place
from jaxnmc.chip.placement.packing import FanIn, Item, Misfit
from jaxnmc.errors import PlacementError
from tests.chip import synthetic
from tests.chip.placement.test_place import check

ITEMS = st.builds(
  Item,
  width=st.integers(1, 60),
  words=st.integers(0, 9),
  phases=st.integers(1, 4),
  fan_in=st.lists(
    st.builds(
      FanIn,
      sources=st.integers(1, 30),
      entries=st.integers(1, 40),
      bits=st.sampled_from([2, 4, 8, 23]),
    ),
    max_size=3,
  ).map(tuple),
)
CHIP = hardware.loihi2(neurons_per_core=40, synapse_units=90, pool_units=120)


def _used(found):
  return {core for tiles in found[2] for core in tiles}


@hypothesis.settings(
  deadline=None, max_examples=100, phases=[hypothesis.Phase.generate]
)
@hypothesis.given(items=st.lists(ITEMS, min_size=1, max_size=6))
def test_within_limits_on_the_first_cores_and_not_far_from_the_bound(items):
  try:
    busiest, sizes, cores = fewest.pack(items, 400, CHIP)
  except Misfit:
    hypothesis.assume(False)
  caps = packing.capacity(CHIP)
  used = np.zeros((400, len(caps)))
  load = np.zeros(400)
  for item, size, tiles in zip(items, sizes, cores, strict=True):
    left = item.width
    for core in tiles:
      n = min(size, left)
      left -= n
      used[core] += packing.demand(item, n, CHIP)
      load[core] += n * packing.seconds(item, CHIP)
    assert left == 0
  assert (used <= np.array(caps)).all()
  np.testing.assert_allclose(busiest, load.max())
  count = int((used[:, 1] > 0).sum())
  assert (used[:count, 1] > 0).all()
  least = fewest.least(items, CHIP)
  assert least <= count
  # First-fit of tiles no larger than a core: two half-empty ones do not stay.
  assert count <= 2 * least + len(items)
  # No more than the packing for time, which may use all cores it is given.
  try:
    assert count <= len(_used(packing.pack(items, max(count, 1), CHIP)))
  except Misfit:
    pass


@pytest.mark.parametrize("width", [1, 39, 40, 41, 80, 81])
def test_one_population_takes_as_few_as_hold_it(width):
  item = Item(width, 1, 1, (FanIn(3, 3, 2),))
  need = -(-width // 40)
  _, _, (cores,) = fewest.pack([item], 10, CHIP)
  assert sorted(set(cores)) == list(range(need))
  if need > 1:
    with pytest.raises(Misfit) as e:
      fewest.pack([item], need - 1, CHIP)
    assert (e.value.limit, e.value.found) == ("neurons_per_core", width)


def test_leftovers_share_cores():
  """Ten populations of a core and a bit: eleven cores, not twenty."""
  chip = hardware.loihi2(neurons_per_core=40, groups_per_core=None)
  items = [Item(44, 1, 1, ()) for _ in range(10)]
  found = fewest.pack(items, 50, chip)
  assert len(_used(found)) == fewest.least(items, chip) == 11


@pytest.fixture(scope="module")
def big():
  return synthetic.matmulfree()


def test_370m_on_ten_chips(big):
  chip = hardware.loihi2(chips=32)
  placed = place.place(big, chip, objective="memory")
  check(placed)
  assert placed.policy["objective"] == "memory"
  assert placed.policy["head"] == "chip"
  least = fewest.least(
    [
      item
      for item, p in zip(
        place.packing_items(big, placed.encodings), big.populations
      )
      if not p.host
    ],
    chip,
  )
  assert least <= len(placed.used_cores) <= 1.1 * least
  # The chips are the first ones, and all but the last of them are full.
  assert placed.chips == tuple(range(-(-len(placed.used_cores) // 120)))
  fast = place.place(big, chip)
  assert len(placed.chips) < 0.5 * len(fast.chips)
  # Layers stay together, but for tiles that fill up the cores of others.
  for layer in range(24):
    chips = placed.tile_chip[placed.tile_layer == layer]
    low, high = np.percentile(chips, [10, 90])
    assert high - low <= 1, layer
  # One core less is refused.
  cores = len(placed.used_cores)
  tight = dataclasses.replace(chip, chips=1, cores_per_chip=cores - 1)
  with pytest.raises(PlacementError):
    place.place(big, tight, objective="memory", head="chip")
  room = dataclasses.replace(chip, chips=1, cores_per_chip=cores)
  check(place.place(big, room, objective="memory", head="chip"))


def test_without_known_limits_one_core_holds_everything():
  chip = hardware.Hardware("bare", chips=3, cores_per_chip=4)
  net = synthetic.matmulfree(layers=2, d=8, i=12, vocab=10)
  placed = place.place(net, chip, objective="memory")
  check(placed)
  assert len(placed.used_cores) == 1


def test_no_numbers_of_chips_with_this_objective(big):
  with pytest.raises(PlacementError, match="layer_chips=2 with objective"):
    place.place(
      big, hardware.loihi2(chips=99), objective="memory", layer_chips=2
    )
