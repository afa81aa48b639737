"""Folders of `safetensors` files: one file, or shards with an index.

Reading goes tensor by tensor: beside the result there is never more than one
tensor in memory.
"""

import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxnmc import _extras
from jaxnmc.errors import CheckpointError
from jaxnmc.io import files

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
FLOATS = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")


class TensorFolder:
  """The tensors of one folder, by name; a context manager.

  Args:
    folder: holds `model.safetensors`, or `model.safetensors.index.json` and
      the files that it names.

  Raises:
    MissingExtra: without the package `safetensors`.
    CheckpointError: nothing there, a shard is missing, a file is cut off, or
      the index names a tensor that its file lacks.
  """

  def __init__(self, folder: str | os.PathLike) -> None:
    self._package = _extras.need("safetensors", "hf", "reading safetensors")
    self.folder = pathlib.Path(folder)
    self._open: dict[str, Any] = {}
    self._file_of = self._single() or self._sharded()

  def __enter__(self) -> "TensorFolder":
    return self

  def __exit__(self, *exc) -> None:
    for handle in self._open.values():
      handle.__exit__(None, None, None)
    self._open.clear()

  def _handle(self, name: str) -> Any:
    if name not in self._open:
      path = self.folder / name
      try:
        handle = self._package.safe_open(str(path), framework="numpy")
        self._open[name] = handle.__enter__()
      except FileNotFoundError as error:
        raise CheckpointError(
          f"{path}: no such file, but {INDEX} names it; the folder is half"
          " copied or half written: copy it again"
        ) from error
      except Exception as error:  # the package has an error type of its own
        raise CheckpointError(
          f"{path}: not readable as safetensors ({error}); the file is cut off"
          " or damaged: copy it again"
        ) from error
    return self._open[name]

  def _single(self) -> dict[str, str]:
    if not (self.folder / SINGLE).is_file():
      return {}
    return dict.fromkeys(self._handle(SINGLE).keys(), SINGLE)

  def _sharded(self) -> dict[str, str]:
    index = self.folder / INDEX
    if not index.is_file():
      if (self.folder / SINGLE).is_file():
        raise CheckpointError(f"{self.folder / SINGLE}: holds no tensors")
      hint = ""
      if any((self.folder / name).exists() for name in _PICKLED):
        hint = "; pytorch_model.bin is pickle and not read: convert it first"
      raise CheckpointError(
        f"{self.folder}: no weights; looked for {SINGLE} and {INDEX}{hint}"
      )
    data = files.read_json(index, "an index of safetensors files")
    table = data.get("weight_map")
    if not isinstance(table, dict) or not table:
      raise CheckpointError(
        f"{index}: field 'weight_map' is missing or empty; allowed is an"
        " object of tensor name to file name"
      )
    for key, name in table.items():
      if not isinstance(name, str) or pathlib.PurePath(name).name != name:
        raise CheckpointError(
          f"{index}: tensor {key} is said to be in {name!r}; allowed is the"
          " name of a file in the same folder"
        )
    for name in sorted(set(table.values())):
      inside = set(self._handle(name).keys())
      lost = sorted(
        k for k, n in table.items() if n == name and k not in inside
      )
      if lost:
        raise CheckpointError(
          f"{self.folder / name}: lacks {len(lost)} tensors that {INDEX} puts"
          f" there, first {lost[0]}; the files are of different checkpoints"
        )
    return dict(table)

  def names(self) -> set[str]:
    """Names of all tensors."""
    return set(self._file_of)

  def file(self, name: str) -> pathlib.Path:
    """The file a tensor is in."""
    return self.folder / self._file_of[name]

  def read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """One tensor as float32.

    Args:
      name: an element of `names()`.
      shape: the shape it must have.

    Returns:
      float32 of that shape.

    Raises:
      CheckpointError: another shape or dtype, damaged, or not finite.
    """
    where = f"{self.file(name)}: tensor {name}"
    handle = self._handle(self._file_of[name])
    try:
      info = handle.get_slice(name)
      found, kind = tuple(info.get_shape()), info.get_dtype()
    except Exception as error:
      raise CheckpointError(f"{where}: damaged ({error})") from error
    if found != tuple(shape):
      raise CheckpointError(
        f"{where}: found shape {list(found)}, expected {list(shape)}; the"
        " config.json is not the one of these weights"
      )
    if kind not in FLOATS:
      raise CheckpointError(
        f"{where}: found dtype {kind}, expected one of {', '.join(FLOATS)};"
        " save the latent weights in one of these"
      )
    try:
      value = handle.get_tensor(name).astype(np.float32, copy=False)
    except Exception as error:
      raise CheckpointError(
        f"{where}: not readable ({error}); copy the file again"
      ) from error
    # Finite float32 numbers cannot overflow a float64 sum.
    if not np.isfinite(np.sum(value, dtype=np.float64)):
      raise CheckpointError(
        f"{where}: holds NaN or infinity; the file is damaged or the training"
        " diverged: use another checkpoint"
      )
    return value


def write(
  folder: pathlib.Path,
  tensors: Iterable[tuple[str, tuple[int, ...], Any]],
  dtype: str = "float32",
  shard_bytes: int | None = None,
) -> list[str]:
  """Writes tensors into a folder (use a temporary one).

  Args:
    folder: exists.
    tensors: (name, shape, function that returns the float32 array); a
      function is called when its file is written.
    dtype: "float32", "bfloat16" or "float16".
    shard_bytes: start another file before it would exceed this size; None
      writes one file.

  Returns:
    Names of the files written.

  Raises:
    MissingExtra: without the package `safetensors`.
    CheckpointError: an array of another shape, not finite, or too large for
      the dtype.
  """
  _extras.need("safetensors", "hf", "writing safetensors")
  save = _extras.need("safetensors.numpy", "hf").save_file
  size = 4 if dtype == "float32" else 2
  shards: list[list[tuple[str, tuple[int, ...], Any]]] = [[]]
  filled = total = 0
  for name, shape, make in tensors:
    count = size * int(np.prod(shape, dtype=np.int64))
    if shard_bytes and shards[-1] and filled + count > shard_bytes:
      shards.append([])
      filled = 0
    shards[-1].append((name, shape, make))
    filled += count
    total += count
  names = [SINGLE]
  if len(shards) > 1:
    n = len(shards)
    names = [f"model-{i + 1:05d}-of-{n:05d}.safetensors" for i in range(n)]
  table: dict[str, str] = {}
  for name, shard in zip(names, shards):
    arrays = {
      key: _array(key, shape, make, dtype) for key, shape, make in shard
    }
    save(arrays, str(folder / name), metadata={"format": "pt"})
    # The package writes for the owner alone; `files` for everyone.
    (folder / name).chmod(0o644)
    table.update(dict.fromkeys(arrays, name))
  if len(shards) > 1:
    index: Mapping = {"metadata": {"total_size": total}, "weight_map": table}
    files.write_json(folder / INDEX, index)
    names.append(INDEX)
  return names


def _array(key, shape, make, dtype) -> np.ndarray:
  value = np.asarray(make(), np.float32)
  if value.shape != tuple(shape):
    raise CheckpointError(
      f"tensor {key}: found shape {list(value.shape)}, expected {list(shape)};"
      " the parameters do not belong to this config"
    )
  with np.errstate(over="ignore"):
    # ml_dtypes (a dependency of jax) has taught NumPy the name bfloat16.
    value = np.ascontiguousarray(value.astype(np.dtype(dtype)))
  if not np.isfinite(np.sum(value, dtype=np.float64)):
    raise CheckpointError(
      f"tensor {key}: NaN, infinity or too large for {dtype}; nothing is"
      " written"
    )
  return value
