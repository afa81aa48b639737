"""How a script starts and ends: flags, `--smoke`, errors in a line, outputs."""

import functools
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from absl import app, flags

from jaxnmc.errors import UserError
from jaxnmc.report import files, plots

__all__ = ["start", "study"]


def start(
  main: Callable[[], int | None], smoke: Mapping[str, Any] | None = None
) -> None:
  """Parses the flags, runs a script and ends the process.

  Exit status: what `main` returns (None is 0), or 2 where the input cannot be
  used; standard error then has one line that says why.

  Args:
    main: the script.
    smoke: values of flags for `--smoke`, but of those that were given.
  """
  app.run(functools.partial(_run, main, dict(smoke or {})))


def study(
  run: Callable[[], Any],
  tables: Callable[[Any], None],
  path: str | None,
  folder: str | None = None,
  plot: Callable[[Any, str], Iterable[Any]] = lambda found, folder: (),
) -> None:
  """Runs a study and says what came out.

  What cannot be written is refused before the work.

  Args:
    run: does it; returns what came out, ready for JSON.
    tables: prints it.
    path: of --json, or None.
    folder: for plots, or None.
    plot: draws into the folder; returns the files.
  """
  files.check_writable(path)
  if folder is not None:
    plots.check(folder)
  found = run()
  files.write_json(path, found)
  tables(found)
  if folder is not None:
    for picture in plot(found, folder):
      print(picture)


def _run(
  main: Callable[[], int | None], smoke: dict[str, Any], argv: list[str]
) -> None:
  if len(argv) > 1:
    raise app.UsageError(f"unknown arguments: {argv[1:]}")
  if smoke and flags.FLAGS["smoke"].value:
    for name, value in smoke.items():
      if not flags.FLAGS[name].present:
        flags.FLAGS[name].value = value
  try:
    status = main()
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
  sys.exit(status or 0)
