import dataclasses
import math

import pytest

from jaxnmc.chip import hardware, systems
from jaxnmc.errors import ConfigError, UserError


def test_every_number_of_loihi2_has_a_source_and_a_unit():
  chip = hardware.loihi2()
  assert set(hardware.LOIHI2_FACTS) | {"name", "chips", "facts"} == {
    f.name for f in dataclasses.fields(chip)
  }
  kinds = {"quoted", "derived", "inferred", "fitted", "assumed", "unknown"}
  for name, fact in hardware.LOIHI2_FACTS.items():
    assert chip.fact(name) is fact, name
    assert fact.unit, name
    assert fact.source, name
    assert fact.kind in kinds, name
    assert (fact.value is None) == (fact.kind in ("unknown", "fitted")), name
    for value, source in fact.others:
      assert value != fact.value, name
      assert source, name


# Every number that was published or derived, and what others say instead.
PUBLISHED = {
  "chips": (1, ()),
  "cores_per_chip": (120, None),
  "neurons_per_core": (8192, (4096,)),
  "groups_per_core": (8, ()),
  "synapse_units": (12_000, (16_384,)),
  "synapse_unit_bits": (64, (32,)),
  "synapse_row_bits": (10, ()),
  "pool_units": (None, (15_000, 16_384)),
  "pool_per_neuron": (0.73, ()),
  "pool_per_axon": (0.75, ()),
  "sparse_index_bits": (21, ()),
  "weight_bits_max": (8, ()),
  "core_memory_bytes": (196_608, ()),
  "state_bytes_per_neuron": (4096, ()),
  "state_word_bits": (32, ()),
  "axons_in_per_core": (16_000, ()),
  "axons_out_per_core": (None, (16_000,)),
  "message_bits": (32, ()),
  "accumulator_bits": (32, (24,)),
  "delay_max": (62, (63,)),
  "synop_s": (0.66e-9, (0.37e-9,)),
  "neuron_s": (4e-9, ()),
  "barrier_s": (1.78e-6, (0.2e-6,)),
  "barrier_system_s": (10e-6, ()),
  "host_messages_per_s": (160e6, ()),
  "link_messages_per_s": (67e6, ()),
  "mesh_bytes_per_s": (24.9e9, ()),
  "ceiling_w": (2.26, ()),
  "synop_j": (None, (6.8e-12,)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_number(name):
  value, others = PUBLISHED[name]
  chip = hardware.loihi2()
  assert getattr(chip, name) == value
  if name in hardware.LOIHI2_FACTS and others is not None:
    assert tuple(v for v, _ in chip.fact(name).others) == others


def test_values_of_the_published_chip():
  chip = hardware.loihi2(chips=24)
  assert chip.cores == 24 * 120
  assert chip.neurons_per_core == 8192
  assert chip.fact("neurons_per_core").others[0][0] == 4096
  assert chip.accumulator_bits == 32
  assert chip.fact("accumulator_bits").kind == "assumed"
  assert chip.message_bits == 32
  assert chip.delay_max == 62
  assert chip.groups_per_core == 8
  assert chip.synapse_bytes == 96_000
  assert math.isclose(chip.synop_s, 0.66e-9)
  assert math.isclose(chip.neuron_s, 4e-9)
  assert dataclasses.replace(chip, synapse_units=None).synapse_bytes is None
  # Hala Point: 380 T synaptic operations per second over 1,152 x 122 cores.
  peak = 1152 * 122 / 380e12
  assert math.isclose(chip.fact("synop_s").others[0][0], peak, rel_tol=0.01)
  # And 3.5 PB/s between them.
  assert math.isclose(chip.mesh_bytes_per_s, 3.5e15 / 140_544, rel_tol=1e-3)
  assert chip.fact("mesh_bytes_per_s").kind == "derived"


def test_a_chip_of_which_little_is_said():
  chip = hardware.Hardware("mine", 2, 3)
  assert chip.cores == 6
  assert chip.synapse_unit_bits == 64
  assert chip.synapse_row_bits == 0
  assert chip.state_word_bits == 32
  assert chip.neurons_per_core is None


def test_sparse_entries_cost_what_the_paper_says():
  bits = 2 + hardware.loihi2().sparse_index_bits
  assert math.isclose(bits * (1 - 0.354) / 2, 7.5, rel_tol=0.02)


def test_unknown_is_none_and_listed():
  chip = hardware.loihi2()
  assert "axons_out_per_core" in chip.unknown
  assert "neuron_j" in chip.unknown
  assert "cores_per_chip" not in chip.unknown


def test_a_changed_field_is_the_callers():
  chip = hardware.loihi2()
  for other in (
    dataclasses.replace(chip, cores_per_chip=16),
    hardware.loihi2(cores_per_chip=16),
  ):
    fact = other.fact("cores_per_chip")
    assert (fact.value, fact.kind) == (16, "given")
    assert fact.unit == "cores"
  none = hardware.loihi2(message_bits=None).fact("message_bits")
  assert (none.value, none.kind) == (None, "unknown")
  own = hardware.Hardware("mine", 2, 3)
  assert own.fact("cores_per_chip").kind == "given"
  assert own.fact("neurons_per_core").value is None
  rows = {row["field"]: row for row in own.table()}
  assert rows["cores_per_chip"]["value"] == 3
  assert "chips" not in rows


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("chips", 0),
    ("chips", -1),
    ("chips", 1.5),
    ("chips", None),
    ("cores_per_chip", 0),
    ("cores_per_chip", None),
    ("neurons_per_core", -2),
    ("synop_s", "fast"),
    ("groups_per_core", True),
    ("synapse_unit_bits", 0),
    ("synapse_row_bits", -1),
  ],
)
def test_impossible_values_are_refused(field, value):
  with pytest.raises(ConfigError, match=field):
    dataclasses.replace(hardware.loihi2(), **{field: value})


def test_zero_header_is_legal():
  assert hardware.loihi2(synapse_row_bits=0).synapse_row_bits == 0


def test_unknown_fields_are_refused():
  with pytest.raises(UserError, match="neurons_per_chip"):
    hardware.loihi2(neurons_per_chip=3)
  with pytest.raises(UserError, match="colour"):
    hardware.loihi2().fact("colour")


@pytest.mark.parametrize(
  ("name", "chips"),
  [
    ("Oheo Gulch", 1),
    ("kapoho-point", 8),
    ("VPX", 16),
    ("Alia Point", 128),
    ("halapoint", 1152),
  ],
)
def test_named_systems(name, chips):
  found = systems.system(name)
  assert found.chips == chips
  assert found.name in systems.CHIPS
  assert found.cores_per_chip == 120


def test_part_of_a_system():
  assert systems.system("Alia Point", 32).chips == 32
  assert systems.system("VPX", cores_per_chip=128).cores == 2048
  with pytest.raises(ConfigError, match="16 chips"):
    systems.system("VPX", 17)
  with pytest.raises(ConfigError, match="Nahuku"):
    systems.system("Nahuku")
