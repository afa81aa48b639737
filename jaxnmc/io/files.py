"""Files and folders that appear whole or not at all, and plain readers."""

import contextlib
import hashlib
import io
import json
import os
import pathlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxnmc.errors import CheckpointError

# What a folder is called while it is being written.
PARTIAL = ".partial-"


@contextlib.contextmanager
def new_folder(
  path: str | os.PathLike, overwrite: bool = False
) -> Iterator[pathlib.Path]:
  """A folder to write into that gets its name once everything is in it.

  Args:
    path: the final name; must not exist, or be an empty folder.
    overwrite: replace an existing folder; the old one is kept until the new
      one is complete.

  Yields:
    The temporary folder, beside the final one.

  Raises:
    CheckpointError: the name is taken, or its parent is no folder.
  """
  target = pathlib.Path(path)
  taken = target.exists() and not (
    target.is_dir() and not any(target.iterdir())
  )
  if taken and (not overwrite or not target.is_dir()):
    raise CheckpointError(
      f"{target}: exists already; allowed is a new name (or overwrite=True"
      " for a folder)"
    )
  if not target.parent.is_dir():
    raise CheckpointError(
      f"{target}: its parent folder does not exist; make {target.parent} first"
    )
  work = pathlib.Path(
    tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}{PARTIAL}")
  )
  try:
    yield work
    work.chmod(0o755)
    if taken:
      old = work.with_name(work.name + ".old")
      os.replace(target, old)
      try:
        os.replace(work, target)
      except BaseException:
        os.replace(old, target)
        raise
      shutil.rmtree(old)
    else:
      os.replace(work, target)
  except BaseException:
    shutil.rmtree(work, ignore_errors=True)
    raise


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
  """Writes a file; it appears whole or not at all.

  Raises:
    OSError: the system refuses.
  """
  target = pathlib.Path(path)
  handle, temporary = tempfile.mkstemp(
    dir=target.parent, prefix=f".{target.name}{PARTIAL}"
  )
  try:
    with os.fdopen(handle, "wb") as file:
      file.write(data)
      file.flush()
      os.fsync(file.fileno())
    os.chmod(temporary, 0o644)
    os.replace(temporary, target)
  except BaseException:
    pathlib.Path(temporary).unlink(missing_ok=True)
    raise


def npz_bytes(
  arrays: Mapping[str, np.ndarray], compressed: bool = True
) -> bytes:
  """The bytes of an npz; equal arrays give equal bytes.

  Args:
    arrays: name -> array of any shape and dtype, no Python objects.
    compressed: with zlib.

  Raises:
    ValueError: an array holds Python objects.
  """
  buffer = io.BytesIO()
  write = np.savez_compressed if compressed else np.savez
  write(buffer, allow_pickle=False, **arrays)
  return buffer.getvalue()


def read_npz(source: Any, name: str, what: str) -> dict[str, np.ndarray]:
  """Reads every array of an npz.

  Args:
    source: path, or open binary file.
    name: what to call it in messages.
    what: what was expected, for messages.

  Returns:
    Name -> array, as stored.

  Raises:
    CheckpointError: missing, cut off, damaged, or holds Python objects.
  """
  try:
    file = np.load(source, allow_pickle=False)
    if isinstance(file, np.ndarray):
      raise CheckpointError(f"{name}: a single array, allowed is {what}")
    with file:
      return {key: file[key] for key in file.files}
  except FileNotFoundError as error:
    raise CheckpointError(f"{name}: no such file; allowed is {what}") from error
  except CheckpointError:
    raise
  except Exception as error:
    # Damage shows as one of many errors of zipfile, zlib and numpy.
    if not isinstance(
      error, OSError | ValueError | EOFError | KeyError | zipfile.BadZipFile
    ) and type(error).__module__ not in ("zlib", "struct"):
      raise
    raise CheckpointError(
      f"{name}: not readable ({error}); allowed is {what}; the file may be cut"
      " off or damaged: copy it again"
    ) from error


def read_json(path: Any, what: str) -> dict[str, Any]:
  """Reads a JSON object.

  Args:
    path: a path, or a resource with `read_text`.
    what: what was expected, for messages.

  Returns:
    The object.

  Raises:
    CheckpointError: missing, not JSON, or no object.
  """
  source = pathlib.Path(path) if isinstance(path, str) else path
  try:
    data = json.loads(source.read_text(encoding="utf-8"))
  except FileNotFoundError as error:
    raise CheckpointError(f"{path}: no such file; allowed is {what}") from error
  except (OSError, ValueError, RecursionError) as error:
    raise CheckpointError(
      f"{path}: not readable as JSON ({error}); allowed is {what}; the file may"
      " be cut off: copy it again"
    ) from error
  if not isinstance(data, dict):
    raise CheckpointError(
      f"{path}: found a JSON {type(data).__name__}, allowed is an object"
      f" ({what})"
    )
  return data


def sha256(data: bytes) -> str:
  """SHA-256 as hex."""
  return hashlib.sha256(data).hexdigest()


def write_json(path: str | os.PathLike, data: Any) -> None:
  """Writes JSON with sorted keys; the file appears whole or not at all.

  Raises:
    OSError: the system refuses.
    TypeError: no JSON value.
  """
  text = json.dumps(data, indent=2, sort_keys=True) + "\n"
  write_bytes(path, text.encode("utf-8"))
