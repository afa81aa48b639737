"""Heads and units taken out: smaller parameters and their config, or zeros.

A head without weights mixes values of 0, a unit without weights is 0 (GELU,
ReLU and SiLU of 0 are 0, and no threshold above 0 is reached), so the smaller
model computes what the masked one does.  In integers of the same formats it is
the same integers, for sums do not depend on their order.  In floats it is the
same up to rounding: a sum without its zeros may be added in another order.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.compress import parts
from jaxnmc.compress.parts import Masks
from jaxnmc.errors import ConfigError
from jaxnmc.models.gpt_config import Config
from jaxnmc.ops.observe import path_name
from jaxnmc.quantize.plan import Plan

__all__ = ["masked", "plan_for", "shrink"]


def shrink(
  config: Config,
  params: Mapping,
  heads: Masks | None = None,
  units: Masks | None = None,
) -> tuple[Config, dict]:
  """The model without some heads and units.

  Args:
    config: of a transformer with dense matrices.
    params: its float parameters.
    heads: bool[heads] of each layer, True for what stays, as of `heads.keep`;
      None: all.
    units: bool[units] of each layer, as of `units.keep`; None: all.

  Returns:
    (config, params).  Windows go with their heads.

  Raises:
    ConfigError: no transformer, ternary matrices, masks of other sizes, or a
      layer that would keep nothing.
  """
  kept = _checked(config, heads, units)

  def cut(leaf, part: parts.Part, stays: np.ndarray):
    mask = np.repeat(stays, part.size)
    return _room(leaf).compress(mask, leaf, axis=part.axis)

  layers = []
  for here, layer, stays in zip(config.layers, params["layers"], kept):
    layers.append(_changed(here, layer, stays, cut, thresholds=True))
  return _config(config, kept), {**params, "layers": layers}


def masked(
  config: Config,
  params: Mapping,
  heads: Masks | None = None,
  units: Masks | None = None,
) -> dict:
  """The same heads and units as zeros: parameters of the config as it is.

  Thresholds stay, as none of 0 would.

  Args and errors: as `shrink`.

  Returns:
    Parameters; what stays is as it was.
  """
  kept = _checked(config, heads, units)

  def blank(leaf, part: parts.Part, stays: np.ndarray):
    mask = np.repeat(stays, part.size)
    shape = [1] * np.ndim(leaf)
    shape[part.axis] = len(mask)
    zero = np.zeros((), leaf.dtype)
    return _room(leaf).where(mask.reshape(shape), leaf, zero)

  layers = []
  for here, layer, stays in zip(config.layers, params["layers"], kept):
    layers.append(_changed(here, layer, stays, blank, thresholds=False))
  return {**params, "layers": layers}


def plan_for(plan: Plan, params: Any) -> Plan:
  """The formats of a masked model's plan, for the model that is smaller.

  Args:
    plan: of the masked model.
    params: of the smaller one.

  Returns:
    A plan whose integers are those of the masked model.

  Raises:
    PlanError: a parameter of the plan is not there.
  """
  found = {
    path_name(key): tuple(leaf.shape)
    for key, leaf in jax.tree_util.tree_leaves_with_path(params)
  }
  roles = {
    path: dataclasses.replace(role, shape=found.get(path, role.shape))
    for path, role in plan.roles.items()
  }
  made = plan.replace(roles=roles, calibration=None)
  made.check_params(params)
  return made


Kept = dict[str, np.ndarray]


def _checked(
  config: Config, heads: Masks | None, units: Masks | None
) -> list[Kept]:
  """Masks of each layer, {"heads", "units"}.

  Raises:
    ConfigError: as `shrink`.
  """
  parts.check(config, "shrink")
  given = {"heads": heads, "units": units}
  rows: list[Kept] = []
  for here in config.layers:
    sizes = {"heads": here.kv_heads, "units": here.mlp_size}
    row = {}
    for name, size in sizes.items():
      masks = given[name]
      if masks is None:
        row[name] = np.ones(size, bool)
        continue
      if len(masks) != config.num_layers:
        raise ConfigError(
          f"shrink: found {len(masks)} masks of {name}, the model has"
          f" {config.num_layers} layers; give one for each"
        )
      mask = np.asarray(masks[len(rows)])
      if mask.dtype != bool or mask.shape != (size,):
        raise ConfigError(
          f"shrink: layer {len(rows)}: found {name} as {mask.dtype.name}"
          f"{list(mask.shape)}, allowed is bool[{size}], true for what stays"
        )
      if not mask.any():
        raise ConfigError(
          f"shrink: layer {len(rows)} would keep none of its {size} {name};"
          " allowed is 1 or more"
        )
      row[name] = mask
    rows.append(row)
  return rows


def _changed(config: Config, layer, stays: Kept, change, thresholds: bool):
  """A layer with every slice of its heads and units changed."""
  for name, rows in (("heads", parts.heads(config)), ("units", parts.units())):
    if stays[name].all():
      continue
    for part in rows:
      leaf = parts.get(layer, part.path)
      if leaf is not None and (thresholds or not part.threshold):
        new = change(leaf, part, stays[name])
        layer = parts.replace(layer, part.path, new)
  return layer


def _room(leaf: Any) -> Any:
  """Where to compute: arrays of the host stay there."""
  return jnp if isinstance(leaf, jax.Array) else np


def _config(config: Config, kept: list[Kept]) -> Config:
  """The config of what is left."""
  changes: dict[str, Any] = {}
  if not all(row["heads"].all() for row in kept):
    changes |= _heads(config, [row["heads"] for row in kept])
  if not all(row["units"].all() for row in kept):
    counts = [int(row["units"].sum()) for row in kept]
    alike = len(set(counts)) == 1
    changes["intermediate_size"] = counts[0] if alike else config.mlp_size
    changes["intermediate_per_layer"] = None if alike else tuple(counts)
  return dataclasses.replace(config, **changes)


def _heads(config: Config, kept: list[np.ndarray]) -> dict[str, Any]:
  """Fields of the heads that are left, and their windows."""
  group = config.num_heads // config.kv_heads
  counts = [group * int(mask.sum()) for mask in kept]
  fields: dict[str, Any] = {"head_dim": config.head_size}
  if len(set(counts)) == 1:
    fields |= {"num_heads": counts[0], "heads_per_layer": None}
    if config.num_kv_heads is not None:
      fields["num_kv_heads"] = counts[0] // group
  else:
    fields["heads_per_layer"] = tuple(counts)
  if config.windows is not None:
    # Only spiking attention has windows, and a memory for every head.
    fields["windows"] = tuple(
      tuple(np.array(_row(here), object)[mask])
      for here, mask in zip(config.layers, kept)
    )
  return fields


def _row(layer: Config) -> tuple:
  """Windows of a layer, one for each head."""
  return layer.windows or (None,) * layer.num_heads
