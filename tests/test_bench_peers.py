"""tools/bench_peers.py: rows, drivers of our own, peers that are missing."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tools import bench_peers
from tools.peers import environments, rows

N, STEPS, WARM, ACTIVITY = 64, 50, 60, 0.2


@pytest.fixture(scope="module")
def load(tmp_path_factory):
  folder = tmp_path_factory.mktemp("load")
  arguments = bench_peers.write_load(folder, N, ACTIVITY)
  weights = np.load(next(folder.glob("weights-*.npy")))
  drive = np.load(next(folder.glob("drive-*.npy")))
  return arguments, weights.astype(int), drive.astype(int)


def by_hand(weights, drive, threshold=3600):
  """Spikes of every neuron in the measured stretch, as the driver counts."""
  v, s = np.zeros(N, int), np.zeros(N, int)
  count = np.zeros(N, int)
  for t in range(WARM + 2 * STEPS):
    v = v + drive + sum(weights[:, j] for j in np.flatnonzero(s))
    s = (v > threshold).astype(int)
    v[s == 1] = 0
    if t >= WARM + STEPS:
      count += s
  return count


@pytest.mark.parametrize(
  ("driver", "variant"),
  [("plain_jax", "float32"), ("plain_jax", "int32"), ("jaxnmc_circuit", "")],
)
def test_our_drivers_count_right(load, driver, variant):
  arguments, weights, drive = load
  run = subprocess.run(
    [
      *(sys.executable, environments.HERE / f"{driver}.py", *arguments),
      *("--steps", str(STEPS), "--variant", variant, "--least", "0"),
    ],
    capture_output=True,
    text=True,
    env={"PYTHONPATH": str(environments.ROOT), "JAX_PLATFORMS": "cpu"},
  )
  assert run.returncode == 0, run.stdout + run.stderr
  (line,) = run.stdout.splitlines()
  found = json.loads(line)
  count = by_hand(weights, drive)
  assert 0.1 < found["activity"] < 0.3
  assert found["spikes"] == count.sum()
  assert found["activity"] == count.sum() / STEPS / N
  synops = found["synops_per_s"] * found["seconds"]
  fan_out = np.count_nonzero(weights) / N
  assert synops == pytest.approx(count.sum() * fan_out)
  assert found["steps_per_s"] * found["seconds"] == pytest.approx(STEPS)
  if driver == "jaxnmc_circuit":
    assert found["synops_counted"] == count @ np.count_nonzero(weights, 0)


def test_a_measured_row_beside_ours(tmp_path):
  wanted = bench_peers.Wanted(
    rows.Peer("plain", "plain_jax", (), "int32", steps=STEPS), N, ACTIVITY
  )
  with bench_peers.Bench(tmp_path, tmp_path, print) as run:
    run.add(wanted)
    run.rounds(2)
    (row,) = run.rows()
  assert run.left_out == []
  # The same integers in the same order: nothing to tune.
  assert row["same_spikes"]
  assert row["equal_activity"]
  assert len(row["seconds"]) == len(row["ours"]["seconds"]) == 2
  assert row["label"] == "measured"


class Fake:
  """A driver as `Bench` sees one."""

  def __init__(self, activity):
    self.first = {"activity": activity, "spikes": 1, "seconds": 0.0}
    self.closed = False

  def close(self):
    self.closed = True


def tuned(monkeypatch, tmp_path, gain, activity):
  """What ours is asked for, if it always shows `gain` times as much."""
  asked = []

  def start(self, peer, python, n, activity, steps):
    asked.append(activity)
    driver = Fake(gain * activity)
    self.drivers.append(driver)
    return driver

  monkeypatch.setattr(bench_peers.Bench, "_start", start)
  run = bench_peers.Bench(tmp_path, tmp_path, print)
  wanted = bench_peers.Wanted(rows.PEERS[0], N, 0.1)
  best = run._match(wanted, STEPS, activity)
  return asked, best, run


def test_ours_is_tuned_to_the_activity_of_a_peer(monkeypatch, tmp_path):
  asked, best, run = tuned(monkeypatch, tmp_path, 0.8, 0.12)
  assert asked == [0.1, 0.15]
  assert best.first["activity"] == pytest.approx(0.12)
  assert run.drivers == [best]  # the other try is ended


def test_ours_as_it_is_if_near_enough(monkeypatch, tmp_path):
  assert tuned(monkeypatch, tmp_path, 1, 0.105)[0] == [0.1]


def test_a_peer_that_is_missing_gets_its_line(tmp_path, capsys):
  peer = rows.Peer("none", "run_spyx", (), requires=("x==1",), python="3.999")
  with bench_peers.Bench(tmp_path, tmp_path, print) as run:
    run.add(bench_peers.Wanted(peer, N, 0.06))
    run.rounds(1)
  reason = "needs python3.999, which is not on the path"
  assert run.left_out == [
    {"row": "none, 64 neurons, 6% asked", "reason": reason}
  ]
  assert f"none, 64 neurons, 6% asked: {reason}" in capsys.readouterr().out


def test_a_driver_that_fails_gets_its_line(monkeypatch, tmp_path):
  nowhere = str(tmp_path / "nowhere.npy")
  arguments = ["--weights", nowhere, "--drive", nowhere]
  arguments += ["--threshold", "1", "--activity", "1"]
  monkeypatch.setattr(bench_peers, "write_load", lambda *_: arguments)
  peer = rows.Peer("none", "run_lava", (), "dense")
  with bench_peers.Bench(tmp_path, tmp_path, print) as run:
    run.add(bench_peers.Wanted(peer, N, 0.06))
  (left,) = run.left_out
  assert left["reason"].startswith("does not run: FileNotFoundError: ")
  assert nowhere in left["reason"]


@pytest.mark.parametrize(
  ("text", "line"),
  [
    ("ERROR: no version of x==1\n\nnotice: a new pip", "ERROR: no version"),
    ("  File 'a'\nValueError: bad\n", "ValueError: bad"),
    ("Killed\n---\n", "Killed"),
    ("", "no output"),
  ],
)
def test_the_line_that_says_why(text, line):
  assert environments.one_line(text, 200).startswith(line)


def test_rows_are_chosen_by_name_and_size():
  wanted = bench_peers.select("jax-int32,spyx", "1024,64")
  names = [(x.peer.name, x.n) for x in wanted]
  assert names == [
    ("spyx", 1024),
    ("jax-int32", 1024),
    ("spyx", 64),
    ("jax-int32", 64),
  ]
  both = bench_peers.select("jax-float32", "64")
  assert [x.activity for x in both] == [0.06, 0.6]
  assert {x.peer for x in bench_peers.select("", "64")} == set(rows.PEERS)


@pytest.mark.parametrize(
  ("peers", "sizes", "told"),
  [("brian", "64", "'brian'"), ("", "64,x", "'x'"), ("", "0", "'0'")],
)
def test_a_wrong_choice_is_refused(peers, sizes, told):
  with pytest.raises(ValueError, match=told):
    bench_peers.select(peers, sizes)


def stretches(activity, synops):
  facts = {"version": "1", "steps": 10, "setup_s": 1.0, "spikes": 9}
  facts |= {"seconds": 0.5, "steps_per_s": 20.0, "activity": activity}
  return [facts | {"synops_per_s": x} for x in synops]


@pytest.mark.parametrize(
  ("mine", "goal", "ratio"),
  [((9, 6, 6), "met", 3), ((5, 5, 9), "not met", 2.5)],
)
def test_medians_are_compared(mine, goal, ratio):
  wanted = bench_peers.Wanted(rows.PEERS[0], N, 0.06)
  row = bench_peers.compare(
    wanted, stretches(0.05, (1, 2, 9)), stretches(0.05, mine)
  )
  assert (row["goal"], row["ratio"]) == (goal, ratio)
  assert row["equal_activity"]


def test_the_table_fits_a_terminal():
  wanted = bench_peers.Wanted(rows.PEERS[1], 4096, 0.5)
  row = bench_peers.compare(
    wanted, stretches(0.981, (987654321,) * 3), stretches(0.6, (1e9,) * 3)
  )
  found = {"rows": [row | {"same_spikes": True}], "repeats": 3, "cores": 128}
  found |= {"load_average": {"before": 100, "after": 100.0}}
  found["left_out"] = [{"row": str(wanted), "reason": "does not run: " * 20}]
  text = bench_peers.render(found)
  assert max(map(len, text.splitlines())) <= 80
  assert "-39%" in text  # activities that are not equal are told
