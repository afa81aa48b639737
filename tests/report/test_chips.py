"""One model on several chips, by arithmetic; and on a number of cores."""

import functools

import pytest

from jaxnmc.chip import hardware
from jaxnmc.chip.other_chips import CHIPS
from jaxnmc.chip.placement import place
from jaxnmc.errors import ConfigError, PlacementError
from jaxnmc.report import chips, tables
from tests.chip import synthetic


@functools.cache
def placed():
  return place.place(synthetic.matmulfree(2, vocab=8), hardware.loihi2(chips=2))


@functools.cache
def rows():
  return {row["chip"]: row for row in chips.compare(placed())}


def test_needs_are_those_of_the_network():
  need = chips.needs(placed())
  net = placed().network
  on_chip = {tile.population for tile in placed().tiles}
  dense = [
    s
    for s in net.synapses
    if s.weights is not None and net.populations[s.dst].name in on_chip
  ]
  assert need["neurons"] == sum(
    p.width for p in net.populations if p.name in on_chip
  )
  assert need["weights"] >= sum(s.weights.size for s in dense) > 1e6
  assert need["values"] == max(
    int(s.weights.max()) - int(s.weights.min()) + 1 for s in dense
  )
  assert need["inputs"] >= max(s.weights.shape[1] for s in dense)


def test_cores_are_at_least_neurons_and_bits():
  need = chips.needs(placed())
  for name, chip in CHIPS.items():
    row = rows()[name]
    neurons = -(-need["neurons"] // chip.neurons.value)
    assert row["cores"] >= neurons
    assert row["chips"] == -(-row["cores"] // chip.cores.value)
  bits = sum(bits * n for bits, n in need["by_bits"].items())
  assert rows()["Loihi 1"]["cores"] == -(-bits // (16384 * 64))
  assert rows()["Loihi 2"]["cores"] <= len(placed().used_cores)
  assert rows()["Loihi 2"]["placed_cores"] == len(placed().used_cores)
  # A weight of 2 bits takes two of a crossbar's.
  assert rows()["TrueNorth"]["cores"] == -(-bits // 65536)


def test_what_is_not_public_stays_unknown():
  assert rows()["Akida AKD1000"]["synop_pj"] is None
  assert rows()["Loihi 2"]["synop_pj"] is None
  assert rows()["Loihi 1"]["synop_pj"] == pytest.approx(23.6)
  assert "axons_in" in rows()["Akida AKD1000"]["not_checked"]
  assert "axons_in" not in rows()["TrueNorth"]["not_checked"]


def test_why_not_names_the_limit():
  assert rows()["Loihi 2"]["why_not"] == []
  assert any(
    "inputs of a neuron, it has 256" in why
    for why in rows()["TrueNorth"]["why_not"]
  )
  assert "dense layers only" in rows()["Akida AKD1000"]["why_not"][-1]


def test_what_is_placed_fits_whatever_a_neuron_reads(monkeypatch):
  need = chips.needs(placed()) | {"inputs": 10**6}
  monkeypatch.setattr(chips, "needs", lambda placed: need)
  found = {row["chip"]: row["why_not"] for row in chips.compare(placed())}
  assert found["Loihi 2"] == []
  assert any("1,000,000 inputs" in why for why in found["Loihi 1"])


def test_every_fact_has_a_source():
  for chip in CHIPS.values():
    for name in ("cores", "neurons", "synapse_bits", "weight_bits", "synop_j"):
      fact = getattr(chip, name)
      assert fact.source
      assert (fact.value is None) == (fact.kind in ("unknown", "fitted"))


def test_the_table_fits_80_columns():
  people = tables.console()
  with people.capture() as said:
    chips.show(people, list(rows().values()))
  assert max(map(len, said.get().splitlines())) <= 80
  assert "unknown" in said.get()


def test_too_few_cores_are_refused_with_the_arithmetic():
  net = synthetic.matmulfree(1, vocab=8)
  fits = chips.on_cores(net, 120, head="host")
  used = len(fits.used_cores)
  assert chips.on_cores(net, used, head="host").used_cores.size == used
  words = rf"12 cores of Loihi 2: .* hold 1,152,000 bytes.* it takes {used}:"
  with pytest.raises(PlacementError, match=words):
    chips.on_cores(net, 12, head="host")


@pytest.mark.parametrize("bad", [0, -3, 1.5, True])
def test_what_is_no_number_of_cores(bad):
  with pytest.raises(ConfigError, match="whole numbers from 1"):
    chips.on_cores(None, bad)
