"""Hugging Face folders of the MatMul-free LM, in and out.

A folder holds `config.json` and `model.safetensors` (or shards and their
index), as `HGRNBitForCausalLM.save_pretrained` writes them.
"""

import dataclasses
import os
import pathlib
from typing import Any

import numpy as np
from jax import numpy as jnp

from jaxnmc.errors import CheckpointError
from jaxnmc.io import files, hf_config, name_map, safetensors_files
from jaxnmc.models.matmulfree_config import Config
from jaxnmc.models.parameters import build
from jaxnmc.numerics.ternary import MIN_SCALE, Ternary

CONFIG = "config.json"


@dataclasses.dataclass(frozen=True)
class Imported:
  """What a folder held.

  Attributes:
    config: sizes and options.
    params: float32 parameters, latent matrices.
    skipped: metadata fields of `config.json` that play no part.
    unused: tensors that the model has no place for.
    tied: the head was tied to the embedding (loaded as two copies).
  """

  config: Config
  params: dict[str, Any]
  skipped: tuple[str, ...]
  unused: tuple[str, ...]
  tied: bool

  @property
  def notes(self) -> tuple[str, ...]:
    """What a user may want to know, one line each."""
    out = []
    if self.skipped:
      out.append(f"{CONFIG}: skipped metadata {', '.join(self.skipped)}")
    if self.unused:
      out.append(f"unused tensors: {', '.join(self.unused)}")
    if self.tied:
      out.append("head tied to the embedding: loaded as two copies")
    return tuple(out)


def read_config(folder: str | os.PathLike) -> hf_config.Parsed:
  """Reads `config.json` of a folder.

  Raises:
    CheckpointError: missing or no JSON.
    ConfigError: see `hf_config.parse`.
  """
  path = pathlib.Path(folder) / CONFIG
  return hf_config.parse(
    files.read_json(path, "the config.json of a MatMul-free LM"), str(path)
  )


def read(folder: str | os.PathLike) -> Imported:
  """Reads a checkpoint; float32, one tensor at a time.

  Args:
    folder: see the module.

  Returns:
    Config, parameters and what was left over.

  Raises:
    MissingExtra: without the package `safetensors`.
    ConfigError: the config names another computation.
    CheckpointError: a file or tensor is missing, damaged or of another shape.
  """
  parsed = read_config(folder)
  wanted = name_map.entries(parsed.config)
  with safetensors_files.TensorFolder(folder) as tensors:
    names = tensors.names()
    tied = parsed.tied
    missing = [e for e in wanted if e.key not in names]
    if tied:
      missing = [e for e in missing if e.key != name_map.HEAD_KEY]
    unused = tuple(sorted(names - {e.key for e in wanted}))
    if missing:
      raise CheckpointError(_missing(folder, missing, unused))
    leaves = {}
    for entry in wanted:
      # A tied head is the embedding, whatever else the file may hold.
      shared = tied and entry.key == name_map.HEAD_KEY
      key = name_map.EMBED_KEY if shared else entry.key
      leaves[entry.path] = jnp.asarray(tensors.read(key, entry.shape))
  params = build(leaves)
  return Imported(parsed.config, params, parsed.skipped, unused, tied)


def _missing(folder, missing, unused) -> str:
  lines = [f"{folder}: {len(missing)} tensors are missing:"]
  lines += [f"  {e.key} {list(e.shape)}" for e in missing]
  if unused:
    lines.append(f"and {len(unused)} are there that have no place:")
    lines += [f"  {name}" for name in unused]
  lines.append(
    "the files are incomplete or do not belong to this config.json; copy the"
    " whole folder again"
  )
  return "\n".join(lines)


def latent(matrix: Ternary, path: str = "matrix") -> np.ndarray:
  """A latent matrix that ternarises to exactly these codes and this scale.

  `scale * codes` would not do: its mean magnitude is scale * (1 - z), z being
  the share of zeros.  The stored value is a = scale / (1 - z) instead; then
  mean |W| = scale, and a / scale >= 1 rounds and clips to 1.

  Args:
    matrix: codes int8[out, in] and scale.
    path: name for messages.

  Returns:
    float32[out, in]; the scale comes back up to float32 rounding.

  Raises:
    CheckpointError: the scale is below the reference's least, 1e-5.
  """
  codes, scale = np.asarray(matrix.codes), float(matrix.scale)
  count = np.count_nonzero(codes)
  if not count:
    return np.zeros(codes.shape, np.float32)
  if scale < MIN_SCALE * (1 - 1e-6):
    raise CheckpointError(
      f"{path}: its scale {scale:g} is below {MIN_SCALE:g}, the least that the"
      " reference's ternariser can return; such a matrix has no latent form"
    )
  return codes.astype(np.float32) * np.float32(scale * codes.size / count)


def write(
  folder: str | os.PathLike,
  config: Config,
  params: dict[str, Any],
  dtype: str = "float32",
  shard_bytes: int | None = None,
  overwrite: bool = False,
) -> pathlib.Path:
  """Writes a folder that `read` and the reference implementation load.

  Latents are written as they are; a `Ternary` as the latent that gives its
  codes and scale again (see `latent`).  The folder appears whole or not at
  all.

  Args:
    folder: name of the new folder.
    config: sizes and options.
    params: parameters of this config.
    dtype: "float32", "bfloat16" or "float16"; the latter two round.
    shard_bytes: split into files of at most this size; None writes one.
    overwrite: replace an existing folder.

  Returns:
    The folder.

  Raises:
    MissingExtra: without the package `safetensors`.
    CheckpointError: an unknown dtype, parameters that do not fit the config or
      the dtype, or a taken name.
  """
  if dtype not in safetensors_files.FLOATS.values():
    raise CheckpointError(
      f"dtype {dtype!r}: allowed are"
      f" {', '.join(safetensors_files.FLOATS.values())}"
    )

  def maker(entry):
    leaf = name_map.get(params, entry.path)
    if isinstance(leaf, Ternary):
      return lambda: latent(leaf, entry.path)
    return lambda: leaf

  rows = [(e.key, e.shape, maker(e)) for e in name_map.entries(config)]
  with files.new_folder(folder, overwrite) as work:
    safetensors_files.write(work, rows, dtype, shard_bytes)
    files.write_json(work / CONFIG, hf_config.render(config, dtype))
  return pathlib.Path(folder)
