"""How a script starts and ends: flags, sizes of `--smoke`, errors in a line."""

import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any

from absl import app, flags

from jaxnmc.errors import UserError

__all__ = ["start"]


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
