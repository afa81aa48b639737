"""The npz of a training run, as it lies on disk; and a folder with one.

Its arrays are `params/<path>`, one per leaf, the parts of its path joined by
`/`; and `meta`, JSON text: {"format": FORMAT, "config": ..., ...}.
"""

import json
import os
import pathlib
from typing import Any

import numpy as np

from jaxnmc.errors import CheckpointError
from jaxnmc.io import files

FORMAT = "jaxnmc-float-1"
FILES = ("best.npz", "final.npz")  # what a run leaves, the better one first
_PARAMS = "params/"


def write(
  path: str | os.PathLike,
  leaves: dict[str, np.ndarray],
  meta: dict[str, Any],
) -> None:
  """Writes leaves and metadata; the file appears whole or not at all.

  Args:
    path: file name.
    leaves: path, parts joined by `/` -> array of any shape and dtype.
    meta: JSON values.

  Raises:
    OSError: the system refuses.
  """
  arrays = {"meta": np.array(json.dumps({"format": FORMAT, **meta}))}
  arrays |= {_PARAMS + name: leaf for name, leaf in leaves.items()}
  # Float latents hardly compress, and a run saves often.
  files.write_bytes(path, files.npz_bytes(arrays, compressed=False))


def read(
  path: str | os.PathLike,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """Reads what `write` wrote: (leaves, meta).

  Raises:
    CheckpointError: missing, cut off, or another kind of file.
  """
  what = f"a {' or '.join(FILES)} of a training run"
  arrays = files.read_npz(path, str(path), what)
  try:
    meta = json.loads(str(arrays.pop("meta")))
    found = meta.get("format")
  except (KeyError, ValueError, AttributeError) as error:
    raise CheckpointError(
      f"{path}: no array 'meta' with JSON; allowed is {what}"
    ) from error
  if found != FORMAT:
    raise CheckpointError(
      f"{path}: found format {found!r}, allowed is {FORMAT!r}"
    )
  return {k.removeprefix(_PARAMS): v for k, v in arrays.items()}, meta


# Kind of a tokenizer -> the file that it is read from again.
_TOKENIZERS = {
  "bytes": "tokenizer.npz",
  "bpe": "tokenizer.npz",
  "hf": "tokenizer.json",
  "sentencepiece": "tokenizer.model",
}


def write_folder(
  folder: pathlib.Path,
  leaves: dict[str, np.ndarray],
  meta: dict[str, Any],
  tokenizer: Any,
) -> None:
  """Writes `final.npz` and the tokenizer into a folder that there is.

  Args:
    folder: where, e.g. of `files.new_folder`.
    leaves: as `write`.
    meta: as `write`.
    tokenizer: of `io.tokenizer`, or None for none.

  Raises:
    CheckpointError: a tokenizer of another kind.
    OSError: the system refuses.
  """
  write(folder / FILES[-1], leaves, meta)
  if tokenizer is None:
    return
  kind = getattr(tokenizer, "kind", None)
  if kind not in _TOKENIZERS:
    raise CheckpointError(
      f"tokenizer: found {type(tokenizer).__name__}, allowed are those of"
      f" jaxnmc.io.tokenizer ({', '.join(_TOKENIZERS)})"
    )
  name = folder / _TOKENIZERS[kind]
  if name.suffix == ".npz":
    tokenizer.save(name)
  else:
    files.write_bytes(name, tokenizer.serialized())
