"""Tables of placements: chips in ranges, schedule, systems."""

import pytest

from jaxnmc.chip import outline, presets, systems
from jaxnmc.chip.hardware import loihi2
from jaxnmc.chip.placement import place
from jaxnmc.errors import PlacementError
from jaxnmc.report import placement as report
from jaxnmc.report import tables


def _text(capsys, *shown):
  people = tables.console()
  for table in shown:
    people.print(table)
  return capsys.readouterr().out


@pytest.fixture(scope="module")
def placed():
  net = outline.matmulfree(90, 8, 12, 200)
  return place.place(net, loihi2(chips=92), head_chips=2)


def test_equal_neighbours_are_one_row(placed):
  rows = [r for r in placed.table() if r["chip"] != "host"]
  found = report.chip_ranges(rows)
  assert found[0]["chip"] == "0-89"
  assert found[0]["layers"] == "0-89"
  assert len(found) <= 3
  for name in ("cores", "neurons", "weights", "tiles"):
    assert sum(r[name] for r in found) == sum(r[name] for r in rows)
  assert report.chip_ranges(rows, most=len(rows)) == rows


def test_unequal_chips_are_put_together_in_equal_numbers(placed):
  rows = [r for r in placed.table() if r["chip"] != "host"]
  uneven = [
    {**r, "weights": r["weights"] + k, "busiest_weights": k}
    for k, r in enumerate(rows)
  ]
  found = report.chip_ranges(uneven, most=10)
  assert len(found) <= 10
  assert found[0]["chip"] == "0-9"
  assert found[0]["busiest_core"] == f"9:{rows[9]['busiest_core']}"
  assert sum(r["weights"] for r in found) == sum(r["weights"] for r in uneven)
  assert "head" in found[-1]["layers"]


def test_a_thousand_chips_fit_a_terminal(capsys):
  net = outline.matmulfree(1000, 16, 24, 32)
  found = place.place(net, systems.system("Hala Point"))
  text = _text(capsys, report.chip_table(report.summary(found)))
  lines = text.splitlines()
  assert len(lines) < report.MOST_ROWS + 10
  assert max(map(len, lines)) <= tables.WIDTH
  assert "0-999" in text


def test_schedule_fits_a_terminal(capsys):
  net = presets.PRESETS["abreu2025"].network
  text = _text(capsys, *report.schedule_tables(net))
  lines = text.splitlines()
  assert "each of 24 layers: 15 steps" in lines[0]
  assert len(lines) < 40
  assert max(map(len, lines)) <= tables.WIDTH
  (row,) = [x for x in lines if x.split()[:1] == ["13"]]
  assert row.split() == ["13", "mlp.down.in", "1", "value", "2,816", "out"]
  assert len(report.schedule_rows(net)) == 1 + 24 * 15 + 4


def test_systems_beside_what_is_published(capsys):
  text = _text(capsys, report.system_table(systems.published()))
  rows = [x.split() for x in text.splitlines()]
  (row,) = [x for x in rows if x[:3] == ["Hala", "Point", "cores"]]
  assert row[3:6] == ["140,544", "138,240", "-1.6"]
  assert max(len(x) for x in text.splitlines()) <= tables.WIDTH


def test_as_few_chips_as_do_for_either_objective():
  net = outline.matmulfree(6, 64, 96, 64)
  found = {}
  for objective in place.OBJECTIVES:
    placed = report.on_chips(net, objective=objective, head="chip")
    found[objective] = placed.hardware.chips
    assert len(placed.chips) == placed.hardware.chips
  assert found == {"time": 1, "memory": 1}
  exact = report.on_chips(net, 3, head="host")
  assert exact.hardware.chips == 3
  with pytest.raises(PlacementError, match="synapse_units"):
    report.on_chips(outline.matmulfree(1, 6000, 8000, 8), head="host")
