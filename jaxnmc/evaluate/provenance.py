"""What a figure came from: versions, machine, hashes of data and weights."""

import hashlib
import os
import pathlib
import platform
import subprocess
from importlib import metadata
from typing import Any

import jax
import numpy as np

from jaxnmc import _version
from jaxnmc.evaluate.text import DataError
from jaxnmc.ops.observe import path_name


def versions() -> dict[str, str]:
  """Versions of everything that can change a number."""
  names = ("jax", "jaxlib", "flax", "numpy")
  return {
    "jaxnmc": _version.__version__,
    **{name: metadata.version(name) for name in names},
    "python": platform.python_version(),
    "device": jax.devices()[0].device_kind,
  }


def commit() -> str | None:
  """The commit of the source in use, None where it is no Git checkout."""
  folder = pathlib.Path(_version.__file__).parent
  try:
    done = subprocess.run(
      ["git", "-C", str(folder), "describe", "--always", "--dirty"],
      capture_output=True,
      text=True,
      timeout=10,
    )
  except (OSError, subprocess.TimeoutExpired):
    return None
  return done.stdout.strip() or None


def file_sha256(path: str | os.PathLike) -> str:
  """SHA-256 of a file's bytes, as hex.

  Raises:
    DataError: the file cannot be read.
  """
  try:
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
  except OSError as error:
    raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def tokenizer_sha256(tokenizer: Any) -> str | None:
  """SHA-256 (hex) of a tokenizer's vocabulary; None where it cannot be had."""
  stored = getattr(tokenizer, "serialized", None)
  return None if stored is None else hashlib.sha256(stored()).hexdigest()


def params_sha256(params: Any) -> str:
  """SHA-256 (hex) over paths, shapes, dtypes and bytes of a pytree's arrays."""
  sha = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    array = np.asarray(leaf)
    sha.update(f"{path_name(path)} {array.shape} {array.dtype.name}\n".encode())
    sha.update(np.ascontiguousarray(array).tobytes())
  return sha.hexdigest()
