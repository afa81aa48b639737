"""Training checkpoints: orbax behind one door.

A checkpoint is one folder `<step>` that appears by a rename, so a process
killed while it writes leaves the older ones as they were. Each carries a
digest of its arrays and the fingerprint of its run (config, data, recipe); a
checkpoint that is damaged is set aside, one of another run is refused.
"""

import contextlib
import hashlib
import logging
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxnmc.errors import CheckpointError

State = Any
_log = logging.getLogger(__name__)


def digest(tree: State) -> str:
  """Returns a hash of all leaves, their paths, dtypes and shapes."""
  result = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    array = np.asarray(leaf)
    name = f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}"
    result.update(name.encode())
    result.update(np.ascontiguousarray(array).tobytes())
  return result.hexdigest()


class Checkpoints:
  """The checkpoints of one run.

  Attributes:
    root: the folder that holds one folder per step.
  """

  def __init__(
    self,
    directory: str | os.PathLike,
    fingerprint: dict[str, Any],
    keep: int = 2,
  ):
    """Opens or makes the folder.

    Args:
      directory: the run's work folder; checkpoints go to `checkpoints` in it.
      fingerprint: JSON values that a checkpoint must share to be continued.
      keep: how many of the newest stay.
    """
    import orbax.checkpoint as ocp

    self._ocp = ocp
    self._fingerprint = fingerprint
    base = pathlib.Path(directory).resolve()
    self.root = base / "checkpoints"
    self._aside = base / "damaged"
    self.root.mkdir(parents=True, exist_ok=True)
    self._remove_unfinished()
    options = ocp.CheckpointManagerOptions(
      max_to_keep=keep, enable_async_checkpointing=False, create=True
    )
    with _quiet():
      self._manager = ocp.CheckpointManager(
        self.root,
        options=options,
        item_names=("state", "meta"),
      )

  def _remove_unfinished(self) -> None:
    # What a killed writer left under its temporary name was never a
    # checkpoint: nothing is lost with it.
    for folder in self.root.iterdir():
      if ".orbax-checkpoint-tmp" in folder.name:
        _log.warning("%s: unfinished checkpoint, removed", folder)
        shutil.rmtree(folder, ignore_errors=True)

  def save(self, step: int, state: State, extra: dict[str, Any]) -> None:
    """Writes one checkpoint; it is on disk, whole, when this returns."""
    ocp = self._ocp
    if step in self._manager.all_steps():
      return
    meta = {
      "digest": digest(state),
      "fingerprint": self._fingerprint,
      "extra": extra,
    }
    with _quiet():
      self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)
        ),
      )
      self._manager.wait_until_finished()

  def restore(self, template: State) -> tuple[State, dict[str, Any]] | None:
    """Returns (state, extra) of the newest sound checkpoint, or None.

    A damaged checkpoint is moved to `damaged/` with a warning, and the one
    before it is taken.

    Args:
      template: a state of the right structure, shapes, dtypes and shardings.

    Raises:
      CheckpointError: the newest belongs to another run, or none is sound.
    """
    steps = sorted(self._manager.all_steps(), reverse=True)
    for step in steps:
      try:
        restored, meta = self._read(step, template)
      except _Damaged as error:
        target = self._set_aside(step)
        _log.warning(
          "%s: damaged checkpoint (%s), moved to %s",
          self.root / str(step),
          error,
          target,
        )
        continue
      return restored, meta["extra"]
    if steps:
      raise CheckpointError(
        f"{self.root}: none of the checkpoints {steps} can be read; they are "
        f"kept in {self._aside}; restore one of them from a copy, or start "
        "again with another --workdir"
      )
    return None

  def _read(self, step: int, template: State) -> tuple[State, dict[str, Any]]:
    ocp = self._ocp
    try:
      with _quiet():
        meta = self._manager.restore(
          step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())
        )["meta"]
      found = meta["fingerprint"]
    except Exception as error:  # orbax raises many kinds
      raise _Damaged(str(error).split("\n")[0]) from error
    self._check(step, found)
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
    try:
      with _quiet():
        state = self._manager.restore(
          step,
          args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)),
        )["state"]
    except Exception as error:
      raise _Damaged(str(error).split("\n")[0]) from error
    if digest(state) != meta["digest"]:
      raise _Damaged("its arrays do not have the digest they were saved with")
    return state, meta

  def _check(self, step: int, found: dict[str, Any]) -> None:
    wanted = self._fingerprint
    names = sorted(set(found) | set(wanted))
    bad = [n for n in names if _given(found.get(n)) != _given(wanted.get(n))]
    if bad:
      said = "; ".join(
        f"{n}: checkpoint {found.get(n)!r}, now {wanted.get(n)!r}" for n in bad
      )
      raise CheckpointError(
        f"{self.root / str(step)}: belongs to another run ({said}); continue "
        "with the same flags and text, or choose another --workdir"
      )

  def _set_aside(self, step: int) -> pathlib.Path:
    self._aside.mkdir(exist_ok=True)
    target, number = self._aside / str(step), 0
    while target.exists():
      number += 1
      target = self._aside / f"{step}.{number}"
    os.replace(self.root / str(step), target)
    with _quiet():
      self._manager.reload()
    return target

  def close(self) -> None:
    """Releases orbax's threads."""
    with _quiet():
      self._manager.close()


class _Damaged(Exception):
  """A checkpoint cannot be read back as it was written."""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Keeps orbax's own progress notes out of the run's log."""
  logger = logging.getLogger("absl")
  level = logger.level
  logger.setLevel(logging.ERROR)
  try:
    yield
  finally:
    logger.setLevel(level)


def _given(value: Any) -> Any:
  """Without fields that are None: a config of an older version lacks them."""
  if not isinstance(value, dict):
    return value
  return {k: x for k, x in value.items() if x is not None}
