"""Named systems against what is published about them."""

import pytest

from jaxnmc.chip import systems
from jaxnmc.errors import ConfigError


def _rows(name=None):
  return {(r["system"], r["what"]): r for r in systems.published(name)}


def test_chips_of_every_system():
  rows = _rows()
  assert {s for s, _ in rows} == set(systems.CHIPS)
  for name, chips in systems.CHIPS.items():
    row = rows[name, "chips"]
    assert row["published"] == row["ours"] == chips
    assert row["why"] == ""


def test_hala_point():
  """1,152 chips, 140,544 cores, 1.15 G neurons: 122 cores a chip, not 120."""
  rows = _rows("hala-point")
  cores = rows["Hala Point", "cores"]
  assert cores["published"] == 140544 == 1152 * 122
  assert cores["ours"] == 138240 == 1152 * 120
  assert "120" in cores["why"]
  neurons = rows["Hala Point", "neurons"]
  assert neurons["ours"] == 1152 * 120 * 8192
  # With all of its cores, ours is the published number to its three digits.
  whole = systems.system("Hala Point", cores_per_chip=122)
  assert whole.cores == 140544
  assert round(whole.cores * 8192 / 1e9, 2) == 1.15
  assert abs(rows["Hala Point", "watts"]["percent"]) < 0.5
  assert rows["Hala Point", "watts"]["why"] == ""
  # The peak rate is at 0.37 ns for each of its cores.
  seconds = 140544 / rows["Hala Point", "synops"]["published"]
  assert round(1e9 * seconds, 2) == 0.37
  synapses = rows["Hala Point", "synapses"]
  assert synapses["ours"] == 138240 * 12000 * 64 // 2
  assert "one bit" in synapses["why"]


def test_every_difference_has_a_reason():
  for row in systems.published():
    assert (abs(row["percent"]) > 0.5) == bool(row["why"]), row
    assert row["source"]


def test_unknown_system():
  with pytest.raises(ConfigError, match="no system 'Loihi Beach'"):
    systems.published("Loihi Beach")
