"""Exact ternary products beside torch's int8 product and XLA's, in turns.

  python tools/bench_int_mm.py --python /tmp/torch/bin/python --rows 5,64,512

Ours takes 16-bit activations in two digit planes and two-bit weights;
`torch._int_mm` takes one plane of int8 and int8 weights, which is half the
work.  torch runs in a process of its own, under the interpreter of `--python`
(this one by default), and its column stays empty where that has none.  Shapes
and formulations are measured in turns, so that a busy moment hits all alike;
medians are printed, with the load of the machine.  Every product of ours is
compared with NumPy's first.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from jaxnmc.kernels import native, packed
from jaxnmc.kernels.ternary import MAX_TWO_PLANES, ternary_matmul

SHAPES = ((1024, 1024), (1024, 5632), (2816, 1024))
_LAYERS = 4  # matrices that take turns, so that no cache holds one of them all
_SPAN = 0.03  # seconds of one turn

# Reads "rows in out calls", answers seconds per call of the better layout of
# the weights.
_TORCH = """
import sys, time
import torch
made = {}
print(torch.__version__, torch.get_num_threads(), flush=True)
for line in sys.stdin:
  m, k, n, calls = key = tuple(map(int, line.split()))
  if key not in made:
    draw = lambda *s: torch.randint(-127, 128, s, dtype=torch.int8)
    rows = draw(m, k)
    made[key] = [(rows, draw(n, k).t()), (rows, draw(k, n))]
    for a, b in made[key]:
      torch._int_mm(a, b)
  best = float("inf")
  for a, b in made[key]:
    start = time.perf_counter()
    for _ in range(calls):
      torch._int_mm(a, b)
    best = min(best, (time.perf_counter() - start) / calls)
  print(best, flush=True)
"""


class Torch:
  """torch in another process; `version` is None where it has none."""

  def __init__(self, python: str) -> None:
    self.process = subprocess.Popen(
      [python, "-c", _TORCH],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
    )
    self.version = self._line() or None

  def _line(self) -> str:
    assert self.process.stdout is not None
    return self.process.stdout.readline().strip()

  def seconds(self, m: int, k: int, n: int, calls: int) -> float | None:
    """Of one product, None without torch or where it refuses the shape."""
    # The library wants more than 16 rows.
    if self.version is None or m <= 16:
      return None
    assert self.process.stdin is not None
    self.process.stdin.write(f"{m} {k} {n} {calls}\n")
    self.process.stdin.flush()
    return float(self._line())

  def close(self) -> None:
    """Ends the process."""
    assert self.process.stdin is not None
    self.process.stdin.close()
    self.process.wait()


def formulations(k: int, n: int, rng) -> dict:
  """Name -> function of (rows int32[m, k], layer), of the same matrices."""
  codes = rng.integers(-1, 2, (_LAYERS, n, k)).astype(np.int8)
  small, whole = jnp.asarray(packed.pack(codes)), jnp.asarray(codes)

  def xla(x, whole, layer):
    one = lax.dynamic_index_in_dim(whole, layer, keepdims=False)
    return ternary_matmul(x, one, MAX_TWO_PLANES)

  ours, single = (
    jax.jit(lambda x, w, i, p=planes: packed.product(x, w, i, planes=p))
    for planes in (2, 1)
  )
  xla = jax.jit(xla)
  found = {
    "xla": lambda x, i: xla(x, whole, i),
    "native": lambda x, i: ours(x, small, i),
    "one plane": lambda x, i: single(jnp.clip(x, -127, 127), small, i),
  }
  x = rng.integers(-MAX_TWO_PLANES, MAX_TWO_PLANES + 1, (33, k))
  exact = x @ codes[1].T.astype(np.int64)
  near = np.clip(x, -127, 127) @ codes[1].T.astype(np.int64)
  rows = jnp.asarray(x, jnp.int32)
  for name, run in found.items():
    want = near if name == "one plane" else exact
    if not np.array_equal(run(rows, jnp.int32(1)), want):
      raise SystemExit(f"{name}: a wrong integer at {k} -> {n}")
  clipped = lambda x, i: single(x, small, i)
  return found | {"one plane": clipped}


def measure(k: int, n: int, rows, turns: int, torch: Torch, rng) -> list[dict]:
  """One dictionary of median seconds per number of rows."""
  runs = formulations(k, n, rng)
  layers = [jnp.int32(i) for i in range(_LAYERS)]
  out = []
  for m in rows:
    x = {
      top: jnp.asarray(rng.integers(-top, top + 1, (m, k)), jnp.int32)
      for top in (MAX_TWO_PLANES, 127)
    }
    calls = int(max(1, min(200, _SPAN * 6e10 / (m * k * n))))
    seconds: dict[str, list[float]] = {}
    for turn in range(turns + 1):
      for name, run in runs.items():
        rows_in = x[127 if name == "one plane" else MAX_TWO_PLANES]
        start = time.perf_counter()
        for i in range(calls):
          run(rows_in, layers[i % _LAYERS]).block_until_ready()
        if turn:  # the first one compiles
          took = (time.perf_counter() - start) / calls
          seconds.setdefault(name, []).append(took)
      other = torch.seconds(m, k, n, calls)
      if turn and other is not None:
        seconds.setdefault("torch", []).append(other)
    row = {"in": k, "out": n, "rows": m, "load": os.getloadavg()[0]}
    out.append(row | {a: statistics.median(b) for a, b in seconds.items()})
    show(out[-1])
  return out


def show(row: dict) -> None:
  """Prints one line: microseconds, ratios, load."""
  cell = lambda v, form: format(v, form) if v is not None else "-"
  us = lambda name: cell(row[name] * 1e6 if name in row else None, ".0f")
  macs = row["in"] * row["out"] * row["rows"]
  torch = row.get("torch")
  print(
    f"{row['in']:5} {row['out']:5} {row['rows']:5}"
    f" {us('native'):>9} {us('one plane'):>9} {us('xla'):>9} {us('torch'):>9}"
    f" {macs / row['native'] / 1e9:7.1f}"
    f" {row['xla'] / row['native']:7.2f}"
    f" {cell(row['native'] / torch if torch else None, '.2f'):>7}"
    f" {cell(row['one plane'] / torch if torch else None, '.2f'):>7}"
    f" {row['load']:5.1f}",
    flush=True,
  )


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--python", default=sys.executable)
  parser.add_argument("--rows", default="512")
  parser.add_argument("--turns", type=int, default=7)
  parser.add_argument("--json", type=pathlib.Path)
  args = parser.parse_args()
  if args.turns < 5:
    parser.error("--turns: medians want at least 5")
  if not native.available():
    raise SystemExit("the native kernel cannot be built here (see doctor)")
  torch = Torch(args.python)
  print(f"native: {native.path()}; torch, threads: {torch.version}; measured")
  print(
    "   in   out  rows native us one plane    xla us  torch us    GMAC"
    " xla/nat nat/trc one/trc  load"
  )
  rng = np.random.default_rng(0)
  rows = [int(m) for m in args.rows.split(",")]
  table = []
  for k, n in SHAPES:
    table += measure(k, n, rows, args.turns, torch, rng)
  torch.close()
  if args.json:
    args.json.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
  main()
