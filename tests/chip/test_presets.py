"""The paper's placement, and what it says of embedding and head."""

import dataclasses

import numpy as np
import pytest

from jaxnmc.chip import hardware, presets
from jaxnmc.chip.costs import estimate
from jaxnmc.chip.placement import place
from jaxnmc.errors import PlacementError
from tests.chip import synthetic
from tests.chip.placement.test_place import check


@pytest.fixture(scope="module")
def placed():
  return presets.preset("abreu2025")


def test_24_chips_for_blocks_and_7_for_the_head(placed):
  check(placed)
  assert placed.hardware.name == "Alia Point"
  assert placed.hardware.chips == 32
  assert len(placed.chips) == 31
  assert placed.host == ("embed",)
  for layer in range(24):
    assert set(placed.tile_chip[placed.tile_layer == layer]) == {layer}
  head = placed.tile_chip[placed.tile_layer == -1]
  assert set(head.tolist()) == set(range(24, 31))
  assert placed.network.steps_per_layer == (15,) * 24
  assert placed.policy == {"objective": "time", "head": "chip", "layers": "own"}


def test_head_and_embedding_leave_the_throughput(placed):
  """A.4.1: "thus we expect throughput to stay as reported"."""
  net = placed.network
  blocks = place.place(net, hardware.loihi2(chips=24), head="host")
  without = estimate.pipelined_step(blocks)
  assert estimate.pipelined_step(placed) == without
  np.testing.assert_allclose(without, 1 / 13965, rtol=0.05)  # Table 4, 1 chip
  # The embedding: one row of a table is walked per token.
  chip = hardware.loihi2()
  for row in presets.embedding_on_chips(32000, 1024, chip):
    assert row["walked"] * chip.synop_s < 0.01 * without


def test_chips_of_the_head():
  """From three chips on the blocks are the busiest; on two they are not."""
  found = presets.PRESETS["abreu2025"]
  chip = hardware.loihi2()
  rows = presets.head_on_chips(found.network, chip)
  by_chips = {row["chips"]: row for row in rows}
  assert [n for n, r in by_chips.items() if not r["unchanged"]] == [1, 2]
  for n, row in by_chips.items():
    # 32,000 rows of 1,024 weights over n x 120 cores, in whole neurons.
    even = -(-32000 // (120 * n)) * 1024
    assert even <= row["busiest_weights"] <= 1.04 * even
    assert row["cores"] <= 120 * n
    np.testing.assert_allclose(
      row["head_us"], 1e6 * row["busiest_weights"] * chip.synop_s
    )
    assert row["step_us"] == max(row["head_us"], by_chips[7]["step_us"])
    assert row["label"] == "modelled"
  # All logits to the host take longer than a step.
  seconds = presets.logits_seconds(found.network, chip)
  assert seconds == 32000 / 160e6
  assert 1e6 * seconds > by_chips[7]["step_us"]
  quiet = hardware.loihi2(host_messages_per_s=None)
  assert presets.logits_seconds(found.network, quiet) is None


def test_a_head_that_does_not_fit_has_no_row():
  net = synthetic.matmulfree(layers=1, d=16, i=24, vocab=4000)
  chip = hardware.loihi2(cores_per_chip=8, neurons_per_core=180)
  rows = presets.head_on_chips(net, chip, most=4)
  assert [row["chips"] for row in rows] == [3, 4]


def test_embedding_at_its_true_count():
  vocab, d = 3000, 48
  chip = hardware.loihi2(cores_per_chip=4, synapse_units=500)
  rows = {r["bits"]: r for r in presets.embedding_on_chips(vocab, d, chip)}
  assert set(rows) == {16, 8, 2}
  for bits, row in rows.items():
    # As many bits as the weights have fit the cores; headers take the rest.
    room = row["cores"] * 500 * 64
    assert vocab * d * bits < room < 2.5 * vocab * d * bits
    assert row["chips"] == -(-row["cores"] // 4)
    assert row["digits"] == (2 if bits == 16 else 1)
  assert rows[16]["cores"] > rows[8]["cores"] > rows[2]["cores"]
  # It is a placement like any other, with every weight on a core.
  net = presets.embedding_network(vocab, d, 16, rows[16]["parts"])
  whole = dataclasses.replace(chip, chips=100)
  placed = place.place(net, whole, head="chip", objective="memory")
  check(placed)
  assert len(placed.used_cores) == rows[16]["cores"]
  dense = [s for s in net.synapses if s.kind == "dense"]
  assert sum(s.weights.size for s in dense) == vocab * d


def test_other_networks_and_names(placed):
  small = synthetic.matmulfree(layers=2, d=8, i=12, vocab=3000)
  other = presets.preset("abreu2025", small)
  check(other)
  assert len(other.chips) == 9
  with pytest.raises(PlacementError, match="known are abreu2025"):
    presets.preset("abreu2026")
  with pytest.raises(PlacementError, match="take 31"):
    presets.preset("abreu2025", placed.network, hardware.loihi2(chips=30))


@pytest.mark.parametrize(
  ("options", "text"),
  [
    ({"layer_chips": 0}, "layer_chips is 0"),
    ({"head_chips": True}, "head_chips is True"),
    ({"head_chips": 1, "head": "host"}, "head='host'"),
    ({"layer_chips": 3, "head_chips": 2}, "take 8; use a system of 8 chips"),
  ],
)
def test_numbers_of_chips_that_cannot_be(options, text):
  net = synthetic.matmulfree(layers=2, d=8, i=12, vocab=100)
  with pytest.raises(PlacementError, match=text):
    place.place(net, hardware.loihi2(chips=7), **options)


def test_only_one_number_given():
  net = synthetic.matmulfree(layers=2, d=32, i=48, vocab=3000)
  chip = hardware.loihi2(chips=9, cores_per_chip=8)
  layers = place.place(net, chip, layer_chips=2)
  assert (layers.policy["head"], len(layers.chips)) == ("host", 4)
  head = place.place(net, chip, head_chips=3)
  assert (head.policy["head"], len(head.chips)) == ("chip", 5)
  check(layers)
  check(head)
