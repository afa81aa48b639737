"""`jaxnmc.load`: a zoo name, a Hugging Face folder or our own checkpoint."""

import os
import pathlib
from typing import Any

from jax import numpy as jnp

from jaxnmc.errors import CheckpointError, MissingExtra, PlanError
from jaxnmc.io import (
  files,
  huggingface,
  name_map,
  safetensors_files,
  trained,
  zoo,
)
from jaxnmc.io import tokenizer as tokenizers
from jaxnmc.models import families
from jaxnmc.models.model import Model
from jaxnmc.quantize.params import quantize_params


def load(name_or_path: str | os.PathLike) -> Model:
  """Loads a model.

  Args:
    name_or_path: the name of a model of the zoo; a Hugging Face folder
      (`config.json`, `model.safetensors` or shards); a folder or `*.npz` of
      a training run; or a folder that `jaxnmc.io.zoo.write` made.  A folder
      with the name of a zoo model is meant by `./name`.

  Returns:
    The model, with the tokenizer, plan and integer parameters that came with
    it.

  Raises:
    CheckpointError: nothing there that can be loaded; the message lists what
      was looked for.
    ConfigError: the config names a computation that we do not do.
    PlanError: the plan of a zoo folder is of another model, or has floats.
    MissingExtra: the folder needs an optional package.
  """
  text = os.fspath(name_or_path)
  if text in zoo.names():
    return _shipped(text, zoo.read(zoo.root().joinpath(text)))
  path = pathlib.Path(text)
  if path.is_file():
    return _from_file(path)
  if path.is_dir():
    return _from_folder(path)
  raise CheckpointError(
    f"{text!r}: neither a model of the zoo ({_zoo_names()}) nor a file or"
    " folder"
  )


def _zoo_names() -> str:
  return ", ".join(zoo.names()) or "which is empty"


def _shipped(name: str, shipped: zoo.Shipped) -> Model:
  plan, qparams = shipped.plan, None
  if plan is not None:
    # Here, so that a plan of another model is refused when it is loaded.
    try:
      qparams = quantize_params(shipped.params, plan)
    except PlanError as error:
      raise PlanError(
        f"{name}: {zoo.PLAN} does not fit the model beside it: {error}; write"
        " the folder again with an integer plan of this model, or without one"
      ) from error
  return families.model(
    name,
    shipped.config,
    shipped.params,
    tokenizer=shipped.tokenizer,
    plan=plan,
    qparams=qparams,
  )


def _from_folder(path: pathlib.Path) -> Model:
  if files.PARTIAL in path.name:
    raise CheckpointError(
      f"{path}: was left behind half written; remove it and write it again"
    )
  if (path / zoo.MANIFEST).is_file():
    return _shipped(str(path), zoo.read(path))
  weights = (safetensors_files.SINGLE, safetensors_files.INDEX)
  if any((path / name).exists() for name in (huggingface.CONFIG, *weights)):
    found = huggingface.read(path)
    tokenizer, notes = _tokenizer(path, found.config)
    return families.model(
      str(path),
      found.config,
      found.params,
      tokenizer=tokenizer,
      notes=(*found.notes, *notes),
    )
  for name in trained.FILES:
    if (path / name).is_file():
      return _trained(path / name, str(path))
  raise CheckpointError(
    f"{path}: no model in this folder; looked for {zoo.MANIFEST} (zoo),"
    f" {huggingface.CONFIG} with {' or '.join(weights)} (Hugging Face), and"
    f" {' or '.join(trained.FILES)} (training run; written once a run has"
    f" been evaluated). Models of the zoo: {_zoo_names()}"
  )


def _from_file(path: pathlib.Path) -> Model:
  if path.suffix == ".npz":
    return _trained(path, str(path))
  if path.suffix == ".safetensors" or path.name == huggingface.CONFIG:
    raise CheckpointError(
      f"{path}: name the folder that it is in, with {huggingface.CONFIG} and"
      " the weights"
    )
  raise CheckpointError(
    f"{path}: unknown kind of file; allowed are a *.npz of a training run and"
    f" folders. Models of the zoo: {_zoo_names()}"
  )


def _trained(path: pathlib.Path, name: str) -> Model:
  arrays, meta = trained.read(path)
  config = families.from_json(meta.get("config"), str(path))
  leaves: dict[str, Any] = {}
  for key, value in arrays.items():
    if value.dtype.kind != "f":
      raise CheckpointError(
        f"{path}: array params/{key}: found dtype {value.dtype}, allowed is"
        " float"
      )
    leaves[key.replace("/", ".")] = jnp.asarray(value, jnp.float32)
  params = name_map.checked(leaves, config, str(path))
  tokenizer, notes = _tokenizer(path.parent, config)
  return families.model(name, config, params, tokenizer=tokenizer, notes=notes)


def _tokenizer(
  folder: pathlib.Path, config: Any
) -> tuple[Any, tuple[str, ...]]:
  """The tokenizer in a folder, if there is one that this installation reads."""
  if not any((folder / name).is_file() for name in tokenizers.FILES):
    return None, ()
  try:
    tokenizer = tokenizers.load(folder)
  except MissingExtra as error:
    # Weights alone are of use too: verify and info need no text.
    return None, (f"tokenizer not loaded: {error}",)
  if tokenizer.vocab_size > config.vocab_size:
    raise CheckpointError(
      f"{folder}: the tokenizer has {tokenizer.vocab_size} ids, the model"
      f" {config.vocab_size}; they do not belong together"
    )
  return tokenizer, ()
