"""Float parameters of a run to one plain npz and back (`io.trained`)."""

import os
import pathlib
from typing import Any

import jax
import numpy as np

from jaxnmc.io import trained
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
  leaves = {}
  for key, leaf in jax.tree_util.tree_leaves_with_path(params):
    name = jax.tree_util.keystr(key, simple=True, separator="/")
    leaves[name] = np.asarray(leaf)
  trained.write(path, leaves, meta)


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
