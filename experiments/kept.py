"""Work that is done once: kept in a folder, found again by the next run."""

import json
import pathlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from jaxnmc.errors import UserError
from jaxnmc.io.files import write_bytes
from jaxnmc.report.files import make_folder

_DONE, _BEGUN = "stage.json", "settings.json"


class StageError(UserError):
  """A folder belongs to another run."""


def once(
  place: pathlib.Path,
  settings: Mapping[str, Any],
  work: Callable[[pathlib.Path], Any],
  head: str,
) -> Any:
  """What some work found: now, or in a run before.

  Args:
    place: its folder, which may hold what a stopped run left.
    settings: what it depends on (flags, hashes), as JSON values.
    work: takes the folder and returns JSON values.
    head: what the display says of it.

  Raises:
    StageError: the folder has the work, done with other settings.
  """
  done, begun = place / _DONE, place / _BEGUN
  asked = json.loads(json.dumps(settings))
  for path in (done, begun):
    if path.exists():
      _same(path, asked)
  if done.exists():
    say(f"{head}: done before")
    return json.loads(done.read_text())["result"]
  make_folder(str(place))
  write_bytes(begun, json.dumps({"settings": asked}).encode())
  say(f"{head} ...")
  start = time.monotonic()
  found = json.loads(json.dumps(work(place)))
  text = json.dumps({"settings": asked, "result": found}, indent=1)
  write_bytes(done, text.encode())
  say(f"{head}: {time.monotonic() - start:,.0f} s")
  return found


def _same(path: pathlib.Path, asked: dict[str, Any]) -> None:
  try:
    found = json.loads(path.read_text())["settings"]
  except (ValueError, KeyError, TypeError) as error:
    raise StageError(
      f"{path}: is no file of a stage ({error}); remove {path.parent}, and"
      " the stage is done again"
    ) from error
  for key in asked | found:
    if found.get(key) != asked.get(key):
      raise StageError(
        f"{path.parent}: was made with {key} {found.get(key)}, now it is"
        f" {asked.get(key)}; give the same, or another --workdir, or remove"
        " the folder and those after it"
      )


def say(line: str) -> None:
  """A line of progress."""
  print(line, file=sys.stderr, flush=True)
