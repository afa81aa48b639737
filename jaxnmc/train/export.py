"""Float parameters as one plain npz: flattened paths, JSON metadata."""

import json
import os
import pathlib
from typing import Any

import jax
import numpy as np

from jaxnmc.errors import CheckpointError
from jaxnmc.io import files

FORMAT = "jaxnmc-float-1"


def save(path: str | os.PathLike, params: Any, meta: dict[str, Any]) -> None:
  """Writes parameters and metadata; the file appears whole or not at all.

  A leaf at params["layers"][0]["norm"] becomes the array `layers/0/norm`; the
  metadata is the JSON text in the array `meta`.
  """
  arrays = {"meta": np.array(json.dumps({"format": FORMAT, **meta}))}
  for key, leaf in jax.tree_util.tree_leaves_with_path(params):
    name = "/".join(str(getattr(k, "key", getattr(k, "idx", k))) for k in key)
    arrays[f"params/{name}"] = np.asarray(leaf)
  # Float latents hardly compress, and a run saves often.
  files.write_bytes(path, files.npz_bytes(arrays, compressed=False))


def remove_unfinished(folder: str | os.PathLike) -> None:
  """Removes what a killed `save` left under its temporary names."""
  for path in pathlib.Path(folder).glob(".*.npz.*"):
    path.unlink(missing_ok=True)


def load(path: str | os.PathLike) -> tuple[Any, dict[str, Any]]:
  """Reads what `save` wrote: (params, meta).

  Raises:
    CheckpointError: missing, cut off, or another kind of file.
  """
  what = "a final.npz or best.npz of a training run"
  arrays = files.read_npz(path, str(path), what)
  try:
    meta = json.loads(str(arrays.pop("meta")))
  except (KeyError, ValueError) as error:
    raise CheckpointError(
      f"{path}: no metadata ({error}); allowed is {what}"
    ) from error
  if meta.get("format") != FORMAT:
    raise CheckpointError(
      f"{path}: found format {meta.get('format')!r}, allowed is {FORMAT!r}"
    )
  tree: dict[str, Any] = {}
  for name, array in arrays.items():
    *parents, last = name.split("/")[1:]
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[last] = array
  return _lists(tree), meta


def _lists(node: Any) -> Any:
  """Turns {"0": a, "1": b} back into [a, b], all the way down."""
  if not isinstance(node, dict):
    return node
  if node and all(key.isdigit() for key in node):
    return [_lists(node[str(k)]) for k in range(len(node))]
  return {key: _lists(value) for key, value in node.items()}
