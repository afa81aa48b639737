"""Results to files or standard output; a file appears whole or not at all."""

import json
import math
import os
import pathlib
import sys
import tempfile
from typing import Any

from jaxnmc.errors import UserError
from jaxnmc.io import files


class OutputError(UserError):
  """A result cannot be written where it was asked for."""


def check_writable(path: str | None) -> None:
  """Refuses an impossible output file before the work is done.

  Args:
    path: a file name, "-" for standard output, or None for no output.

  Raises:
    OutputError: its folder does not exist or takes no file, or it is a folder
      itself.
  """
  if path is None or path == "-" or _is_device(path):
    return
  target = pathlib.Path(path)
  if os.path.isdir(path):
    raise OutputError(f"{path}: is a folder; name a file in it")
  if not os.path.isdir(target.parent):
    raise OutputError(
      f"{path}: the folder {target.parent} does not exist; make it first"
    )
  try:
    # The same name and place as the temporary file of the result.
    with tempfile.NamedTemporaryFile(
      dir=target.parent, prefix=f".{target.name}{files.PARTIAL}"
    ):
      pass
  except (OSError, ValueError) as error:
    raise OutputError(
      f"{path}: cannot be written ({error}); name another file"
    ) from error


def check_folder(path: str) -> None:
  """Refuses an impossible output folder before the work is done.

  Args:
    path: a folder, or a new name in one.

  Raises:
    OutputError: it is a file, takes no file, or its parent does not exist.
  """
  target = pathlib.Path(path)
  if os.path.isdir(path):
    check_writable(str(target / "x"))
  elif os.path.exists(path):
    raise OutputError(f"{path}: is no folder; name a folder")
  else:
    check_writable(path)


def make_folder(path: str) -> pathlib.Path:
  """The folder, made where it is not there yet (its parent has to be).

  Raises:
    OutputError: the system refuses.
  """
  try:
    pathlib.Path(path).mkdir(exist_ok=True)
  except OSError as error:
    raise OutputError(
      f"{path}: cannot be made ({error.strerror}); name another folder"
    ) from error
  return pathlib.Path(path)


def _is_device(path: str) -> bool:
  """A pipe or device (/dev/null): written to, never replaced by a file."""
  return os.path.exists(path) and not (
    os.path.isfile(path) or os.path.isdir(path)
  )


def write_text(path: str, text: str) -> None:
  """Writes a text file; errors as of `write_bytes`."""
  write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str, data: bytes) -> None:
  """Writes a file.

  Raises:
    OutputError: the system refuses.
  """
  try:
    if _is_device(path):
      pathlib.Path(path).write_bytes(data)
    else:
      # A link stays one: what it points to is replaced.
      files.write_bytes(os.path.realpath(path), data)
  except OSError as error:
    raise OutputError(
      f"{path}: cannot be written ({error.strerror}); name another file"
    ) from error


def plain(value: Any) -> Any:
  """A value as JSON knows it: arrays to lists, no NaN or infinity."""
  if hasattr(value, "tolist"):
    value = value.tolist()
  if isinstance(value, dict):
    return {str(k): plain(v) for k, v in value.items()}
  if isinstance(value, list | tuple | set | frozenset):
    return [plain(v) for v in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  if value is None or isinstance(value, bool | int | float | str):
    return value
  return str(value)


def write_json(path: str | None, data: Any, indent: int | None = 1) -> None:
  """Writes JSON to a file, to standard output for "-", nowhere for None.

  Raises:
    OutputError: the system refuses.
  """
  if path is None:
    return
  text = json.dumps(plain(data), indent=indent, allow_nan=False) + "\n"
  if path == "-":
    sys.stdout.write(text)
    sys.stdout.flush()
  else:
    write_text(path, text)
