"""Small trained models that ship with the package, as plain arrays.

A folder holds

  config.json    {"format", "model", "config": fields of the config}
  model.npz      `<path>:codes` 2-bit ternary codes and `<path>:scale`;
                 `<path>:int` and `<path>:frac` embeddings and dense matrices
                 as integers times 2^-frac; all else float32 under its path
  tokenizer.npz  merges of our own BPE (none: bytes)
  card.md        what it is, from which data, how good
  plan.json      number formats, so that no calibration text is needed
                 (optional)
  manifest.json  SHA-256 and size of each file; checked when loading

The embedding's grid is the one that 16-bit plans choose, so the integers of
`fixed` do not depend on whether it was rounded here before.
"""

import dataclasses
import importlib.resources
import io
import json
import os
import pathlib
from importlib.resources.abc import Traversable
from typing import Any

import numpy as np
from jax import numpy as jnp

from jaxnmc.errors import CheckpointError, PlanError, UserError
from jaxnmc.io import files, name_map
from jaxnmc.io.tokenizer import BPETokenizer
from jaxnmc.models import families
from jaxnmc.numerics.formats import Format, frac_for, round_to
from jaxnmc.numerics.ternary import Ternary, host_ternary, pack2, unpack2
from jaxnmc.quantize.plan import Plan

FORMAT = "jaxnmc-zoo-1"
MANIFEST = "manifest.json"
REQUIRED = ("card.md", "config.json", "model.npz", "tokenizer.npz")
PLAN = "plan.json"
# Kinds of parameters that are kept as integers times a power of two.
GRIDS = ("table", "dense")


@dataclasses.dataclass(frozen=True)
class Shipped:
  """What a zoo folder holds.

  Attributes:
    config: sizes and options.
    params: float parameters; matrices are `Ternary`.
    tokenizer: its own.
    card: the model card, Markdown.
    plan: number formats, or None.
  """

  config: Any
  params: dict[str, Any]
  tokenizer: BPETokenizer
  card: str
  plan: Plan | None


def root() -> Traversable:
  """The folder of the shipped models."""
  return importlib.resources.files("jaxnmc").joinpath("zoo")


def names() -> list[str]:
  """Names of the shipped models, sorted."""
  folder = root()
  if not folder.is_dir():
    return []
  entries = (e for e in folder.iterdir() if e.is_dir())
  return sorted(e.name for e in entries if e.joinpath(MANIFEST).is_file())


# --- writing


def rounded(
  config: Any, params: dict[str, Any], embed_bits: int = 16
) -> dict[str, Any]:
  """The parameters as a zoo folder gives them back.

  Ternary matrices become `Ternary`; embeddings are rounded to the grid of
  `embed_bits` bits that holds their range, dense matrices to that of 16 bits;
  the rest is float32.  Doing it twice
  changes nothing.  Calibrate on these before shipping a plan.

  Args:
    config: sizes and options.
    params: latents float[out, in] or `Ternary`.
    embed_bits: 8 or 16.

  Returns:
    The tree of `params`, JAX arrays.

  Raises:
    CheckpointError: parameters do not fit the config, or other embed_bits.
  """
  arrays = _pack(config, params, embed_bits)
  return _unpack(arrays, config, "parameters")


def write(
  folder: str | os.PathLike,
  config: Any,
  params: dict[str, Any],
  tokenizer: BPETokenizer,
  card: str,
  plan: Plan | None = None,
  embed_bits: int = 16,
  overwrite: bool = False,
) -> pathlib.Path:
  """Writes a zoo folder; it appears whole or not at all.

  Args:
    folder: name of the new folder; its last part is the model's name.
    config: sizes and options.
    params: latents or `Ternary`.
    tokenizer: bytes or our own BPE (plain arrays).
    card: Markdown.
    plan: number formats made for `rounded(config, params)`.
    embed_bits: 8 or 16 bits per entry of the embedding.
    overwrite: replace an existing folder.

  Returns:
    The folder.

  Raises:
    CheckpointError: parameters do not fit the config, other embed_bits, a
      tokenizer of another kind or model, or a taken name.
  """
  if not isinstance(tokenizer, BPETokenizer):
    raise CheckpointError(
      f"tokenizer: found {type(tokenizer).__name__}, allowed in the zoo are"
      " bytes and our own BPE, which need no further package"
    )
  if tokenizer.vocab_size > config.vocab_size:
    raise CheckpointError(
      f"tokenizer: found {tokenizer.vocab_size} ids, the model has"
      f" {config.vocab_size}; give the one it was trained with"
    )
  about = {
    "format": FORMAT,
    "model": families.family_of(config).name,
    "config": dataclasses.asdict(config),
  }
  content = {
    "card.md": card.encode(),
    "config.json": (json.dumps(about, indent=2) + "\n").encode(),
    "model.npz": files.npz_bytes(_pack(config, params, embed_bits)),
    "tokenizer.npz": files.npz_bytes(tokenizer.arrays()),
  }
  if plan is not None:
    content[PLAN] = plan.to_json().encode()
  with files.new_folder(folder, overwrite) as work:
    for name, data in content.items():
      files.write_bytes(work / name, data)
    table = {
      name: {"bytes": len(data), "sha256": files.sha256(data)}
      for name, data in content.items()
    }
    files.write_json(work / MANIFEST, {"format": FORMAT, "files": table})
  return pathlib.Path(folder)


def _pack(config, params, embed_bits) -> dict[str, np.ndarray]:
  if embed_bits not in (8, 16):
    raise CheckpointError(f"embed_bits: found {embed_bits}, allowed 8 and 16")
  out: dict[str, np.ndarray] = {}
  for entry in name_map.entries(config):
    leaf = name_map.get(params, entry.path)
    if tuple(leaf.shape) != entry.shape:
      raise CheckpointError(
        f"parameter {entry.path}: found shape {list(leaf.shape)}, expected"
        f" {list(entry.shape)}; the parameters do not belong to this config"
      )
    if entry.kind == "matrix":
      codes, scale = host_ternary(leaf)
      out[entry.path + ":codes"] = pack2(codes)
      out[entry.path + ":scale"] = np.asarray(scale, np.float32)
    elif entry.kind in GRIDS:
      value = np.asarray(leaf)
      bits = embed_bits if entry.kind == "table" else 16
      fmt = Format(bits, frac_for(float(np.abs(value).max()), bits))
      kind = np.int8 if bits == 8 else np.int16
      out[entry.path + ":int"] = round_to(value, fmt).astype(kind)
      out[entry.path + ":frac"] = np.asarray(fmt.frac, np.int32)
    else:
      out[entry.path] = np.asarray(leaf, np.float32)
  return out


# --- reading


def read(folder: Traversable | str | os.PathLike) -> Shipped:
  """Reads a zoo folder.

  Args:
    folder: a path, or a resource such as `root() / name`.

  Returns:
    What it holds.

  Raises:
    CheckpointError: a file is missing, damaged or was changed.
    ConfigError: fields of the config are unknown or impossible.
    PlanError: the plan is of another version.
  """
  if isinstance(folder, str | os.PathLike):
    source: Traversable = pathlib.Path(folder)
  else:
    source = folder
  content = _content(source)
  name = str(source)
  config = _config(content["config.json"], f"{name}: config.json")
  arrays = files.read_npz(
    io.BytesIO(content["model.npz"]), f"{name}: model.npz", "a zoo model"
  )
  params = _unpack(arrays, config, f"{name}: model.npz")
  tokenizer = BPETokenizer.load(
    io.BytesIO(content["tokenizer.npz"]), f"{name}: tokenizer.npz"
  )
  plan = None
  if PLAN in content:
    try:
      plan = Plan.from_json(content[PLAN].decode())
    except PlanError as error:
      raise PlanError(f"{name}: {PLAN}: {error}") from error
  card = content["card.md"].decode()
  return Shipped(config, params, tokenizer, card, plan)


def _content(source: Traversable) -> dict[str, bytes]:
  """Bytes of every file of the manifest, each checked."""
  manifest = files.read_json(source.joinpath(MANIFEST), "a zoo manifest")
  table = manifest.get("files")
  if manifest.get("format") != FORMAT or not isinstance(table, dict):
    raise CheckpointError(
      f"{source}: {MANIFEST}: found format {manifest.get('format')!r}, allowed"
      f" is {FORMAT!r}"
    )
  lost = [name for name in REQUIRED if name not in table]
  if lost:
    raise CheckpointError(
      f"{source}: {MANIFEST} lacks {', '.join(lost)}; the folder is not"
      " complete: install or copy it again"
    )
  content = {}
  for name in (*REQUIRED, *([PLAN] if PLAN in table else [])):
    try:
      data = source.joinpath(name).read_bytes()
    except OSError as error:
      raise CheckpointError(
        f"{source}: {name}: not readable ({error.strerror}), but {MANIFEST}"
        " names it; install or copy the folder again"
      ) from error
    row = table[name]
    expected = row.get("sha256") if isinstance(row, dict) else None
    if files.sha256(data) != expected:
      raise CheckpointError(
        f"{source}: {name}: SHA-256 {files.sha256(data)[:12]}... differs from"
        f" {str(expected)[:12]}... of {MANIFEST}; the file is damaged or was"
        " changed: install or copy the folder again"
      )
    content[name] = data
  return content


def _config(data: bytes, name: str) -> Any:
  about = json.loads(data)
  family = about.get("model")
  if family not in families.FAMILIES:
    allowed = ", ".join(map(repr, families.FAMILIES))
    raise CheckpointError(
      f"{name}: found model {family!r}, allowed is {allowed}; a newer jaxnmc"
      " may know it"
    )
  return families.from_json(about.get("config"), name, family)


def _unpack(arrays, config, name) -> dict[str, Any]:
  leaves: dict[str, Any] = {}
  used = set()

  def take(key: str, kinds: str) -> np.ndarray:
    used.add(key)
    if key not in arrays:
      raise CheckpointError(f"{name}: array {key} is missing")
    if arrays[key].dtype.kind not in kinds:
      raise CheckpointError(
        f"{name}: array {key}: found dtype {arrays[key].dtype}"
      )
    return arrays[key]

  for entry in name_map.entries(config):
    path = entry.path
    if entry.kind == "matrix":
      packed = take(path + ":codes", "u")
      if packed.shape[0] != entry.shape[0]:
        raise CheckpointError(
          f"{name}: array {path}:codes: found {packed.shape[0]} rows, expected"
          f" {entry.shape[0]}"
        )
      try:
        codes = unpack2(packed, entry.shape[1])
      except UserError as error:
        raise CheckpointError(f"{name}: array {path}:codes: {error}") from error
      scale = jnp.asarray(take(path + ":scale", "f"), jnp.float32)
      leaves[path] = Ternary(jnp.asarray(codes), scale)
    elif entry.kind in GRIDS:
      value = take(path + ":int", "i").astype(np.float32)
      frac = int(take(path + ":frac", "i"))
      # Codes of 16 bits times a power of two: exact in float32.
      leaves[path] = jnp.asarray(value * np.float32(2.0**-frac))
    else:
      leaves[path] = jnp.asarray(take(path, "f"), jnp.float32)
  extra = sorted(set(arrays) - used)
  if extra:
    raise CheckpointError(f"{name}: unknown arrays {', '.join(extra)}")
  return name_map.checked(leaves, config, name)
