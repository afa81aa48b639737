"""How time grows with layers, width, prompt, batch and chips; plotted.

  python tools/bench_growth.py --json growth.json --plot growth.png

Models with random weights run by `loihi` (functional engine, counters on).
Each curve varies one thing and holds the rest; all points of a curve are timed
interleaved, medians are shown.  Compile times are those of the first call.
"""

import argparse
import dataclasses
import json
import os
import statistics
import sys
import time

import jax
import numpy as np

import jaxnmc
from jaxnmc._extras import need
from jaxnmc.evaluate import provenance
from jaxnmc.report.bench import models, shapes

BASE = shapes.Shape(4, 512, 1408, 2048, 4)
PROMPT = 128
REPEATS = 5


@dataclasses.dataclass(frozen=True)
class Point:
  """One measurement.

  Attributes:
    x: what varies.
    shape: of the model.
    prompt: ids of the prompt.
    batch: sequences at once.
  """

  x: int
  shape: shapes.Shape
  prompt: int = PROMPT
  batch: int = 1


def curves(small: bool) -> dict[str, list[Point]]:
  """Name of what varies -> points."""
  base = shapes.SHAPES["tiny"] if small else BASE
  vary = lambda **what: dataclasses.replace(base, **what)
  few = (1, 2) if small else (2, 4, 8, 16, 24)
  widths = (32, 64) if small else (256, 512, 1024, 1536)
  prompts = (4, 16) if small else (16, 64, 128, 512, 2048)
  batches = (1, 2) if small else (1, 2, 4, 8, 16)
  chips = (1, 2) if small else (1, 2, 4, 8, 24)
  return {
    "layers": [Point(n, vary(layers=n, chips=None)) for n in few],
    "width": [
      Point(
        d,
        vary(hidden=d, intermediate=-(-11 * d // 4) // 128 * 128, chips=None)
        if not small
        else vary(hidden=d, intermediate=2 * d),
      )
      for d in widths
    ],
    "prompt": [Point(n, base, prompt=n) for n in prompts],
    "batch": [Point(n, base, batch=n) for n in batches],
    "chips": [Point(n, vary(chips=n)) for n in chips],
  }


class Runner:
  """One point, ready to be timed."""

  def __init__(self, point: Point, built: shapes.Built) -> None:
    self._run = jaxnmc.loihi(
      built.fn, built.plan, built.placement, mode="fall-through"
    )
    self._qparams = built.qparams
    ids = built.ids(point.prompt * point.batch)
    self._ids = ids.reshape(point.batch, point.prompt)
    if point.batch == 1:
      self._ids = self._ids[0]
    self._state = None

  def prefill(self) -> None:
    """A prompt from nothing."""
    self._state = self._call(self._ids, None)

  def decode(self) -> None:
    """A token of every sequence."""
    self._call(self._ids[..., :1], self._state)

  def _call(self, ids, state):
    found = self._run(self._qparams, {"ids": ids}, state)
    models.read(found[2:])
    return jax.block_until_ready(found[:2])[1]


def seconds(call) -> float:
  """Time of one call."""
  start = time.perf_counter()
  call()
  return time.perf_counter() - start


def measure(points: list[Point], plans: dict) -> list[dict]:
  """Rows of a curve."""
  runners, first = [], []
  for point in points:
    key = dataclasses.replace(point.shape, chips=None)
    if key not in plans:
      plans[key] = shapes.formats(key)
    runner = Runner(point, shapes.build(point.shape, plans[key]))
    first.append((seconds(runner.prefill), seconds(runner.decode)))
    runners.append(runner)
  times = [([], []) for _ in points]
  for _ in range(REPEATS):
    for runner, (prefill, decode) in zip(runners, times, strict=True):
      prefill.append(seconds(runner.prefill))
      decode.append(seconds(runner.decode))
  return [
    {
      "x": point.x,
      "weights": point.shape.weights,
      "prompt": point.prompt,
      "batch": point.batch,
      "chips": point.shape.chips,
      "prefill_s": statistics.median(prefill),
      "decode_s": statistics.median(decode),
      "first_prefill_s": one,
      "first_decode_s": two,
      "label": "measured",
    }
    for point, (prefill, decode), (one, two) in zip(
      points, times, first, strict=True
    )
  ]


def plot(data: dict, path: str) -> None:
  """Prefill and decode over each thing that varies, log-log."""
  pyplot = need("matplotlib.pyplot", "plot")
  panels = len(data["curves"])
  figure, axes = pyplot.subplots(1, panels, figsize=(14, 3.4), sharey=True)
  names = {"layers": "layers", "width": "width d", "prompt": "prompt, tokens"}
  names |= {"batch": "sequences at once", "chips": "chips"}
  for axis, (name, rows) in zip(axes, data["curves"].items(), strict=True):
    x = [row["x"] for row in rows]
    tokens = np.array([row["prompt"] * row["batch"] for row in rows])
    prefill = np.array([row["prefill_s"] for row in rows]) / tokens
    decode = [row["decode_s"] / row["batch"] for row in rows]
    axis.plot(x, 1e3 * prefill, "o-", label="prompt, a token")
    axis.plot(x, 1e3 * np.array(decode), "s-", label="decode, a token")
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xlabel(names[name])
    axis.set_xticks(x, [f"{n:,}" for n in x])
    axis.set_yticks((0.1, 0.3, 1, 3, 10), ("0.1", "0.3", "1", "3", "10"))
    axis.minorticks_off()
    axis.grid(alpha=0.3, which="both")
  axes[0].set_ylabel("ms per token (measured)")
  axes[0].legend(fontsize=8)
  figure.tight_layout()
  figure.savefig(path, dpi=110)


def main(argv=None) -> int:
  """Measures, prints, keeps."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--json", help="file for all rows")
  parser.add_argument("--plot", help="PNG file (needs matplotlib)")
  parser.add_argument("--small", action="store_true", help="seconds, to try it")
  args = parser.parse_args(argv)
  start, load, plans, found = time.perf_counter(), os.getloadavg()[0], {}, {}
  for name, points in curves(args.small).items():
    took = time.perf_counter() - start
    print(f"[{took:6.1f} s] {name}", file=sys.stderr, flush=True)
    found[name] = measure(points, plans)
    for row in found[name]:
      tokens = row["prompt"] * row["batch"]
      print(
        f"{name:>7} {row['x']:>5}: prompt"
        f" {1e3 * row['prefill_s'] / tokens:8.3f} ms a token, decode"
        f" {1e3 * row['decode_s'] / row['batch']:8.2f} ms a token, first calls"
        f" {row['first_prefill_s']:.1f} and {row['first_decode_s']:.1f} s"
      )
  data = {
    "base": dataclasses.asdict(BASE),
    "curves": found,
    "repeats": REPEATS,
    "load_average": {"before": load, "after": os.getloadavg()[0]},
    "cores": os.cpu_count(),
    "versions": provenance.versions(),
    "commit": provenance.commit(),
  }
  if args.json:
    with open(args.json, "w", encoding="utf-8") as file:
      json.dump(data, file, indent=1)
  if args.plot:
    plot(data, args.plot)
  return 0


if __name__ == "__main__":
  sys.exit(main())
