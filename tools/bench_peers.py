"""The standard load in other people's simulators, beside ours.

  python tools/bench_peers.py --env /tmp/peers --json peers.json

LIF neurons with a tenth of all connections, the same integers for everybody
(`jaxnmc.report.bench.circuits.recurrent`).  Every simulator runs in a process
and an environment of its own, made below `--env`; one that does not install
or run gets a line that says why.  Rows of a size are measured in turns, so
that a busy moment hits all alike; medians are compared.  Ours runs for each
row at the activity the peer showed, within a tenth of it, counters on.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from jaxnmc.evaluate import provenance
from jaxnmc.report.bench import circuits
from tools.peers import rows as table
from tools.peers.environments import ROOT, Driver, Missing, prepare

GOAL = 3  # times the synaptic operations per second of a peer
_NEAR = 0.1  # activities are equal within this share
_TRIES = 3
_WARM = 60
_SEED = 0


@dataclasses.dataclass(frozen=True)
class Wanted:
  """A row before it is measured."""

  peer: table.Peer
  n: int
  activity: float

  def __str__(self) -> str:
    return f"{self.peer.name}, {self.n} neurons, {self.activity:.0%} asked"


def select(peers: str, sizes: str) -> list[Wanted]:
  """The rows of a command line, by size, in the order of the table.

  Raises:
    ValueError: a name or size that is none.
  """
  known = {p.name: p for p in table.PEERS}
  names = [x.strip() for x in peers.split(",")] if peers else list(known)
  wrong = [x for x in names if x not in known]
  if wrong:
    raise ValueError(
      f"--peers: there is no {wrong[0]!r}; there are {', '.join(known)}"
    )
  numbers = [x.strip() for x in sizes.split(",")]
  bad = [x for x in numbers if not x.isdigit() or int(x) < 1]
  if bad:
    raise ValueError(f"--sizes: {bad[0]!r} is no number of neurons")
  chosen = [p for p in known.values() if p.name in names]
  return [
    Wanted(peer, n, activity)
    for n in map(int, numbers)
    for peer in chosen
    for activity in peer.activities
  ]


def write_load(folder: pathlib.Path, n: int, activity: float) -> list[str]:
  """Writes weights and drive; gives the driver's arguments for them."""
  circuit = circuits.recurrent(n, activity, _SEED)
  weights = folder / f"weights-{n}.npy"
  if not weights.exists():
    matrix = circuit.connections[0].synapse.weights
    np.save(weights, np.asarray(matrix, np.int16))
  drive = folder / f"drive-{n}-{activity:.6f}.npy"
  neuron = circuit.populations["lif"].neuron
  np.save(drive, np.asarray(neuron.bias_mant, np.int32))
  return [
    *("--weights", str(weights)),
    *("--drive", str(drive)),
    *("--threshold", str(neuron.vth)),
    *("--activity", repr(activity)),
    *("--seed", str(_SEED)),
    *("--warm", str(_WARM)),
  ]


class Bench:
  """Drivers of one size, and what they measured.

  Args:
    folder: for weights and drives.
    environments: the folder of `--env`.
    say: told what happens.
  """

  def __init__(self, folder: pathlib.Path, environments: pathlib.Path, say):
    self._folder, self._environments, self._say = folder, environments, say
    self.drivers: list[Driver] = []
    self.pairs: list[tuple[Wanted, Driver, Driver]] = []
    self.left_out: list[dict] = []
    self.seen: dict[Driver, list[dict]] = {}
    self._ours: dict[tuple[int, float, int], Driver] = {}

  def __enter__(self) -> "Bench":
    return self

  def __exit__(self, *_):
    for driver in self.drivers:
      driver.close()

  def _start(self, peer, python, n, activity, steps) -> Driver:
    arguments = write_load(self._folder, n, activity)
    driver = Driver(peer, python, [*arguments, "--steps", steps])
    self.drivers.append(driver)
    self.seen[driver] = []
    # Its activity and about its time; a round measures again.
    driver.first = driver.measure()
    return driver

  def add(self, wanted: Wanted) -> None:
    """Starts a row and ours beside it, or says why there is none."""
    try:
      python = prepare(wanted.peer, self._environments, self._say)
      steps = wanted.peer.stretch(wanted.n)
      peer = self._start(wanted.peer, python, wanted.n, wanted.activity, steps)
      if not peer.first["spikes"]:
        raise Missing("runs, but no neuron fires")
    except Missing as reason:
      self._say(f"{wanted}: {reason}")
      self.left_out.append({"row": str(wanted), "reason": str(reason)})
      return
    ours = self._match(wanted, steps, peer.first["activity"])
    self.pairs.append((wanted, peer, ours))

  def _match(self, wanted: Wanted, steps: int, activity: float) -> Driver:
    """Ours at the activity a peer showed: the nearest of a few tries."""
    asked, tried = wanted.activity, []
    for _ in range(_TRIES):
      key = (wanted.n, asked, steps)
      if key not in self._ours:
        self._ours[key] = self._start(
          table.OURS, sys.executable, wanted.n, asked, steps
        )
      found = self._ours[key].first["activity"]
      tried.append((abs(found / activity - 1), key))
      if tried[-1][0] <= _NEAR:
        break
      asked = round(asked * activity / found, 4)
    best = self._ours[min(tried)[1]]
    for _, key in tried:
      if self._ours[key] is not best and not self._used(self._ours[key]):
        self._drop(key)
    return best

  def _used(self, driver: Driver) -> bool:
    return any(driver is ours for _, _, ours in self.pairs)

  def _drop(self, key) -> None:
    driver = self._ours.pop(key)
    self.drivers.remove(driver)
    driver.close()

  def rounds(self, repeats: int) -> None:
    """Measures everything in turns."""
    expected = sum(d.first["seconds"] for d in self.drivers)
    begin = time.monotonic()
    for i in range(repeats):
      for driver in list(self.drivers):
        try:
          self.seen[driver].append(driver.measure())
        except Missing as reason:
          self._lose(driver, str(reason))
      done = time.monotonic() - begin
      left = (repeats - i - 1) * (done / (i + 1) if i else expected)
      self._say(f"round {i + 1} of {repeats}, about {left:.0f} s left")

  def _lose(self, driver: Driver, reason: str) -> None:
    self.drivers.remove(driver)
    driver.close()
    for pair in [p for p in self.pairs if driver in p[1:]]:
      self._say(f"{pair[0]}: {reason}")
      self.left_out.append({"row": str(pair[0]), "reason": reason})
      self.pairs.remove(pair)

  def rows(self) -> list[dict]:
    """A row per pair, ready for JSON."""
    first = lambda driver: driver.first["first_spikes"]
    return [
      compare(wanted, self.seen[peer], self.seen[ours])
      # Later stretches of Lava are not counted one by one.
      | {"same_spikes": first(peer) == first(ours)}
      for wanted, peer, ours in self.pairs
    ]


def compare(wanted: Wanted, peer: list[dict], ours: list[dict]) -> dict:
  """One row from the stretches of a peer and of ours."""
  theirs, mine = _medians(peer), _medians(ours)
  ratio = mine["synops_per_s"] / theirs["synops_per_s"]
  gap = mine["activity"] / theirs["activity"] - 1
  return {
    "peer": wanted.peer.name,
    "version": peer[0]["version"],
    "n": wanted.n,
    "asked_activity": wanted.activity,
    **theirs,
    "ours": mine | {"synops_counted": ours[-1].get("synops_counted")},
    "ratio": ratio,
    "activity_gap": gap,
    "equal_activity": abs(gap) <= _NEAR,
    "goal": "met" if ratio >= GOAL else "not met",
    "label": "measured",
  }


def _medians(seen: list[dict]) -> dict:
  middle = lambda name: statistics.median(x[name] for x in seen)
  seconds = [x["seconds"] for x in seen]
  return {
    "steps": [x["steps"] for x in seen],
    "setup_s": seen[0]["setup_s"],
    "seconds": seconds,
    "spikes": [x["spikes"] for x in seen],
    **{k: middle(k) for k in ("activity", "steps_per_s", "synops_per_s")},
  }


def render(found: dict) -> str:
  """The table, at most 80 columns."""
  load = found["load_average"]
  lines = [
    f"measured: medians of {found['repeats']}, taken in turns,"
    f" {found['cores']} CPUs",
    f"load average {load['before']:.1f} before, {load['after']:.1f} after",
    "ours at the peer's activity, counters on; Msynop/s: spikes x fan-out / s",
    "",
    f"{'peer':12} {'N':>5} {'active':>6} {'steps/s':>8} {'Msynop/s':>8}"
    f" {'ours':>8} {'ratio':>6}  goal >= {GOAL}",
  ]
  for row in found["rows"]:
    mark = " =" if row["same_spikes"] else ""
    mark += "" if row["equal_activity"] else f" {row['activity_gap']:+.0%}"
    lines.append(
      f"{row['peer']:12} {row['n']:5} {row['activity']:6.1%}"
      f" {row['steps_per_s']:8.1f} {row['synops_per_s'] / 1e6:8.2f}"
      f" {row['ours']['synops_per_s'] / 1e6:8.2f} {row['ratio']:6.2f}"
      f"  {row['goal']}{mark}"
    )
  if any(row["same_spikes"] for row in found["rows"]):
    lines.append("= as many spikes as ours in the first stretch")
  for left in found["left_out"]:
    told = f"{left['row']}: {left['reason']}"
    lines.append(textwrap.fill(told, 80, subsequent_indent="  "))
  return "\n".join(lines)


def _commit() -> str | None:
  command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
  try:
    run = subprocess.run(command, capture_output=True, text=True)
  except OSError:
    return None
  return run.stdout.strip() or None


def bench(wanted: list[Wanted], environments: pathlib.Path, repeats: int):
  """Measures rows, a size at a time; gives what `--json` writes."""
  begin = time.monotonic()

  def say(text: str) -> None:
    print(f"[{time.monotonic() - begin:5.0f} s] {text}", file=sys.stderr)

  before, commit = os.getloadavg()[0], _commit()
  rows, left_out, done = [], [], 0
  with tempfile.TemporaryDirectory() as name:
    for n in dict.fromkeys(x.n for x in wanted):
      with Bench(pathlib.Path(name), environments, say) as run:
        for each in [x for x in wanted if x.n == n]:
          spent, todo = time.monotonic() - begin, len(wanted) - done
          left = f", about {spent / done * todo:.0f} s left" if done else ""
          say(f"{done + 1} of {len(wanted)}: {each}{left}")
          run.add(each)
          done += 1
        run.rounds(repeats)
        rows += run.rows()
        left_out += run.left_out
  return {
    "rows": rows,
    "left_out": left_out,
    "repeats": repeats,
    "load_average": {"before": before, "after": os.getloadavg()[0]},
    "cores": os.cpu_count(),
    "commit": commit,
    "seed": _SEED,
    "versions": provenance.versions(),
  }


def main(argv: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  names = ",".join(p.name for p in table.PEERS)
  parser.add_argument("--env", required=True, help="folder of environments")
  parser.add_argument("--peers", default="", help=f"all: {names}")
  parser.add_argument("--repeats", type=int, default=5)
  parser.add_argument("--sizes", default=",".join(map(str, table.SIZES)))
  parser.add_argument("--json", help="file for all figures")
  args = parser.parse_args(argv)
  if args.repeats < 1:
    parser.error(f"--repeats {args.repeats}: at least 1")
  try:
    wanted = select(args.peers, args.sizes)
  except ValueError as error:
    parser.error(str(error))
  # Ended from outside, it still ends its drivers.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
  found = bench(wanted, pathlib.Path(args.env), args.repeats)
  if args.json:
    pathlib.Path(args.json).write_text(json.dumps(found, indent=1) + "\n")
  print(render(found))
  return 0


if __name__ == "__main__":
  sys.exit(main())
