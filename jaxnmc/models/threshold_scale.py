"""The thresholds of a spiking transformer, scaled site by site.

A multiplier m above 1 makes a site fire less.  What reads its spikes is scaled
with it, so that the site stands for the same values in coarser steps:

    out        theta m, and W_o m: n spikes stand for what m n stood for.
    mlp        the table of thresholds is where the activation reaches
               (k - 1/2) top / T.  It is made for m top, and W_down, which has
               top / T in its weights, gets m.  For ReLU and SwiGLU the table
               is m times what it was; for GELU its levels are.
    q, k, v    theta m.  What the memory holds shrinks as their spikes do, so
               the threshold of `out` is divided by the m of each.

A feed-forward block stays the approximation of its activation that it was: its
largest count stands for more (less is clipped), in coarser steps.  Attention
approximates nothing, and a leaky neuron under m times its threshold is silent
under drives that made it fire before; there this is a direction to search in,
and what it does is measured (`jaxnmc.models.tune_thresholds`).
"""

from collections.abc import Mapping
from typing import Any

from jax import numpy as jnp

from jaxnmc.errors import ConfigError
from jaxnmc.models.gpt_config import Config
from jaxnmc.models.spike_counts import sites
from jaxnmc.models.to_spikes import reached_at
from jaxnmc.ops.reference import gelu

__all__ = ["scaled"]

_FORMS = {"gelu": "erf", "gelu_tanh": "tanh"}


def scaled(config: Config, params, multipliers: Mapping[str, Any]):
  """A model with other thresholds; pure, of concrete or traced numbers.

  Args:
    config: of a spiking transformer with dense matrices.
    params: its float parameters.
    multipliers: site key (`spike_counts.Site.key`) -> a number above 0; sites
      that are not named keep their thresholds.

  Returns:
    Parameters; those of a multiplier of 1 are what they were, up to a rounding.

  Raises:
    ConfigError: nothing spikes, the matrices are ternary, or no such site.
  """
  known = {site.key for site in sites(config, params)}
  wrong = sorted(set(multipliers) - known)
  if wrong:
    raise ConfigError(
      f"thresholds: there is no site {wrong[0]!r}; sites of this model are"
      f" {', '.join(sorted(known))}"
    )
  if config.ternary:
    raise ConfigError(
      "thresholds: the matrices of this model are ternary (BitLinear) and"
      " cannot take the scale of a spike; give a model with dense ones"
    )
  layers = []
  for index, p in enumerate(params["layers"]):
    at = lambda name, index=index: multipliers.get(f"{index}.{name}", 1.0)
    layer = dict(p)
    if config.attention == "ssa":
      layer["attn"] = _attention(p["attn"], at)
    if config.mlp_ticks is not None:
      layer["mlp"] = _feed_forward(config.mlp, p["mlp"], at("mlp"))
    layers.append(layer)
  return {**params, "layers": layers}


def _attention(p, at) -> dict[str, Any]:
  """Thresholds are logarithms."""
  log = {name: jnp.log(at(name)) for name in ("q", "k", "v", "out")}
  moved = {**log, "out": log["out"] - log["q"] - log["k"] - log["v"]}
  ssa = {name: p["ssa"][name] + moved[name] for name in moved}
  o = {**p["o"], "weight": p["o"]["weight"] * at("out")}
  return {**p, "ssa": ssa, "o": o}


def _feed_forward(mlp: str, p, m) -> dict[str, Any]:
  """Levels at or below 0, which no conversion gives, keep their thresholds."""
  fire = p["fire"]
  levels = gelu(fire, _FORMS[mlp]) if mlp in _FORMS else fire
  moved = jnp.where(levels > 0, reached_at(mlp, levels * m), fire)
  down = {**p["down"], "weight": p["down"]["weight"] * m}
  return {**p, "fire": moved, "down": down}
