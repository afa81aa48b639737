"""What a synapse takes in each encoding, and which one it gets."""

import numpy as np
import pytest
from numpy import testing as npt

from jaxnmc.chip import hardware
from jaxnmc.chip.placement import digits, encoding, packing, place
from jaxnmc.chip.placement.packing import FanIn, Item
from tests.chip import synthetic


def _one_matrix(weights):
  b = synthetic.Builder()
  b.population("embed", None, weights.shape[1], 1, host=True)
  b.population("layers.0.out", 0, weights.shape[0], 1)
  b.join(0, 1, "dense", 0, weights)
  return b.network()


def test_the_cheapest_encoding_is_chosen():
  full = synthetic.ternary(20, 30, 1)
  thin = np.zeros((20, 30), np.int8)
  thin[:, :2] = 1  # 2 of 30: 46 bits sparse, 60 bits dense
  edge = np.zeros((20, 30), np.int8)
  edge[:, :3] = 1  # 69 bits sparse
  for weights, kind, entries, bits in (
    (full, "dense", 30, 2),
    (thin, "sparse", 2, 23),
    (edge, "dense", 30, 2),
    (full * 64, "dense", 30, 8),
    (full * 7, "dense", 30, 4),
    (thin * 5, "sparse", 2, 25),
  ):
    placed = place.place(_one_matrix(weights), hardware.loihi2())
    code = placed.encodings[0]
    assert (code.kind, code.entries, code.bits) == (kind, entries, bits)
  for kind in ("dense", "sparse"):
    chip = hardware.loihi2()
    placed = place.place(_one_matrix(full), chip, encoding=kind)
    assert placed.encodings[0].kind == kind
  unknown = hardware.loihi2(sparse_index_bits=None)
  placed = place.place(_one_matrix(thin), unknown)
  assert placed.encodings[0].kind == "dense"


@pytest.mark.parametrize(
  ("low", "high", "bits", "parallel"),
  [
    (-1, 1, 2, 1),
    (0, 0, 2, 1),
    (-2, 1, 2, 1),
    (-1, 2, 4, 1),
    (-8, 7, 4, 1),
    (-9, 0, 8, 1),
    (0, 8, 8, 1),
    (-128, 127, 8, 1),
    (-129, 0, 8, 2),
    (0, 128, 8, 2),
    (-32896, 32639, 8, 2),  # two balanced digits of 8 bits
    (0, 2**15 - 1, 8, 3),
    (-(2**15) - 129, 0, 8, 3),
  ],
)
def test_wide_weights_take_several_synapses(low, high, bits, parallel):
  """Footnote 4 of the paper: 8n bits take n synapses."""
  b = synthetic.Builder()
  b.population("embed", None, 6, 1, host=True)
  first = b.population("layers.0.a", 0, 6, 1)
  b.join(0, first, "relay", 0)
  second = b.population("layers.0.b", 0, 5, 1)
  weights = np.full((5, 6), low)
  weights[0, 0] = high
  b.join(first, second, "dense", 1, weights)
  chip = hardware.loihi2(sparse_index_bits=None)
  placed = place.place(b.network(), chip)
  code = placed.encodings[1]
  assert (code.kind, code.bits, code.entries) == ("dense", bits, 6 * parallel)


def test_on_a_chip_with_narrow_weights():
  four = hardware.loihi2(weight_bits_max=4)
  assert encoding.dense_bits(-1, 1, four) == (2, 1)
  assert encoding.dense_bits(-8, 7, four) == (4, 1)
  assert encoding.dense_bits(-9, 0, four) == (4, 2)
  assert encoding.dense_bits(0, 3, hardware.loihi2(weight_bits_max=3)) == (3, 1)


def test_sparse_costs_7_5_times_dense_as_in_the_paper():
  """Footnote 3: 1024 x 1024, ternary, 35.4 % zeros."""
  draw = np.random.default_rng(0)
  weights = draw.choice(
    np.array([-1, 0, 1], np.int8), (1024, 1024), p=[0.323, 0.354, 0.323]
  )
  bits = {}
  for kind in ("dense", "sparse"):
    placed = place.place(_one_matrix(weights), hardware.loihi2(), encoding=kind)
    code = placed.encodings[0]
    bits[kind] = code.entries * code.bits
  npt.assert_allclose(bits["sparse"] / bits["dense"], 7.5, atol=0.1)
  # Rows of a core in whole units, with headers: 1,024 targets on one core.
  chip = hardware.loihi2()
  units = [
    packing.demand(
      Item(1024, 0, 1, (FanIn(1024, entries, width),)), 1024, chip
    )[packing.COLUMN["synapse_units"]]
    for entries, width in ((1024, 2), (662, 23))
  ]
  npt.assert_allclose(units[1] / units[0], 7.5, atol=0.3)
  auto = place.place(_one_matrix(weights), chip)
  assert auto.encodings[0].kind == "dense"
  # And in the table for people.
  rows = encoding.options(1024, 1024, encoding.PAPER_ZEROS, chip)
  ratio = {(r["encoding"], r["weights"]): r["ratio"] for r in rows}
  npt.assert_allclose(ratio["sparse", "ternary"], 7.5, atol=0.1)
  assert ratio["dense", "ternary"] == 1
  kinds = {r["bits"] for r in rows if r["encoding"] == "dense"}
  assert kinds == {2, 4, 8}
  assert rows[0]["bytes"] == 1024 * 1024 * 2 // 8
  unknown = hardware.loihi2(sparse_index_bits=None)
  assert {r["encoding"] for r in encoding.options(4, 4, 0.5, unknown)} == {
    "dense"
  }


def test_cost_of_wide_weights_is_that_of_their_digits():
  """A network without a graph is priced as if it had been split."""
  wide = np.arange(-300, 300).reshape(20, 30)
  whole = place.place(_one_matrix(wide), hardware.loihi2())
  parts, _ = digits.split(wide, 8)
  b = synthetic.Builder()
  b.population("embed", None, 30, 1, host=True)
  b.population("layers.0.out", 0, 20, 1)
  for part in parts:
    b.join(0, 1, "dense", 0, part, source=5)
  split = place.place(b.network(), hardware.loihi2())
  assert int(whole.stored.sum()) == int(split.stored.sum()) == 2 * wide.size
  assert [t.width for t in whole.tiles] == [t.width for t in split.tiles]
