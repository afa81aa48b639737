"""The 370M shape on 24 simulated Loihi 2 chips, integer for integer.

Claim: a MatMul-free language model of the size of MMfreeLM-370M, with random
ternary weights, is calibrated, placed on 24 chips of 120 cores (embedding,
final norm and head on the host) and run by `loihi`: a prompt of 512 tokens and
16 decode steps. Every logit and every state integer equals those of `fixed`,
and the whole run stays below 6 GB of memory.

  python experiments/shape_370m.py
  python experiments/shape_370m.py --smoke

Comes out: the placement table, what was compared, measured times and memory of
this machine, modelled times and energy of the chips. --json FILE or --workdir
FOLDER (result.json, plan.json) keep it. The exit status is 1 if an integer
differs or the memory limit is exceeded.
"""

import dataclasses
import os
import pathlib
import resource
import statistics
import sys
import time

import jax
import numpy as np
import script
from absl import flags

import jaxnmc as nmc
from jaxnmc.evaluate import provenance
from jaxnmc.models import matmulfree
from jaxnmc.models.random_params import random_params
from jaxnmc.numerics.fx import is_fx
from jaxnmc.report import costs, files, tables
from jaxnmc.report import placement as placements

_LAYERS = flags.DEFINE_integer("layers", 24, "Blocks L.", lower_bound=1)
_HIDDEN = flags.DEFINE_integer("hidden", 1024, "Width D.", lower_bound=1)
_INTERMEDIATE = flags.DEFINE_integer("intermediate", 2816, "GLU width I.")
_VOCAB = flags.DEFINE_integer("vocab", 32000, "Tokens V.", lower_bound=1)
_CHIPS = flags.DEFINE_integer("chips", 24, "Chips of 120 cores.", lower_bound=1)
_PREFILL = flags.DEFINE_integer("prefill", 512, "Prompt ids.", lower_bound=1)
_DECODE = flags.DEFINE_integer("decode", 16, "Tokens after it.", lower_bound=1)
_CALIBRATION = flags.DEFINE_integer(
  "calibration", 64, "Random ids that the formats are chosen on.", lower_bound=1
)
_SEED = flags.DEFINE_integer("seed", 0, "Weights and ids.", lower_bound=0)
_NORM = flags.DEFINE_enum(
  "norm", "double", ["double", "fused"], "Formulation of two norms in a row."
)
_SMOKE = flags.DEFINE_bool("smoke", False, "Seconds, on a tiny model.")
_JSON = flags.DEFINE_string("json", None, "Also write the result here.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for result and plan.")

_SMOKE_SIZES = {
  "layers": 2,
  "hidden": 32,
  "intermediate": 64,
  "vocab": 96,
  "chips": 2,
  "prefill": 12,
  "decode": 3,
  "calibration": 16,
}
MEMORY_LIMIT = 6_000_000_000

_START = time.perf_counter()


def _say(text: str) -> None:
  """One line of progress; results go to stdout, this does not."""
  seconds = time.perf_counter() - _START
  print(f"[{seconds:7.1f} s] {text}", file=sys.stderr, flush=True)


def _peak_bytes() -> int:
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  # Linux counts in KiB, macOS in bytes.
  return peak if sys.platform == "darwin" else 1024 * peak


def _ready(call):
  start = time.perf_counter()
  result = jax.block_until_ready(call())
  return result, time.perf_counter() - start


def _timed(what: str, call):
  """(result, seconds of the first call, seconds of a second one)."""
  _say(f"{what}: compile and run")
  _, first = _ready(call)
  _say(f"{what}: run again")
  result, again = _ready(call)
  return result, first, again


class _Comparison:
  """Counts integers that are equal, names values that are not."""

  def __init__(self) -> None:
    self.integers = 0
    self.different: dict[str, int] = {}

  def add(self, where: str, one, two) -> None:
    """Compares two pytrees of fixed-point values: formats and codes."""
    leaves = jax.tree_util.tree_leaves_with_path(one, is_leaf=is_fx)
    others = jax.tree.leaves(two, is_leaf=is_fx)
    for (path, a), b in zip(leaves, others, strict=True):
      codes, expected = np.asarray(a.q), np.asarray(b.q)
      wrong = codes.size
      formats = (a.frac, a.low, a.high) == (b.frac, b.low, b.high)
      if formats and codes.shape == expected.shape:
        wrong = int(np.count_nonzero(codes != expected))
      self.integers += codes.size
      if wrong:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        self.different[f"{where} {name}"] = wrong

  @property
  def verdict(self) -> str:
    """One line for people."""
    if not self.different:
      return f"loihi == fixed: bit-equal ({self.integers:,} integers)"
    return (
      f"loihi != fixed: {sum(self.different.values()):,} of"
      f" {self.integers:,} integers differ, in {len(self.different)} values,"
      f" first {next(iter(self.different))}"
    )


def _model(config: matmulfree.Config, times: dict[str, float]):
  """Random weights -> (plan, qparams); nothing of the float model is left."""

  def stage(name, call):
    _say(name)
    result, times[name] = _ready(call)
    return result

  params = stage("random weights", lambda: random_params(config, _SEED.value))
  draw = np.random.default_rng([_SEED.value, 1])
  ids = draw.integers(0, config.vocab_size, _CALIBRATION.value, np.int32)
  fn = matmulfree.make(config)
  stats = stage("calibrate", lambda: nmc.calibrate(fn)(params, [ids]))
  # The float program is not needed again.
  jax.clear_caches()
  plan = nmc.plan(stats, nmc.quantize.W8A16)
  quantize = lambda: nmc.quantize_params(params, plan)
  return plan, stage("quantise", quantize)


def _decode(run, step, qparams, state, token, check: _Comparison):
  """Greedy decoding by `loihi` and `fixed`, compared after every token.

  Args:
    run: `loihi`, the next token when the last one has left.
    step: `fixed`, jitted.
    qparams: integer parameters.
    state: state after the prompt.
    token: first id to feed.
    check: takes the comparison.

  Returns:
    (counters of each step, ids fed, seconds of each step of both).
  """
  counters, fed, seconds = [], [], {"loihi": [], "fixed": []}
  mine = theirs = state
  for n in range(_DECODE.value):
    inputs = {"ids": np.array([token], np.int32)}
    found, took = _ready(lambda i=inputs, s=mine: run(qparams, i, s))
    seconds["loihi"].append(took)
    expected, took = _ready(lambda i=inputs, s=theirs: step(qparams, i, s))
    seconds["fixed"].append(took)
    (out, mine, counted), (_, theirs) = found, expected
    check.add(f"decode {n}", found[:2], expected)
    counters.append(counted)
    fed.append(token)
    token = int(np.argmax(np.asarray(out.logits.q)[-1]))
    _say(f"decode {n + 1}/{_DECODE.value}")
  return counters, fed, seconds


def run() -> dict:
  """Does it all; returns what came out, ready for JSON."""
  config = matmulfree.Config(
    vocab_size=_VOCAB.value,
    hidden_size=_HIDDEN.value,
    num_layers=_LAYERS.value,
    intermediate_size=_INTERMEDIATE.value,
    norm=_NORM.value,
  )
  fn, times = matmulfree.make(config), {}
  plan, qparams = _model(config, times)
  _say("record and place")
  start = time.perf_counter()
  graph = nmc.record(fn, plan, qparams)
  chips = nmc.chip.loihi2(chips=_CHIPS.value)
  placement = nmc.place(graph, chips, head="host")
  times["record and place"] = time.perf_counter() - start
  placed = placements.summary(placement)
  people = tables.console()
  people.print(placements.chip_table(placed))
  people.print(placements.limit_table(placed))

  check = _Comparison()
  draw = np.random.default_rng([_SEED.value, 2])
  prompt = draw.integers(0, config.vocab_size, _PREFILL.value, np.int32)
  inputs = {"ids": prompt}
  engine = nmc.loihi(fn, plan, placement)
  found, first, again = _timed("loihi prefill", lambda: engine(qparams, inputs))
  times["loihi prefill, compile"] = first - again
  times["loihi prefill, run"] = again
  step = jax.jit(nmc.fixed(fn, plan))
  expected, first, again = _timed(
    "fixed prefill", lambda: step(qparams, inputs)
  )
  times["fixed prefill, compile"] = first - again
  times["fixed prefill, run"] = again
  check.add("prefill", found[:2], expected)
  out, state, counters = found
  token = int(np.argmax(np.asarray(out.logits.q)[-1]))
  del found, expected, out

  alone = nmc.loihi(fn, plan, placement, mode="fall-through")
  more, fed, seconds = _decode(alone, step, qparams, state, token, check)
  for name, each in seconds.items():
    typical = statistics.median(each[1:] or each)
    times[f"{name} decode, compile"] = each[0] - typical
    times[f"{name} decode, a token"] = typical
  for one in more:
    counters = counters.merge(one)
  report = nmc.cost(counters, placement)
  if _WORKDIR.value:
    folder = pathlib.Path(_WORKDIR.value)
    folder.mkdir(parents=True, exist_ok=True)
    plan.save(folder / "plan.json")
  return {
    "experiment": "shape_370m",
    "config": dataclasses.asdict(config),
    "parameters": config.num_params,
    "seed": _SEED.value,
    "plan": plan.name,
    "weights": qparams.weights,
    "prefill": _PREFILL.value,
    "decode": _DECODE.value,
    "decoded_ids": fed,
    "equal": not check.different,
    "integers": check.integers,
    "different": check.different,
    "verdict": check.verdict,
    "host": {"label": "measured", "cores": os.cpu_count(), "seconds": times},
    "counters": {
      name: int(counters.total(name).sum()) for name in counters.names
    },
    "cost": dataclasses.asdict(report),
    "placement": placed,
    "versions": provenance.versions(),
    "total_seconds": time.perf_counter() - _START,
    "peak_memory_bytes": _peak_bytes(),
  }


def show(data: dict) -> None:
  """Prints the tables that follow the placement."""
  people = tables.console()
  people.print(data["verdict"], markup=False, soft_wrap=True)
  people.print()
  rows = [
    (f"{k}, s", v, "measured") for k, v in data["host"]["seconds"].items()
  ]
  rows.append(("all, s", data["total_seconds"], "measured"))
  rows.append(
    (
      f"peak resident memory (limit {tables.size(MEMORY_LIMIT)})",
      tables.size(data["peak_memory_bytes"]),
      "measured",
    )
  )
  columns = ("what", ">value", "label")
  title = (
    f"On this machine ({data['host']['cores']} cores):"
    f" {data['parameters']:,} parameters, {data['prefill']} + {data['decode']}"
    " tokens"
  )
  people.print(tables.table(title, columns, rows))
  people.print(tables.table("On the chips", columns, costs.singles(data)))
  people.print(
    tables.table(
      "What it costs on the chips", costs.PHASE_COLUMNS, costs.phases(data)
    )
  )
  for note in data["cost"]["notes"]:
    people.print(f"* {note}", markup=False)


def main() -> int:
  """Runs the script."""
  data = run()
  show(data)
  if _WORKDIR.value:
    files.write_json(f"{_WORKDIR.value}/result.json", data)
  files.write_json(_JSON.value, data)
  small = data["peak_memory_bytes"] < MEMORY_LIMIT
  if not small:
    print("error: the memory limit was exceeded", file=sys.stderr)
  return 0 if data["equal"] and small else 1


if __name__ == "__main__":
  script.start(main, _SMOKE_SIZES)
