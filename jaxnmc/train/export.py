"""Float parameters to one plain npz, or a folder, and back (`io.trained`)."""

import os
import pathlib
from typing import Any

import jax
import numpy as np

from jaxnmc.io import trained
from jaxnmc.models import families
from jaxnmc.models.model import Model
from jaxnmc.models.parameters import build

FORMAT = trained.FORMAT


def save(path: str | os.PathLike, params: Any, meta: dict[str, Any]) -> None:
  """Writes parameters and metadata; the file appears whole or not at all.

  A leaf at params["layers"][0]["norm"] becomes the array `layers/0/norm`.

  Args:
    path: file name.
    params: nested dicts and lists of arrays.
    meta: JSON values.

  Raises:
    OSError: the system refuses.
  """
  trained.write(path, _leaves(params), meta)


def save_folder(
  folder: pathlib.Path, model: Model, more: dict[str, Any]
) -> None:
  """Writes a model into a folder that `jaxnmc.load` takes.

  Args:
    folder: an empty one that there is, e.g. of `io.files.new_folder`.
    model: its config, float parameters and tokenizer; no plan.
    more: JSON values that stand beside the config.

  Raises:
    CheckpointError: a tokenizer that cannot be written.
    OSError: the system refuses.
  """
  meta = {**more, "config": families.to_json(model.config)}
  trained.write_folder(folder, _leaves(model.params), meta, model.tokenizer)


def _leaves(params: Any) -> dict[str, np.ndarray]:
  """Arrays by path, `layers/0/norm`."""
  return {
    jax.tree_util.keystr(key, simple=True, separator="/"): np.asarray(leaf)
    for key, leaf in jax.tree_util.tree_leaves_with_path(params)
  }


def remove_unfinished(folder: str | os.PathLike) -> None:
  """Removes what a killed `save` left under its temporary names."""
  for path in pathlib.Path(folder).glob(".*.npz.*"):
    path.unlink(missing_ok=True)


def load(path: str | os.PathLike) -> tuple[Any, dict[str, Any]]:
  """Reads what `save` wrote: (params, meta); arrays are NumPy's.

  Raises:
    CheckpointError: missing, cut off, or another kind of file.
  """
  leaves, meta = trained.read(path)
  return build(leaves, "/"), meta
