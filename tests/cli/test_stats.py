"""`jaxnmc run --stats` and `jaxnmc place --cores`, `--compare`."""

import json

import pytest

from jaxnmc.cli import stats_flags
from jaxnmc.report import stats

RUN = ("--prompt", "ab", "--tokens", 1, "--backend", "loihi")


def test_figures_and_gates(run, folders, tmp_path):
  target = tmp_path / "run.json"
  flags = ("--stats", "--tick-hz", 1000, "--limit", "ms=1M", "--limit", "w=1e9")
  status, said, err = run(
    *("run", folders["tiny"], *RUN, *flags, "--json", target)
  )
  assert status == 0, err
  found = json.loads(target.read_text())["stats"]
  assert found["estimated"] is True
  ticks = found["profile"]["ticks"]
  # No step of this model takes a millisecond of its own.
  assert found["runtime_ms"] == pytest.approx(ticks)
  assert [row["result"] for row in found["limits"]] == ["pass", "pass"]
  # What people see is what the JSON has.
  table = said[said.index(f"Estimated, {ticks} ticks, 1000 ticks/s") :]
  shown = {x.split()[0]: x.split()[1:] for x in table.splitlines() if x.split()}
  for name in ("spike_count", "energy_consumed", "runtime_ms"):
    value = float(shown[name][0].replace(",", ""))
    assert value == pytest.approx(found[name], rel=1e-3)
    assert shown[name][-1] == found["labels"][name] == "modelled"
  assert max(map(len, table.splitlines())) <= 80


def test_a_limit_that_is_not_kept_is_status_1(run, folders, tmp_path):
  target = tmp_path / "run.json"
  flags = ("--stats", "--limit", "spikes=1", "--limit", "ms=1M")
  status, said, _ = run(
    *("run", folders["tiny"], *RUN, *flags, "--json", target)
  )
  assert status == 1
  assert "free-running" in said
  # The result is written all the same.
  found = json.loads(target.read_text())["stats"]
  results = {row["budget"]: row["result"] for row in found["limits"]}
  assert results == {"spikes": "fail", "ms": "pass"}


def test_names_of_limits_are_the_budgets():
  assert stats_flags.NAMES == tuple(stats.BUDGETS)


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (("--backend", "float", "--stats"), "--stats needs --backend loihi"),
    (("--tick-hz", 5), "no effect without --stats"),
    (("--limit", "ms=5"), "no effect without --stats"),
    (("--stats", "--limit", "watts=5"), "NAME one of w, ram_bytes"),
    (("--stats", "--limit", "ms=0"), "above 0"),
    (("--stats", "--limit", "ms=1", "--limit", "ms=9"), "found ms 2 times"),
    (("--stats", "--tick-hz", 0), "above 0"),
  ],
)
def test_what_cannot_be_is_refused(refused, folders, flags, words):
  assert words in refused("run", folders["tiny"], *RUN, *flags)


SHAPE = ("place", "--shape", "2,256,512,64")


def test_as_few_cores_as_do(as_json, refused):
  used = as_json(*SHAPE, "--cores", 120)["cores_used"]
  assert 1 < used <= 120
  assert as_json(*SHAPE, "--cores", used)["cores_used"] == used
  said = refused(*SHAPE, "--cores", used - 1)
  room = 96_000 * (used - 1)
  assert f"{used - 1} cores hold {room:,} bytes" in said
  assert f"it takes {used}" in said


@pytest.mark.parametrize(
  "flags", [("--chips", 2), ("--layer_chips", 1), ("--head_chips", 1)]
)
def test_cores_and_chips_exclude_each_other(refused, flags):
  assert "exclude each other" in refused(*SHAPE, "--cores", 9, *flags)


def test_other_chips(run, folders, tmp_path):
  target = tmp_path / "place.json"
  flags = ("--cores", 12, "--compare", "--json", target)
  status, said, err = run("place", folders["tiny"], *flags)
  assert status == 0, err
  data = json.loads(target.read_text())
  rows = {row["chip"]: row for row in data["compare"]}
  assert list(rows) == ["Loihi 2", "Loihi 1", "TrueNorth", "Akida AKD1000"]
  used = rows["Loihi 2"]["placed_cores"]
  assert used == data["cores_used"] <= 12
  # Messages of 16 bits, of a MatMul-free model, are no spikes.
  assert "bits, it has 1" in rows["Loihi 1"]["why_not"][0]
  table = said[said.index("On other chips") :]
  assert max(map(len, table.splitlines())) <= 80
  assert f"placed on Loihi 2: {used} cores" in table
  assert all(name in table for name in rows)


def test_what_sizes_alone_cannot_say(as_json):
  rows = as_json(*SHAPE, "--compare")["compare"]
  assert all("message_bits" in row["not_checked"] for row in rows)
