"""Stages of a run: each is done once, kept, and found again by the next run."""

import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from jaxnmc.errors import UserError
from jaxnmc.io.files import write_bytes
from jaxnmc.models import families, gpt
from jaxnmc.report.files import make_folder
from jaxnmc.train import export

_DONE = "stage.json"
_MODEL = "model.npz"


class StageError(UserError):
  """A folder belongs to another run."""


@dataclasses.dataclass
class Run:
  """A folder of stages.

  Attributes:
    folder: of all stages.
    total: how many stages there will be, for the display.
    results: what each stage found, by name, in order.
  """

  folder: pathlib.Path
  total: int
  results: dict[str, Any] = dataclasses.field(default_factory=dict)
  _settings: dict[str, Any] = dataclasses.field(default_factory=dict)

  def stage(
    self,
    name: str,
    settings: Mapping[str, Any],
    work: Callable[[pathlib.Path], Any],
  ) -> Any:
    """What a stage found: by its work, or by that of a run before.

    A stage depends on its own settings and on those of all stages before it.

    Args:
      name: its folder's.
      settings: flags that it reads, as JSON values.
      work: takes its folder, which may hold what a stopped run left; returns
        JSON values.

    Raises:
      StageError: the folder has the stage, done with other settings.
    """
    number = len(self.results) + 1
    self._settings |= settings
    place = self.folder / f"{number:02}-{name}"
    done, head = place / _DONE, f"[{number}/{self.total}] {name}"
    asked = json.loads(json.dumps(self._settings))
    begun = place / "settings.json"
    for kept in (done, begun):
      if kept.exists():
        self._same(kept, asked)
    if done.exists():
      found = json.loads(done.read_text())["result"]
      _say(f"{head}: done before")
    else:
      make_folder(str(place))
      write_bytes(begun, json.dumps({"settings": asked}).encode())
      _say(f"{head} ...")
      start = time.monotonic()
      found = json.loads(json.dumps(work(place)))
      text = json.dumps({"settings": asked, "result": found}, indent=1)
      write_bytes(done, text.encode())
      _say(f"{head}: {time.monotonic() - start:,.0f} s")
    self.results[name] = found
    return found

  def _same(self, path: pathlib.Path, asked: dict[str, Any]) -> None:
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
          f"{path.parent}: was made with --{key} {found.get(key)}, now it is"
          f" {asked.get(key)}; give the same, or another --workdir, or remove"
          " the folder and those after it"
        )

  def place(self, name: str) -> pathlib.Path:
    """The folder of a stage that was done."""
    return self.folder / f"{list(self.results).index(name) + 1:02}-{name}"

  def model(self, name: str) -> tuple[gpt.Config, Any]:
    """(config, params) that a stage kept."""
    path = self.place(name) / _MODEL
    params, meta = export.load(path)
    return families.from_json(meta["config"], str(path)), params


def keep(place: pathlib.Path, config: gpt.Config, params: Any) -> None:
  """Writes the model of a stage."""
  export.save(place / _MODEL, params, {"config": families.to_json(config)})


def _say(line: str) -> None:
  print(line, file=sys.stderr, flush=True)
