"""`jaxnmc run --stats` and `jaxnmc place --cores`, `--compare`."""

import json

import pytest

RUN = ("--prompt", "ab", "--tokens", 2, "--backend", "loihi")


def test_figures_and_gates(run, folders, tmp_path):
  target = tmp_path / "run.json"
  flags = ("--stats", "--tick-hz", 1000, "--limit", "ms=1M", "--limit", "w=1e9")
  status, said, err = run(
    *("run", folders["tiny"], *RUN, *flags, "--json", target)
  )
  assert status == 0, err
  assert "1000 ticks/s" in said
  found = json.loads(target.read_text())["stats"]
  assert found["estimated"] is True
  assert found["runtime_ms"] >= found["profile"]["ticks"]
  assert [row["result"] for row in found["limits"]] == ["pass", "pass"]


def test_a_limit_that_is_not_kept_is_status_1(run, folders):
  status, said, _ = run(
    *("run", folders["tiny"], *RUN, "--stats", "--limit", "spikes=1")
  )
  assert status == 1
  assert "fail" in said


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (("--backend", "float", "--stats"), "--stats needs --backend loihi"),
    (("--tick-hz", 5), "no effect without --stats"),
    (("--limit", "ms=5"), "no effect without --stats"),
    (("--stats", "--limit", "watts=5"), "NAME one of w, ram_bytes"),
    (("--stats", "--limit", "ms=0"), "above 0"),
    (("--stats", "--tick-hz", 0), "above 0"),
  ],
)
def test_what_cannot_be_is_refused(refused, folders, flags, words):
  assert words in refused("run", folders["tiny"], *RUN, *flags)


SHAPE = ("place", "--shape", "2,256,512,64")


def test_as_few_cores_as_do(as_json, refused):
  # head: what is not on the cores is on the host.
  data = as_json(*SHAPE, "--cores", 120, "--compare")
  used = data["cores_used"]
  assert used <= 120
  names = [row["chip"] for row in data["compare"]]
  assert names == ["Loihi 2", "Loihi 1", "TrueNorth", "Akida AKD1000"]
  assert as_json(*SHAPE, "--cores", used)["cores_used"] == used
  assert f"it takes {used}" in refused(*SHAPE, "--cores", used - 1)
  assert "exclude each other" in refused(*SHAPE, "--cores", 9, "--chips", 2)
