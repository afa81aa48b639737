"""Which tests run a line, and how long each takes, for tools/mutate.py.

A folder holds what one run of the unchanged tests wrote: `coverage`, the lines
by test (pytest-cov with contexts), and `junit.xml`, the seconds.
"""

import collections
import dataclasses
import pathlib
import subprocess
import sys
from xml.etree import ElementTree as ET

_COVERAGE, _JUNIT = "coverage", "junit.xml"


@dataclasses.dataclass(frozen=True)
class Map:
  """Tests by line.

  Attributes:
    lines: file -> line -> ids of the tests that run it.
    seconds: test id -> seconds on the unchanged code.
  """

  lines: dict[str, dict[int, frozenset[str]]]
  seconds: dict[str, float]

  def covering(self, file: str, first: int, last: int) -> set[str]:
    """Tests that run one of the lines.

    What runs at import (a constant, a default) has no test of its own: then
    all tests that run anything in the file.
    """
    lines = self.lines.get(file, {})
    found = set().union(*(lines.get(i, ()) for i in range(first, last + 1)))
    return found or set().union(*lines.values())

  def neighbours(self, tests: set[str]) -> set[str]:
    """All tests in the files of `tests`.

    A fixture's lines, and those of a function that stays compiled, are only
    seen in the first test that gets there.
    """
    files = {_file(t) for t in tests}
    return {t for t in self.seconds if _file(t) in files}

  def within(self, tests: set[str], file: str, budget: float) -> list[str]:
    """Those of `tests` that take `budget` seconds, grouped by test file.

    The tests named after `file` come first, then those of its package, then
    others; among them the fastest.
    """
    package, stem = file.split("/")[-2:]

    def order(test: str):
      theirs = _file(test)
      named = theirs.endswith(f"/test_{stem}")
      near = theirs.startswith(f"tests/{package}/")
      return (not named, not near, self.seconds[test], test)

    chosen: dict[str, list[str]] = collections.defaultdict(list)
    for test in sorted(tests, key=order):
      budget -= self.seconds[test]
      if budget < 0 and chosen:
        break
      chosen[_file(test)].append(test)
    return [t for block in chosen.values() for t in block]


def _file(test: str) -> str:
  return test.split("::")[0]


def make(root: pathlib.Path, folder: pathlib.Path, workers: int) -> None:
  """Runs the tests that are not slow; they must pass."""
  folder.mkdir(parents=True, exist_ok=True)
  config = folder / "coveragerc"
  config.write_text(f"[run]\ndata_file = {(folder / _COVERAGE).resolve()}\n")
  command = [sys.executable, "-m", "pytest", "-q", "-n", str(workers)]
  command += ["--cov=jaxnmc", "--cov-context=test", "--cov-report=term"]
  command += [f"--cov-config={config}", f"--junitxml={folder / _JUNIT}"]
  subprocess.run(command, cwd=root, check=True)


def exists(folder: pathlib.Path) -> bool:
  """Whether `make` has been here."""
  return all((folder / name).exists() for name in (_COVERAGE, _JUNIT))


def read(folder: pathlib.Path) -> Map:
  """Reads the folder.

  Raises:
    ValueError: a test failed in it, so nothing would be shown by a failure.
  """
  import coverage

  seconds, failed = {}, []
  for case in ET.parse(folder / _JUNIT).iter("testcase"):
    key = f"{case.get('classname')}.{case.get('name')}"
    seconds[key] = float(case.get("time", 0))
    failed += [key] * any(
      case.find(x) is not None for x in ("failure", "error")
    )
  if failed:
    raise ValueError(f"{folder}: mend these tests first: {failed}")
  data = coverage.CoverageData(str(folder / _COVERAGE))
  data.read()
  known: dict[str, float] = {}
  lines: dict[str, dict[int, frozenset[str]]] = {}
  for path in data.measured_files():
    file = path[path.rindex("jaxnmc/", 0, path.rindex("/") + 1) :]
    table = {}
    for line, contexts in data.contexts_by_lineno(path).items():
      tests = {c.rpartition("|")[0] for c in contexts} - {""}
      table[line] = frozenset(t for t in tests if _key(t) in seconds)
      known |= {t: seconds[_key(t)] for t in table[line]}
    lines[file] = table
  return Map(lines, known)


def _key(test: str) -> str:
  """The name of a test in junit.xml."""
  file, *names = test.split("::")
  return ".".join([file.removesuffix(".py").replace("/", "."), *names])
