"""What every driver shares: the load, the clock, one JSON line per stretch.

A driver runs in the environment of its peer, so this file needs numpy and
Python 3.10 only.  All get the same integers:

    v[t] = v[t - 1] + W s[t - 1] + drive,   s[t] = v[t] > threshold

and a neuron that fired starts again (from 0, or less a threshold where a peer
knows nothing else).  `build(load)` makes the network and gives a function
`stretch(steps)` that goes on for so many steps and gives the spikes of them.
A stretch of `warm` steps and one of `steps` come first, so that nothing is
compiled in a measured one; a measurement is as many stretches as fill a
fifth of a second.
"""

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from importlib import metadata

import numpy as np


@dataclasses.dataclass
class Load:
  """LIF neurons that are driven and joined.

  Attributes:
    weights: W, int32[target, source].
    drive: what every step adds, int32[n].
    threshold: what has to be passed, in units of the weights.
    activity: the share of firing neurons the drive was made for.
    seed: of weights and drive.
    steps: steps of a measured stretch.
    warm: steps before the first.
  """

  weights: np.ndarray
  drive: np.ndarray
  threshold: int
  activity: float
  seed: int
  steps: int
  warm: int

  @property
  def n(self) -> int:
    """Neurons."""
    return len(self.drive)

  @property
  def fan_out(self) -> float:
    """Synapses of a neuron, on average."""
    return np.count_nonzero(self.weights) / self.n


def arguments() -> argparse.ArgumentParser:
  """The command line of every driver."""
  parser = argparse.ArgumentParser()
  parser.add_argument("--weights", required=True, help=".npy, int[to, from]")
  parser.add_argument("--drive", required=True, help=".npy, int[n]")
  parser.add_argument("--threshold", type=int, required=True)
  parser.add_argument("--activity", type=float, required=True)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--steps", type=int, default=1000)
  parser.add_argument("--warm", type=int, default=60)
  parser.add_argument(
    "--least",
    type=float,
    default=0.2,
    help="seconds of a measurement; short stretches are repeated in it",
  )
  parser.add_argument("--variant", default="", help="which of a driver's rows")
  parser.add_argument(
    "--wait",
    action="store_true",
    help="say when ready; then one measurement per line of standard input",
  )
  return parser


def _load(args: argparse.Namespace) -> Load:
  return Load(
    np.load(args.weights).astype(np.int32),
    np.load(args.drive).astype(np.int32),
    args.threshold,
    args.activity,
    args.seed,
    args.steps,
    args.warm,
  )


def measured(load: Load, counts: list[int], seconds: float) -> dict:
  """The figures of a measurement, from the spikes of its stretches."""
  steps, spikes = load.steps * len(counts), sum(counts)
  return {
    "n": load.n,
    "steps": steps,
    "activity": spikes / steps / load.n,
    "steps_per_s": steps / seconds,
    "spikes": spikes,
    "first_spikes": counts[0],
    "fan_out": load.fan_out,
    "synops_per_s": spikes * load.fan_out / seconds,
    "seconds": seconds,
  }


def main(build: Callable, package: str | None) -> None:
  """Runs a driver.

  Args:
    build: of the load and the variant; gives `stretch`, or `stretch` and a
      function that gives more facts for the line.
    package: the distribution whose version is reported, None for numpy's.
  """
  args = arguments().parse_args()
  # Peers print; the lines are ours alone.
  lines = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)

  def say(facts: dict) -> None:
    print(json.dumps(facts), file=lines, flush=True)

  try:
    load = _load(args)
    start = time.perf_counter()
    built = build(load, args.variant)
    stretch, more = built if isinstance(built, tuple) else (built, dict)
    stretch(load.warm)
    stretch(load.steps)
    fixed = {
      "setup_s": time.perf_counter() - start,
      "version": metadata.version(package or "numpy"),
    }

    def measure() -> None:
      counts: list[int] = []
      begin, seconds = time.perf_counter(), 0.0
      while not counts or seconds < args.least:
        counts.append(int(stretch(load.steps)))
        seconds = time.perf_counter() - begin
      say(measured(load, counts, seconds) | fixed | more())

    if not args.wait:
      measure()
    else:
      say({"ready": True} | fixed)
      for _ in sys.stdin:
        measure()
  except Exception as error:  # whatever a peer raises is its one line
    text = " ".join(str(error).split())
    say({"error": f"{type(error).__name__}: {text}"[:300]})
    sys.exit(1)
