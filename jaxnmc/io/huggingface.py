"""Hugging Face folders, in and out.

A folder holds `config.json` and `model.safetensors` (or shards and their
index), as `save_pretrained` writes them.  Which models there are says
`LAYOUTS`: the MatMul-free LM (`HGRNBitForCausalLM`), GPT-2 and Llama.
"""

import dataclasses
import os
import pathlib
from typing import Any

import numpy as np
from jax import numpy as jnp

from jaxnmc.errors import CheckpointError, ConfigError
from jaxnmc.io import (
  files,
  hf_fields,
  hf_gpt2,
  hf_layout,
  hf_llama,
  hf_matmulfree,
  name_map,
  safetensors_files,
)
from jaxnmc.models.parameters import build
from jaxnmc.numerics.ternary import MIN_SCALE, Ternary

CONFIG = "config.json"
LAYOUTS = {
  layout.model_type: layout
  for layout in (hf_matmulfree.LAYOUT, hf_gpt2.LAYOUT, hf_llama.LAYOUT)
}


@dataclasses.dataclass(frozen=True)
class Imported:
  """What a folder held.

  Attributes:
    config: sizes and options, of one of `jaxnmc.models.families`.
    params: float32 parameters, latent matrices.
    skipped: metadata fields of `config.json` that play no part.
    unused: tensors that the model has no place for.
    tied: the head is the embedding.
  """

  config: Any
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
    if self.tied and "head" in self.params:
      out.append("head tied to the embedding: loaded as two copies")
    return tuple(out)


def read_config(
  folder: str | os.PathLike,
) -> tuple[hf_layout.Layout, hf_fields.Parsed]:
  """Reads `config.json` of a folder: which layout, and what it says.

  Raises:
    CheckpointError: missing or no JSON.
    ConfigError: no model that is known here, or see `hf_fields`.
  """
  path = pathlib.Path(folder) / CONFIG
  data = files.read_json(path, "the config.json of a language model")
  field, allowed = hf_fields.MODEL_TYPE, " or ".join(map(repr, LAYOUTS))
  if field not in data:
    raise ConfigError(
      f"{path}: field {field!r} is missing, allowed is {allowed}; is this the"
      " configuration of a language model?"
    )
  layout = LAYOUTS.get(data[field]) if isinstance(data[field], str) else None
  if layout is None:
    raise ConfigError(
      f"{path}: field {field!r} is {data[field]!r}, allowed is {allowed}; no"
      " other models are read"
    )
  return layout, layout.parse(data, str(path))


def read(folder: str | os.PathLike) -> Imported:
  """Reads a checkpoint; float32, one tensor at a time.

  Args:
    folder: see the module.

  Returns:
    Config, parameters and what was left over.

  Raises:
    MissingExtra: without the package `safetensors`.
    ConfigError: the config names another computation.
    CheckpointError: a file or tensor is missing, damaged, of another shape,
      or without a place in a model that has a place for each.
  """
  layout, parsed = read_config(folder)
  rows = layout.tensors(parsed.config, parsed.tied)
  head, embed = layout.head, layout.embed
  with safetensors_files.TensorFolder(folder) as tensors:
    names = tensors.names()
    if not any(name.startswith(layout.prefix) for name in names):
      rows = hf_layout.bare(rows, layout.prefix)
      embed = embed.removeprefix(layout.prefix)
    missing = [row for row in rows if row.key not in names]
    known = {row.key for row in rows}
    if parsed.tied:
      known.add(head)
    extra = sorted(n for n in names - known if not layout.is_buffer(n))
    if missing:
      raise CheckpointError(_missing(folder, missing, extra))
    if extra and layout.strict:
      raise CheckpointError(_extra(folder, layout, extra))
    leaves = {}
    for row in rows:
      for path, leaf in row.split(tensors.read(row.key, row.shape)).items():
        leaves[path] = jnp.asarray(leaf)
    if parsed.tied and head in names and layout.strict:
      _check_tied(tensors, head, embed, np.asarray(leaves["embed.weight"]))
  params = build(leaves)
  return Imported(
    parsed.config, params, parsed.skipped, tuple(extra), parsed.tied
  )


def _missing(folder, missing, unused) -> str:
  lines = [f"{folder}: {len(missing)} tensors are missing:"]
  lines += [f"  {row.key} {list(row.shape)}" for row in missing]
  if unused:
    lines.append(f"and {len(unused)} are there that have no place:")
    lines += [f"  {name}" for name in unused]
  lines.append(
    "the files are incomplete or do not belong to this config.json; copy the"
    " whole folder again"
  )
  return "\n".join(lines)


def _extra(folder, layout: hf_layout.Layout, extra: list[str]) -> str:
  lines = [f"{folder}: {len(extra)} tensors have no place:"]
  lines += [f"  {name}" for name in extra]
  lines.append(
    f"a {layout.model_type} of this config.json has none of these names, and"
    " they may change what it computes; merge them into the weights or remove"
    " them"
  )
  return "\n".join(lines)


def _check_tied(tensors, head: str, embed: str, table: np.ndarray) -> None:
  """Refuses a head of its own beside a config that ties it."""
  if not np.array_equal(tensors.read(head, table.shape), table):
    raise CheckpointError(
      f"{tensors.file(head)}: tensor {head} differs from {embed}, but {CONFIG}"
      " ties the head to the embedding; set 'tie_word_embeddings' to false, or"
      " remove the tensor"
    )


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
  config: Any,
  params: dict[str, Any],
  dtype: str = "float32",
  shard_bytes: int | None = None,
  overwrite: bool = False,
) -> pathlib.Path:
  """Writes a folder that `read` and the model's own library load.

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
    ConfigError: no such folder can hold a model of this config.
    CheckpointError: an unknown dtype, parameters that do not fit the config or
      the dtype, or a taken name.
  """
  if dtype not in safetensors_files.FLOATS.values():
    raise CheckpointError(
      f"dtype {dtype!r}: allowed are"
      f" {', '.join(safetensors_files.FLOATS.values())}"
    )

  layout = _layout_of(config)
  shapes = {e.path: e.shape for e in name_map.entries(config)}

  def leaf(key: str, path: str) -> np.ndarray:
    found = name_map.get(params, path)
    if isinstance(found, Ternary):
      found = latent(found, path)
    if np.shape(found) != shapes[path]:
      raise CheckpointError(
        f"tensor {key}, parameter {path}: found shape"
        f" {list(np.shape(found))}, expected {list(shapes[path])}; the"
        " parameters do not belong to this config"
      )
    return np.asarray(found)

  def maker(row: hf_layout.Tensor):
    for path in row.paths:  # before anything is written
      name_map.get(params, path)
    return lambda: row.join(leaf(row.key, path) for path in row.paths)

  # A tied head is no tensor of its own, but where it is another matrix.
  tied = getattr(config, "tie_word_embeddings", False)
  rows = [(r.key, r.shape, maker(r)) for r in layout.tensors(config, tied)]
  with files.new_folder(folder, overwrite) as work:
    safetensors_files.write(work, rows, dtype, shard_bytes)
    files.write_json(work / CONFIG, layout.render(config, dtype))
  return pathlib.Path(folder)


def _layout_of(config: Any) -> hf_layout.Layout:
  """The layout that can hold a config."""
  why = {}
  for name, layout in LAYOUTS.items():
    reason = layout.misfit(config)
    if reason is None:
      return layout
    why[name] = reason
  reasons = "; ".join(f"no {name}: {reason}" for name, reason in why.items())
  raise ConfigError(
    f"a model of this config has no Hugging Face form ({reasons}); save it as"
    " a zoo folder (jaxnmc.io.zoo.write)"
  )
