"""NIR files: HDF5, through the `nir` package."""

import os
import pathlib
from typing import Any

from jaxnmc._extras import need
from jaxnmc.errors import CheckpointError

__all__ = ["read", "write"]


def read(path: str | os.PathLike) -> Any:
  """Reads a file.

  Nothing is added to the graph: a missing Input stays missing, and
  `import_circuit` says so.

  Args:
    path: of the file.

  Returns:
    A `nir.NIRGraph`.

  Raises:
    MissingExtra: `nir` is not installed.
    CheckpointError: there is no such file, it is cut off or no NIR file, or
      has a node that the installed `nir` does not know.
  """
  nir = need("nir", "nir", "reading a NIR file")
  where = pathlib.Path(path)
  if not where.is_file():
    raise CheckpointError(f"{where}: there is no such file; give a NIR file")
  try:
    return nir.read(where, type_check=False)
  except Exception as error:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    raise CheckpointError(
      f"{where}: this is no NIR file, it is cut off, or it has a node that"
      f" nir {nir.__version__} does not know"
      f" ({type(error).__name__}: {reason}); write it again with the tool it"
      " came from"
    ) from error


def write(path: str | os.PathLike, graph: Any) -> None:
  """Writes a graph.

  Args:
    path: of the file; one that is there is replaced once the new one is whole.
    graph: a `nir.NIRGraph`.

  Raises:
    MissingExtra: `nir` is not installed.
    CheckpointError: the folder cannot be written to.
  """
  nir = need("nir", "nir", "writing a NIR file")
  where = pathlib.Path(path)
  part = where.with_name(where.name + ".part")
  try:
    nir.write(part, graph)
    part.replace(where)
  except OSError as error:
    part.unlink(missing_ok=True)
    raise CheckpointError(
      f"{where}: it cannot be written ({error.strerror or error}); choose"
      " another folder"
    ) from error
