"""A transformer as a spiking one: parameters and thresholds, by calibration.

NeurTransformer's steps (Balaji et al. 2025, arXiv 2510.00133; free choices as
docs/spiking.md says), on any `gpt.Config`:

    attention       softmax gives way to spiking attention.  The projections of
        q, k and v stay; their thresholds, and that of the output, come from a
        percentile of the drives.  W_o becomes the least-squares map from the
        counts of spikes to what the stream lacks behind the layer.  This is a
        start for fine-tuning, not an equal.
    feed-forward    the activation gives way to counts of spikes over ticks, a
        table of thresholds per channel: an approximation that gets exact with
        ticks (Bu et al. 2022, arXiv 2303.04347), without training.  Counts
        cannot say what GELU is below 0; its mean goes to the bias behind.

Layers are converted one after the other, each on what the converted ones before
it give, and towards the stream of the model that is converted, so that errors
do not add up.  Everything here runs on the host, once.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from jaxnmc.errors import ConfigError
from jaxnmc.models import gpt, spiking
from jaxnmc.models.gpt_config import Config, Windows
from jaxnmc.ops.reference import Reference, gelu
from jaxnmc.spike import checks, thresholds

__all__ = ["Recipe", "convert", "reached_at", "stream", "values"]

# Of the least-squares map, relative to the mean square of a count.
_RIDGE = 1e-2
# The growing branch of GELU begins at its minimum.
_GELU_LEAST = -0.7517916
_HALVINGS = 50


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
  """What becomes spikes, and how.

  Attributes:
    ticks: of the neurons of attention; None: attention stays as it is.
    neuron: of attention, one of `spiking.NEURONS`.
    signed: its spikes are -1, 0 and 1; else 0 and 1.
    surrogate: slope of its spikes in training; no spike depends on it.
    windows: how many tokens each head remembers, None for all; where heads
      were pruned, such a tuple for each layer; or None.
    positions: "rotary", "learned" or "none"; None: as the model has them.
    share: percentile of a drive's magnitude that is two thresholds high.
    mlp_ticks: of the neurons of feed-forward blocks; None: they stay.
    mlp_top: the activation that the largest count stands for, per channel:
      "least_error" (of clipping and rounding together), "maximum", or a
      percentile as "p99.9".
  """

  ticks: int | None = 4
  neuron: str = "lif"
  signed: bool = False
  surrogate: str = "atan"
  windows: Windows | tuple[Windows, ...] | None = None
  positions: str | None = None
  share: float = 99.0
  mlp_ticks: int | None = 8
  mlp_top: str = "p99.9"


def convert(
  config: Config,
  params,
  ids,
  how: Recipe = Recipe(),
  progress: Callable[[int], None] = lambda layers: None,
) -> tuple[Config, Any]:
  """The spiking model of a transformer.

  Args:
    config: of a model in which what is converted does not spike yet.
    params: its float parameters.
    ids: int[B, T], calibration text.
    how: ticks, neurons, thresholds.
    progress: is told 1 after each layer.

  Returns:
    (config, params) of the spiking model.

  Raises:
    ConfigError: nothing would be converted, what is asked for spikes already,
      its matrices are ternary, there is no such choice, or the text does not
      tell a threshold.
  """
  _check(config, how)
  fields: dict[str, Any] = {}
  if how.ticks is not None:
    fields |= _attention_fields(config, how)
  if how.mlp_ticks is not None:
    fields["mlp_ticks"] = how.mlp_ticks
  made = dataclasses.replace(config, **fields)
  ids = jnp.asarray(np.asarray(ids).T, jnp.int32)
  given, mine = stream(config, params, ids), stream(made, params, ids)
  layers = []
  for old, new, p in zip(config.layers, made.layers, params["layers"]):
    wanted = values(old, p, given, ids)
    layer = dict(p)
    if how.ticks is not None:
      here = values(old, p, mine, ids)
      layer["attn"] = _ssa(new, p["attn"], here, wanted["mid"] - mine, how)
    if how.mlp_ticks is not None:
      half = dataclasses.replace(new, mlp_ticks=config.mlp_ticks)
      here = values(half, layer, mine, ids)
      layer["mlp"] = _counts(config.mlp, p["mlp"], here, how)
    given, mine = wanted["out"], values(new, layer, mine, ids)["out"]
    layers.append(layer)
    progress(1)
  kept = {k: v for k, v in params.items() if k != "positions"}
  if made.positions == "learned":
    kept["positions"] = params["positions"]
  return made, {**kept, "layers": layers}


def _check(config: Config, how: Recipe) -> None:
  if how.ticks is None and how.mlp_ticks is None:
    raise ConfigError(
      "to_spikes: neither ticks nor mlp_ticks is given, so nothing would be"
      " converted; give one of them, or both"
    )
  if config.ternary:
    raise ConfigError(
      "to_spikes: the matrices of this model are ternary (BitLinear) and cannot"
      " take the scale of a spike; give a model with dense ones, or run this"
      " one by jaxnmc.spiking"
    )
  if how.ticks is not None:
    checks.ticks("to_spikes", how.ticks)
    if config.attention != "softmax":
      raise ConfigError(
        f"to_spikes: the attention of this model is {config.attention!r}"
        " already; allowed is softmax, or ticks=None"
      )
  if how.mlp_ticks is not None:
    checks.ticks("to_spikes", how.mlp_ticks)
    if how.mlp_top not in ("least_error", "maximum"):
      _percentile(how.mlp_top)
    if config.mlp_ticks is not None:
      raise ConfigError(
        "to_spikes: the feed-forward blocks of this model spike already, with"
        f" {config.mlp_ticks} ticks; give mlp_ticks=None"
      )
  if how.positions == "learned" and config.positions != "learned":
    raise ConfigError(
      f"to_spikes: the positions of this model are {config.positions!r}; it has"
      " no learned ones to keep"
    )


def _attention_fields(config: Config, how: Recipe) -> dict[str, Any]:
  positions = config.positions if how.positions is None else how.positions
  return {
    "attention": "ssa",
    "ticks": how.ticks,
    "neuron": how.neuron,
    "signed": how.signed,
    "surrogate": how.surrogate,
    "windows": how.windows,
    "positions": positions,
  }


def stream(config: Config, params, ids) -> jax.Array:
  """The residual stream in front of the first layer.

  Args:
    config: of a transformer.
    params: its float parameters.
    ids: int32[T, B].

  Returns:
    float[T, B, D].
  """
  ops = Reference()
  places = gpt.place(ops, config.context, ids)
  return gpt.embedded(ops, config, params, ids, places)


@functools.partial(jax.jit, static_argnums=0)
def values(config: Config, p, r, ids) -> dict[str, jax.Array]:
  """Values of all sites of one layer; equal layers are compiled once.

  Args:
    config: of the layer (`Config.layer`).
    p: float parameters of the layer.
    r: residual stream in front of it, float[T, B, D].
    ids: int32[T, B], for the places of the tokens.

  Returns:
    float[T, B, n] by path inside of the layer.
  """
  ops = Reference(taps=True)
  gpt.block(ops, config, p, r, gpt.place(ops, config.context, ids))
  return ops.tape.values


def _ssa(made: Config, p: Mapping, here, wanted, how: Recipe) -> dict:
  """Parameters of one attention.

  Args:
    made: of the layer in the spiking model.
    p: parameters of the attention with softmax.
    here: values of its sites.
    wanted: what is to be added to the stream, [T, B, D].
    how: thresholds.
  """
  turned = made.positions == "rotary"
  drives = {
    name: here[
      "attn." + (f"{name}_turned" if turned and name in "qk" else name)
    ]
    for name in "qkv"
  }
  width = drives["v"].shape[-1]

  def level(x) -> float:
    """Half of the percentile; of sums above 0 alone where most are 0."""
    size = np.abs(x) if how.signed else np.maximum(x, 0)
    if np.percentile(size, how.share) == 0 and (size > 0).any():
      x = x[size > 0]
    return float(thresholds.percentile(x, how.share, signed=how.signed)) / 2

  log = lambda x: jnp.full(width, np.log(level(np.asarray(x))), jnp.float32)
  logs = {name: log(x) for name, x in drives.items()}
  logs["out"] = jnp.zeros(width, jnp.float32)

  logs["out"] = log(_attended(made, logs, drives)[1])
  weight, offset = _fit(_attended(made, logs, drives)[0], wanted)
  o = {**p["o"], "weight": jnp.asarray(weight, jnp.float32)}
  if "bias" in o:
    o["bias"] = jnp.asarray(offset, jnp.float32)
  return {**p, "o": o, "ssa": logs}


@functools.partial(jax.jit, static_argnums=0)
def _attended(made: Config, logs, drives) -> tuple[jax.Array, jax.Array]:
  """Counts of spikes [T, B, n]; Y over the tokens seen [ticks, T, B, n]."""
  ops = Reference(taps=True)
  counts, _ = spiking.attend(ops, made, logs, drives, None, None)
  reads = [ops.tape.values[f"read.{t}"] for t in range(made.ticks)]
  return counts, jnp.stack(reads) / ops.tape.values["seen.count"]


def _fit(x, y) -> tuple[np.ndarray, np.ndarray]:
  """W and b of the least (x W^T + b - y)^2, with a small ridge on W."""
  x, y = (np.asarray(a, np.float64).reshape(-1, a.shape[-1]) for a in (x, y))
  mean_x, mean_y = x.mean(0), y.mean(0)
  x, y = x - mean_x, y - mean_y
  square = x.T @ x
  ridge = _RIDGE * len(x) * max(float((x**2).mean()), 1e-12)
  weight = np.linalg.solve(square + ridge * np.eye(len(square)), x.T @ y).T
  return weight, mean_y - weight @ mean_x


def _counts(kind: str, p: Mapping, here, how: Recipe) -> dict:
  """Parameters of one feed-forward block."""
  ticks, signed = how.mlp_ticks or 0, kind == "swiglu"
  site = {"swiglu": "glu", "relu": "relu"}.get(kind, "gelu")
  given = np.asarray(here[f"mlp.{site}"], np.float64)
  top = _tops(given, ticks, how.mlp_top, signed)
  levels = (np.arange(ticks)[:, None] + 0.5) * top / ticks
  fire = np.asarray(reached_at(kind, jnp.float32(levels)))
  matrix = np.asarray(p["down"]["weight"], np.float64)
  down = {**p["down"], "weight": matrix * (top / ticks)}
  if site == "gelu" and "bias" in down:
    # What counts cannot say below 0 has a mean, which a bias can.
    inputs = np.asarray(here["mlp.up"])
    sent = sum((inputs >= row).astype(np.int64) for row in fire)
    lost = (given - sent * top / ticks).mean(tuple(range(given.ndim - 1)))
    down["bias"] = np.asarray(down["bias"], np.float64) + matrix @ lost
  down = {name: jnp.asarray(x, jnp.float32) for name, x in down.items()}
  return {**p, "fire": jnp.asarray(fire), "down": down}


def _tops(given, ticks: int, how: str, signed: bool) -> np.ndarray:
  """What the largest count stands for, float64[channels]."""
  more = {"per_channel": True, "signed": signed}
  if how == "least_error":
    return thresholds.least_error(given, ticks, **more)
  if how == "maximum":
    return thresholds.maximum(given, **more)
  return thresholds.percentile(given, _percentile(how), **more)


def _percentile(how: str) -> float:
  """99.9 of "p99.9"."""
  try:
    share = float(how.removeprefix("p"))
  except ValueError:
    share = -1.0
  if not how.startswith("p") or share < 0:
    raise ConfigError(
      f"to_spikes: found {how!r}; allowed are least_error, maximum and"
      " percentiles as 'p99.9'"
    )
  return share


def reached_at(mlp: str, levels: jax.Array) -> jax.Array:
  """Where an activation reaches levels, on its growing branch.

  By halving an interval: gelu(x) < x for x > 0, and x - gelu(x) is at most
  0.17 there.

  Args:
    mlp: of the config.
    levels: float[...] above the least value of the activation; may be traced.

  Returns:
    float[...], dtype of levels.
  """
  if mlp in ("relu", "swiglu"):
    return levels
  form = "tanh" if mlp == "gelu_tanh" else "erf"

  def halve(_, ends):
    low, high = ends
    middle = (low + high) / 2
    below = gelu(middle, form) < levels
    return jnp.where(below, middle, low), jnp.where(below, high, middle)

  start = jnp.full_like(levels, _GELU_LEAST), levels + 0.5
  return lax.fori_loop(0, _HALVINGS, halve, start)[1]
