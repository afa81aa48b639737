"""Compares a model with recorded outputs of the reference implementation.

The recorded file is an npz whose arrays are named as `verify` says; only
`input_ids` and something to compare are needed.  The model runs on the CPU, in
float32 and, where the file holds float64 arrays, in float64, too; these are
compared with the float64 run alone, all others with both.  The activation
quantiser is discontinuous, so that float32 may flip a code where float64 does
not: with `f64/*` arrays present the float64 run gives the verdict.
"""

import os
from typing import Any

import jax

from jaxnmc.errors import CheckpointError, TokenError
from jaxnmc.io import files, name_map
from jaxnmc.io.compare import Comparison
from jaxnmc.io.load import load
from jaxnmc.io.replay import Replay
from jaxnmc.models.model import Model

# Read as inputs; everything else is compared or listed as unknown.
INPUTS = ("input_ids", "attention_mask", "prefill_len", "grad_names")
# Compared by the float64 run alone.
FLOAT64_ONLY = {"loss_f64", "grad_l2"}


def verify(
  model: Model | str | os.PathLike, reference: str | os.PathLike
) -> dict[str, Any]:
  """Compares a checkpoint with recorded arrays.

  Args:
    model: a model, or what `load` takes.
    reference: npz with `input_ids` int32[B, T] and any of: `logits`,
      `state_<l>`, `masked_*` (with `attention_mask`), `decode_*` (with
      `prefill_len`), `greedy_*`, `embed`, `attn_out_<l>`, `mlp_out_<l>`,
      `block_out_<l>`, `final_norm`, `lower_bounds_effective`,
      `act_codes_l<l>_<x>_proj`, `act_scale_...`, `f64/<any of them>`,
      `loss_f64`, `grad_names` with `grad_l2`, `grad/<parameter>`.

  Returns:
    A JSON-ready dict: `ok`, the `verdict`'s precision, for `float64` (where
    the file asks for it) and `float32` how many arrays of which kind were
    compared and the worst of each, `failed`, `unknown` and `skipped` arrays.

  Raises:
    ConfigError, MissingExtra: as `load`.
    CheckpointError: the npz is damaged, lacks `input_ids`, has an array of
      another shape, or holds nothing to compare.
    TokenError: ids outside of the vocabulary.
  """
  if not isinstance(model, Model):
    model = load(model)
  name = os.fspath(reference)
  arrays = files.read_npz(reference, name, "an npz of recorded arrays")
  _check_inputs(arrays, model, name)
  exact = any(key.startswith("f64/") for key in arrays)
  double = exact or bool(arrays.keys() & FLOAT64_ONLY)
  runs: dict[str, Comparison] = {}
  # The tolerances are meant for the CPU: other devices may round products.
  with jax.default_device(jax.devices("cpu")[0]):
    for dtype in ("float64", "float32") if double else ("float32",):
      with (
        jax.enable_x64(dtype == "float64"),
        jax.default_matmul_precision("highest"),
      ):
        runs[dtype] = _run(model, arrays, name, dtype)
  verdict = "float64" if exact else "float32"
  chosen = runs[verdict]
  if not chosen.count:
    raise CheckpointError(
      f"{name}: nothing to compare beside the inputs (found"
      f" {', '.join(sorted(arrays))}); 'logits' is the usual array"
    )
  return {
    "ok": chosen.ok,
    "verdict": verdict,
    "model": model.name,
    "reference": name,
    **{dtype: run.summary() for dtype, run in runs.items()},
    "failed": chosen.failed,
    "unknown": sorted({k for run in runs.values() for k in run.unknown}),
    "skipped": {k: v for run in runs.values() for k, v in run.skipped.items()},
  }


def _check_inputs(arrays: dict, model: Model, name: str) -> None:
  ids = arrays.get("input_ids")
  if ids is None:
    raise CheckpointError(
      f"{name}: array 'input_ids' is missing; found {', '.join(sorted(arrays))}"
    )
  if ids.dtype.kind not in "iu" or ids.ndim not in (1, 2) or not ids.size:
    raise CheckpointError(
      f"{name}: array 'input_ids': found {ids.dtype}{list(ids.shape)}, expected"
      " integers [B, T] or [T], not empty"
    )
  low, high = int(ids.min()), int(ids.max())
  if low < 0 or high >= model.config.vocab_size:
    raise TokenError(
      f"{name}: array 'input_ids': found {low if low < 0 else high}, allowed"
      f" are 0 ... {model.config.vocab_size - 1} (vocab_size of {model.name})"
    )
  mask = arrays.get("attention_mask")
  if mask is not None and mask.shape != ids.shape:
    raise CheckpointError(
      f"{name}: array 'attention_mask': found shape {list(mask.shape)},"
      f" expected {list(ids.shape)}, as 'input_ids'"
    )
  cut = arrays.get("prefill_len")
  if cut is not None:
    length = ids.shape[-1]
    if cut.size != 1 or not 0 < int(cut.reshape(())) <= length:
      raise CheckpointError(
        f"{name}: array 'prefill_len': found {cut.tolist()}, allowed is one"
        f" number in 1 ... {length}"
      )
  known = {entry.key for entry in name_map.entries(model.config)}
  unknown = {str(key) for key in arrays.get("grad_names", ())} - known
  if unknown:
    raise CheckpointError(
      f"{name}: array 'grad_names' names parameters that this model lacks:"
      f" {', '.join(sorted(unknown))}"
    )


def _run(model: Model, arrays: dict, name: str, dtype: str) -> Comparison:
  """Compares every array with one run."""
  replay = Replay(model, arrays, name, dtype)
  result = Comparison(name)
  for key in sorted(arrays):
    if key in INPUTS:
      continue
    exact = key.startswith("f64/") or key in FLOAT64_ONLY
    if exact and dtype == "float32":
      continue
    found = replay.get(key.removeprefix("f64/"))
    if found is None:
      result.unknown.append(key)
    elif isinstance(found, str):
      result.skipped[key] = found
    else:
      result.add(key, arrays[key], found)
  return result
