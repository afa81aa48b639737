"""Stages of a run, one after the other, each kept in its folder."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import kept

from jaxnmc.models import families, gpt
from jaxnmc.train import export

_MODEL = "model.npz"


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
    head = f"[{number}/{self.total}] {name}"
    self.results[name] = kept.once(place, self._settings, work, head)
    return self.results[name]

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
