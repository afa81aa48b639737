"""Mutation test: do the tests notice a single flip in the integer code?

  python tools/mutate.py --count 200 --workers 2 --json mutants.json

Every mutant is one flip of one operator, comparison, constant or rounding in
jaxnmc/{numerics,ops,kernels,chip}. It is applied in a copy of the repository,
never in the working tree, and the tests that run the flipped line run there,
those named after the file first: as many as take `--budget` seconds, and if
all pass, their neighbours in the same files for three times as long. A failing
test or a timeout kills it. Which tests run a line is measured once on the
unchanged code and kept in the folder `--map`.

The sample is a shuffle of all places a flip fits, so every prefix of it is a
fair sample too; `--json` keeps results and a later call goes on where this one
stopped (it does not see that tests changed: use another file then). What is in
tools/mutate_equivalent.json computes the same as the original and is left out;
each entry says why.
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
import mutate_map

_COUNT = flags.DEFINE_integer("count", 200, "Mutants in the sample.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the sample.")
_FILES = flags.DEFINE_list("files", "*", "Only files matching a pattern.")
_SHARD = flags.DEFINE_string("shard", "0/1", "Part i of n of the sample, i/n.")
_WORKERS = flags.DEFINE_integer("workers", 1, "Mutants tested side by side.")
_MINUTES = flags.DEFINE_float("minutes", None, "Stop after so many minutes.")
_BUDGET = flags.DEFINE_float(
  "budget", 40.0, "Seconds of tests a mutant gets first, as in the map."
)
_TIMEOUT = flags.DEFINE_float(
  "timeout", 60.0, "Seconds a mutant gets beyond 4 times those of its tests."
)
_MAP = flags.DEFINE_string(
  "map", "build/mutate-map", "Folder: tests by line; made when not there."
)
_JSON = flags.DEFINE_string("json", None, "Results; read to resume.")
_LIST = flags.DEFINE_boolean("list", False, "Print the sample, run nothing.")

ROOT = pathlib.Path(__file__).resolve().parent.parent
EQUIVALENT = ROOT / "tools" / "mutate_equivalent.json"

_COPIED = ("jaxnmc", "tests", "tools", "experiments", "docs")


class Results:
  """Outcomes by mutant, on disk after every one of them."""

  def __init__(self, path: str | None):
    self._path = pathlib.Path(path) if path else None
    self._lock = threading.Lock()
    self.rows = {}
    if self._path and self._path.exists():
      self.rows = json.loads(self._path.read_text())["mutants"]

  def add(self, key: str, row: dict) -> None:
    with self._lock:
      self.rows[key] = row
      if self._path:
        temp = self._path.with_name(self._path.name + ".tmp")
        temp.write_text(json.dumps({"mutants": self.rows}, indent=1) + "\n")
        os.replace(temp, self._path)


class Runner:
  """Runs tests in copies of the repository until the time is over."""

  def __init__(
    self, folder: pathlib.Path, tests: mutate_map.Map, deadline: float
  ):
    self._folder, self._map, self._deadline = folder, tests, deadline

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

  def pytest(self, tree, tests, timeout) -> tuple[int | None, str]:
    """(exit status, output); the status is None after a timeout."""
    env = dict(os.environ)
    env.pop("PYTHONPATH", None)
    env["JAX_COMPILATION_CACHE_DIR"] = str(self._folder / "programs")
    env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    env["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "0"
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header"]
    command += ["-p", "no:cacheprovider", "--tb=line", *tests]
    left = self._deadline - time.monotonic()
    limit = min(timeout, left)
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

  def _stages(self, mutant: mutants.Mutant):
    """Tests to run, and then those to run if none of them fails."""
    covering = self._map.covering(mutant.file, mutant.line, mutant.last)
    first = self._map.within(covering, mutant.file, _BUDGET.value)
    yield first
    rest = self._map.neighbours(covering) - set(first)
    yield self._map.within(rest, mutant.file, 3 * _BUDGET.value)

  def outcome(self, tree: pathlib.Path, mutant: mutants.Mutant) -> dict:
    """Applies the flip, runs the tests, takes the flip back."""
    path = tree / mutant.file
    source = path.read_text()
    start = time.monotonic()
    row = {"outcome": "survived", "by": "", "tests": 0}
    for tests in self._stages(mutant):
      if not tests or row["outcome"] != "survived":
        break
      row["tests"] += len(tests)
      usual = sum(self._map.seconds[t] for t in tests)
      try:
        _write(path, mutants.apply(source, mutant))
        code, output = self.pytest(tree, tests, 4 * usual + _TIMEOUT.value)
      finally:
        _write(path, source)
      if code is None:
        row.update(outcome="timeout", by=" ".join(tests)[:200])
      elif code == -signal.SIGKILL:
        # Memory ran out, most likely: that is no test noticing anything.
        row.update(outcome="error", by="killed from outside")
      elif "ERROR: not found" in output and "ERROR tests" not in output:
        # The flip renamed a case of a test: nothing has been run.
        row.update(outcome="error", by="no such test")
      elif code != 0:
        lines = [x for x in output.splitlines() if x.startswith(_FAILURE)]
        by = lines[0] if lines else f"exit status {code}"
        row.update(outcome="killed", by=by[:200])
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
    for path in sorted((ROOT / "jaxnmc" / package).rglob("*.py")):
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
  """Takes mutants from `todo` until it is empty or the time is over."""
  tree = runner.copy(worker)
  try:
    while True:
      mutant = todo.get_nowait()
      row = runner.outcome(tree, mutant)
      results.add(mutant.key, row)
      print(f"{row['outcome']:8} {row['seconds']:6.1f} s  {mutant}", flush=True)
  except (queue.Empty, TimeoutError):
    return


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f"unknown arguments: {argv[1:]}")
  sample = _sample()
  if _LIST.value:
    for mutant in sample:
      print(mutant)
    return
  where = pathlib.Path(_MAP.value)
  if not mutate_map.exists(where):
    print(f"running all tests once; which run a line goes to {where}")
    mutate_map.make(ROOT, where, _WORKERS.value)
  tests = mutate_map.read(where)
  results = Results(_JSON.value)
  todo: queue.Queue = queue.Queue()
  for mutant in sample:
    if mutant.key not in results.rows:
      todo.put(mutant)
  minutes = _MINUTES.value
  deadline = time.monotonic() + 60 * minutes if minutes else float("inf")
  with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
    runner = Runner(pathlib.Path(folder), tests, deadline)
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
      print(f"survivor of {row['tests']} tests: {mutant}")


if __name__ == "__main__":
  app.run(main)
