"""`jaxnmc place`: objectives, presets, sizes alone, schedules."""

import json

import pytest


def test_sizes_alone_in_either_objective(as_json):
  flags = ("--shape", "6,256,704,4000", "--head", "chip")
  time, memory = (
    as_json("place", *flags, "--objective", o) for o in ("time", "memory")
  )
  assert time["policy"]["objective"] == "time"
  assert memory["cores_used"] < time["cores_used"]
  assert memory["neurons"] == time["neurons"]
  assert time["steps_per_layer"] == [15] * 6
  gate = as_json("place", *flags, "--norm", "gate")
  assert gate["steps_per_layer"] == [13] * 6
  figures = {row["figure"]: row["value"] for row in time["on_paper"]}
  assert figures["prefill_rate"] > 0


def test_preset_of_the_paper(run, tmp_path):
  path = tmp_path / "paper.json"
  status, out, _ = run("place", "--preset", "abreu2025", "--json", path)
  assert status == 0
  data = json.loads(path.read_text())
  assert (data["chips_used"], data["chips_asked"]) == (31, 32)
  assert data["host"] == ["embed"]
  assert [r["chips"] for r in data["heads"] if r["unchanged"]][0] == 3
  assert {r["bits"] for r in data["embedding"]} == {16, 8, 2}
  assert "7.43" in out  # sparse costs about 7.5 times dense
  assert "all 32,000 logits of a token take 200 us" in out


def test_schedule_and_plot(run, as_json, tmp_path):
  pytest.importorskip("matplotlib")
  path = tmp_path / "schedule.png"
  flags = ("place", "--shape", "2,16,24,32", "--schedule", "--plot", path)
  status, out, _ = run(*flags)
  assert status == 0
  assert "each of 2 layers: 15 steps" in out
  assert path.read_bytes()[:4] == b"\x89PNG"
  rows = as_json(*flags[:-2])["schedule"]
  assert len(rows) == 1 + 2 * 15 + 4


def test_populations(run, as_json):
  flags = ("place", "--shape", "2,16,24,32", "--populations", "--head", "host")
  rows = as_json(*flags)["by_population"]
  on_cores = [r for r in rows if r["where"] == "cores"]
  assert sum(r["neurons"] for r in on_cores) == as_json(*flags)["neurons"]
  assert all(r["tiles"] > 0 for r in on_cores)
  assert {r["role"] for r in rows if r["where"] == "host"} >= {"embed"}
  text = run(*flags)[1]
  assert "mlp.down.in" in text


def test_a_model_as_the_paper_placed_it(as_json, folders):
  data = as_json("place", folders["tiny"], "--preset", "abreu2025")
  assert data["policy"]["layers"] == "own"
  assert data["chips"][0]["layers"] == "0"


def test_systems(as_json, run):
  rows = as_json("place", "--systems")["systems"]
  assert {r["system"] for r in rows} >= {"Hala Point", "Oheo Gulch"}
  assert "140,544" in run("place", "--systems")[1]


@pytest.mark.parametrize(
  ("flags", "text"),
  [
    ((), "nothing to place"),
    (("--shape", "1,2,3"), "found '1,2,3'"),
    (("--shape", "1,2,3,0"), "four positive integers"),
    (("--shape", "2,8,12,9", "--preset", "abreu2025"), "--shape takes no"),
    (("--preset", "abreu2025", "--head", "host"), "--head host is what"),
    (("--shape", "2,8,12,9", "--plot", "/no/such/x.png"), "does not exist"),
    (("--shape", "40,5120,13824,32000"), "18,947 units of synapse memory"),
    (
      ("--shape", "2,8,12,9", "--layer-chips", 2, "--chips", 3),
      "2 layers of 2 chips each take 4",
    ),
    (
      ("--shape", "2,8,12,9", "--layer_chips", 2, "--objective", "memory"),
      "layer_chips=2 with objective='memory'",
    ),
  ],
)
def test_what_cannot_be_placed(refused, flags, text):
  assert text in refused("place", *flags)
