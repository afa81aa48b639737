"""Mutation test: do the tests notice a single flip in the integer code?

  python tools/mutate.py --count 200 --workers 2 --json mutants.json

Every mutant is one flip of one operator, comparison, constant or rounding in
jaxnmc/{numerics,ops,kernels,chip}. It is applied in a copy of the repository,
never in the working tree, and the tests mapped to its file run there: first
the specific ones, then (`--fallback`) the wider set. A failing test or a
timeout kills it. The sample is a shuffle of all places a flip fits, so every
prefix of it is a fair sample too; `--json` keeps results and a later call
goes on where this one stopped (it does not see that tests changed: use
another file then). What is in tools/mutate_equivalent.json computes the same
as the original and is left out; each entry says why.
"""

import json
import os
import pathlib
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import mutants

_COUNT = flags.DEFINE_integer("count", 200, "Mutants in the sample.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the sample.")
_FILES = flags.DEFINE_list("files", "*", "Only files matching a pattern.")
_SHARD = flags.DEFINE_string("shard", "0/1", "Part i of n of the sample, i/n.")
_WORKERS = flags.DEFINE_integer("workers", 1, "Mutants tested side by side.")
_MINUTES = flags.DEFINE_float("minutes", None, "Stop after so many minutes.")
_TIMEOUT = flags.DEFINE_float(
  "timeout", 60.0, "Seconds a mutant gets beyond 5 times the unchanged run."
)
_FALLBACK = flags.DEFINE_boolean(
  "fallback", True, "Run the wider tests on what the specific ones let live."
)
_JSON = flags.DEFINE_string("json", None, "Results; read to resume.")
_LIST = flags.DEFINE_boolean("list", False, "Print the sample, run nothing.")

ROOT = pathlib.Path(__file__).resolve().parent.parent
EQUIVALENT = ROOT / "tools" / "mutate_equivalent.json"

_N, _O, _C = "tests/numerics/test_", "tests/ops/test_", "tests/chip/test_"
# The first row whose beginning fits a file names its tests, fastest first.
SPECIFIC = (
  ("jaxnmc/numerics/wide", (_N + "wide.py",)),
  ("jaxnmc/numerics/rsqrt", (_N + "rsqrt.py",)),
  ("jaxnmc/numerics/sigmoid", (_N + "sigmoid.py", _N + "error_curves.py")),
  ("jaxnmc/numerics/formats", (_N + "formats.py",)),
  ("jaxnmc/numerics/ternary", (_N + "ternary.py",)),
  ("jaxnmc/numerics/ste", (_N + "ternary.py",)),
  ("jaxnmc/numerics/weights", (_N + "ternary.py", "tests/quantize")),
  ("jaxnmc/numerics", (_N + "values.py", _N + "bounds.py")),
  ("jaxnmc/kernels", ("tests/kernels",)),
  ("jaxnmc/ops", (_N + "bounds.py", _O + "limits.py", _O + "structure.py")),
  ("jaxnmc/chip/hardware", (_C + "hardware.py", _C + "placement.py")),
  ("jaxnmc/chip/systems", (_C + "hardware.py",)),
  ("jaxnmc/chip/placement", (_C + "placement.py",)),
  ("jaxnmc/chip/packing", (_C + "placement.py",)),
  ("jaxnmc/chip/cost", (_C + "cost.py",)),
  ("jaxnmc/chip/counters", (_C + "cost.py",)),
  ("jaxnmc/chip/energy", (_C + "cost.py",)),
  ("jaxnmc/chip/timing", (_C + "cost.py",)),
  ("jaxnmc/chip", (_C + "engines.py",)),
)
FALLBACK = (
  "tests/numerics",
  "tests/kernels",
  "tests/quantize",
  "tests/ops",
  "tests/chip",
  "tests/models/test_golden.py",
  "tests/models/test_laws.py",
)
_COPIED = ("jaxnmc", "tests", "tools", "experiments", "docs")


def tests_of(file: str) -> tuple[str, ...]:
  """The specific tests of `file`, in the order they run."""
  return next(tests for start, tests in SPECIFIC if file.startswith(start))


class Results:
  """Outcomes by mutant, on disk after every one of them."""

  def __init__(self, path: str | None):
    self._path = pathlib.Path(path) if path else None
    self._lock = threading.Lock()
    self.rows = {}
    if self._path and self._path.exists():
      self.rows = json.loads(self._path.read_text())["mutants"]

  def done(self, key: str) -> bool:
    """False also for a survivor that the fallback has not seen yet."""
    row = self.rows.get(key)
    if row is None:
      return False
    return row["outcome"] != "survived" or row["fallback"] >= _FALLBACK.value

  def add(self, key: str, row: dict) -> None:
    with self._lock:
      self.rows[key] = row
      if self._path:
        temp = self._path.with_name(self._path.name + ".tmp")
        temp.write_text(json.dumps({"mutants": self.rows}, indent=1) + "\n")
        os.replace(temp, self._path)


class Runner:
  """Runs tests in copies of the repository until the time is over."""

  def __init__(self, folder: pathlib.Path, deadline: float):
    self._folder = folder
    self.deadline = deadline
    self._usual: dict[tuple[str, ...], float] = {}
    self._lock = threading.Lock()
    self._locks: dict[tuple[str, ...], threading.Lock] = {}

  def copy(self, worker: int) -> pathlib.Path:
    """A fresh copy of the repository, with `shared` beside it if there."""
    home = self._folder / f"worker{worker}"
    tree = home / "tree"
    tree.mkdir(parents=True)
    ignore = shutil.ignore_patterns("__pycache__")
    for name in _COPIED:
      if (ROOT / name).is_dir():
        shutil.copytree(ROOT / name, tree / name, ignore=ignore)
    for path in ROOT.iterdir():
      if path.is_file():
        shutil.copy(path, tree)
    if (ROOT.parent / "shared").is_dir():
      (home / "shared").symlink_to(ROOT.parent / "shared")
    return tree

  def usual(self, tree: pathlib.Path, tests: tuple[str, ...]) -> float:
    """Seconds the tests take on the unchanged copy; they must pass."""
    with self._lock:
      lock = self._locks.setdefault(tests, threading.Lock())
    # Once for all workers; they find the compilation cache filled, too.
    with lock:
      if tests not in self._usual:
        start = time.monotonic()
        code, output = self.pytest(tree, tests, None)
        if code != 0:
          raise RuntimeError(
            f"{' '.join(tests)}: exit status {code} without any flip, must "
            f"be 0. Mend the tests first.\n{output[-2000:]}"
          )
        self._usual[tests] = time.monotonic() - start
    return self._usual[tests]

  def pytest(self, tree, tests, timeout) -> tuple[int | None, str]:
    """(exit status, output); the status is None after a timeout."""
    env = dict(os.environ)
    env.pop("PYTHONPATH", None)
    env["JAX_COMPILATION_CACHE_DIR"] = str(self._folder / "programs")
    env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    env["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "0"
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header"]
    command += ["-p", "no:cacheprovider", "--tb=line", *tests]
    left = self.deadline - time.monotonic()
    limit = left if timeout is None else min(timeout, left)
    if limit <= 0:
      raise TimeoutError
    with tempfile.TemporaryFile("w+") as out:
      child = subprocess.Popen(
        command,
        cwd=tree,
        env=env,
        stdout=out,
        stderr=subprocess.STDOUT,
        start_new_session=True,
      )
      try:
        code = child.wait(None if limit == float("inf") else limit)
      except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        if limit == left:  # our time is over, not the mutant's
          raise TimeoutError from None
        return None, ""
      out.seek(0)
      return code, out.read()

  def outcome(self, tree: pathlib.Path, mutant: mutants.Mutant) -> dict:
    """Applies the flip, runs the tests, takes the flip back."""
    path = tree / mutant.file
    source = path.read_text()
    start = time.monotonic()
    row = {"outcome": "survived", "by": "", "fallback": False}
    stages = [tests_of(mutant.file)] + [FALLBACK] * _FALLBACK.value
    for tests in stages:
      usual = self.usual(tree, tests)
      row["fallback"] = tests is FALLBACK
      try:
        _write(path, mutants.apply(source, mutant))
        code, output = self.pytest(tree, tests, 5 * usual + _TIMEOUT.value)
      finally:
        _write(path, source)
      if code is None:
        row.update(outcome="timeout", by=" ".join(tests))
      elif code == -signal.SIGKILL:
        # Memory ran out, most likely: that is no test noticing anything.
        row.update(outcome="error", by="killed from outside")
      elif code != 0:
        lines = [x for x in output.splitlines() if x.startswith(_FAILURE)]
        by = lines[0] if lines else f"exit status {code}"
        row.update(outcome="killed", by=by[:200])
      if row["outcome"] != "survived":
        break
    row["seconds"] = round(time.monotonic() - start, 1)
    return row


_FAILURE = ("FAILED", "ERROR")


def _write(path: pathlib.Path, source: str) -> None:
  """Writes and drops the bytecode: a flip within a second keeps size, time."""
  path.write_text(source)
  for old in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
    old.unlink()


def _sample() -> list[mutants.Mutant]:
  found = []
  for package in ("numerics", "ops", "kernels", "chip"):
    for path in sorted((ROOT / "jaxnmc" / package).glob("*.py")):
      file = path.relative_to(ROOT).as_posix()
      if path.name not in ("__init__.py", "figures.py"):
        found += mutants.find(path.read_text(), file)
  entries = json.loads(EQUIVALENT.read_text()) if EQUIVALENT.exists() else []
  found, unused = mutants.without(found, entries)
  for entry in unused:
    print(f"no such mutant any more: {entry}", file=sys.stderr)
  print(f"{len(found)} mutants, {len(entries) - len(unused)} equivalent")
  part, parts = map(int, _SHARD.value.split("/"))
  sample = mutants.sample(found, _COUNT.value, _SEED.value, _FILES.value)
  return sample[part::parts]


def _work(runner: Runner, worker: int, todo: queue.Queue, results: Results):
  """Takes from `todo`: test sets to run unchanged, then mutants."""
  try:
    tree = runner.copy(worker)
    while True:
      mutant = todo.get_nowait()
      if isinstance(mutant, tuple):
        runner.usual(tree, mutant)
        continue
      row = runner.outcome(tree, mutant)
      results.add(mutant.key, row)
      print(f"{row['outcome']:8} {row['seconds']:6.1f} s  {mutant}", flush=True)
  except (queue.Empty, TimeoutError):
    return
  except RuntimeError as error:
    print(error, file=sys.stderr, flush=True)
    runner.deadline = 0.0


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f"unknown arguments: {argv[1:]}")
  sample = _sample()
  if _LIST.value:
    for mutant in sample:
      print(mutant)
    return
  results = Results(_JSON.value)
  left = [m for m in sample if not results.done(m.key)]
  todo: queue.Queue = queue.Queue()
  # The unchanged runs first, so that no worker waits for another's.
  for item in [*dict.fromkeys(tests_of(m.file) for m in left), *left]:
    todo.put(item)
  minutes = _MINUTES.value
  deadline = time.monotonic() + 60 * minutes if minutes else float("inf")
  with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
    runner = Runner(pathlib.Path(folder), deadline)
    threads = [
      threading.Thread(target=_work, args=(runner, i, todo, results))
      for i in range(_WORKERS.value)
    ]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
  _report(sample, results)


def _report(sample: list[mutants.Mutant], results: Results) -> None:
  """Totals and every survivor of this sample."""
  rows = [(m, results.rows[m.key]) for m in sample if m.key in results.rows]
  counts = dict.fromkeys(("killed", "timeout", "survived", "error"), 0)
  for _, row in rows:
    counts[row["outcome"]] += 1
  judged = len(rows) - counts["error"]
  dead = counts["killed"] + counts["timeout"]
  share = f"{100 * dead / judged:.1f} %" if judged else "-"
  print(
    f"{judged} of {len(sample)} run: {dead} killed ({counts['timeout']} by "
    f"timeout), {counts['survived']} survived, {counts['error']} errors: "
    f"{share} killed"
  )
  for mutant, row in rows:
    if row["outcome"] == "survived":
      seen = "all tests" if row["fallback"] else "specific tests only"
      print(f"survivor ({seen}): {mutant}")


if __name__ == "__main__":
  app.run(main)
