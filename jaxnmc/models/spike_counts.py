"""Which neurons of a spiking transformer fire, and how often.

One place counts: `jaxnmc.models.tune_thresholds`, the reports and the commands
read from here.  A *site* is one kind of neurons in one layer:

    q, k, v    of spiking attention, once per tick
    out        behind its memory, once per tick
    mlp        of a feed-forward block, a threshold per tick

Spikes of both signs count as one each.  A count of a neuron is its spikes for
one token, over the ticks; tokens are real ones, padding is left out.
"""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.errors import ConfigError, TokenError
from jaxnmc.models import gpt, spiking
from jaxnmc.models.gpt_config import Config
from jaxnmc.ops.reference import Reference
from jaxnmc.ops.transform import reference
from jaxnmc.spike import surrogates

__all__ = ["Counts", "Site", "by_layer", "count", "counts_of", "run_with"]
__all__ += ["sites", "spiking_parts", "tally", "texts"]

_ATTENTION = ("q", "k", "v", "out")
_BATCH = 16


@dataclasses.dataclass(frozen=True)
class Site:
  """Neurons of one kind in one layer.

  Attributes:
    layer: its number.
    name: "q", "k", "v", "out" or "mlp".
    neurons: how many.
    ticks: most spikes of one of them for a token.
  """

  layer: int
  name: str
  neurons: int
  ticks: int

  @property
  def key(self) -> str:
    """Name of the site in tables and multipliers: "0.q"."""
    return f"{self.layer}.{self.name}"


def spiking_parts(config) -> bool:
  """Whether a model of this config is a transformer with neurons that spike."""
  known = isinstance(config, Config)
  return known and (config.attention == "ssa" or config.mlp_ticks is not None)


def sites(config: Config, params) -> tuple[Site, ...]:
  """Every site of a model, in the order of the network.

  Args:
    config: of a transformer.
    params: its float parameters; pruned layers have fewer neurons.

  Raises:
    ConfigError: nothing in it spikes.
  """
  if not spiking_parts(config):
    raise ConfigError(
      "spike counts: nothing in this model spikes; give one that"
      " jaxnmc.models.to_spikes.convert (or 'jaxnmc spikes') made"
    )
  found = []
  for layer, p in enumerate(params["layers"]):
    if config.attention == "ssa":
      found += [
        Site(layer, name, p["attn"]["ssa"][name].shape[-1], config.ticks)
        for name in _ATTENTION
      ]
    if config.mlp_ticks is not None:
      width = p["mlp"]["fire"].shape[-1]
      found.append(Site(layer, "mlp", width, config.mlp_ticks))
  return tuple(found)


def counts_of(
  config: Config, p, values: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
  """Spikes of every neuron of one layer for each token.

  Args:
    config: of the spiking model.
    p: parameters of the layer.
    values: of its sites, by path inside of the layer.

  Returns:
    Name of the site -> float[..., tokens, ..., neurons], whole numbers.
  """
  found = {}
  if config.attention == "ssa":
    ticks = range(config.ticks)
    at = lambda name: [values[f"attn.ssa.{name}.{t}"] for t in ticks]
    for name in "qkv":
      found[name] = _magnitudes(at(f"{name}_spikes"))
    if config.signed:
      # Only their sum is a site, in which opposite spikes would cancel.
      level = jnp.exp(p["attn"]["ssa"]["out"])
      theta = jnp.maximum(values["attn.ssa.seen.count"], 1) * level
      out = spiking.neuron(
        *(Reference(), config.neuron, True, at("read")),
        *(theta, surrogates.fire, level),
      )
      found["out"] = _magnitudes(out)
    else:
      found["out"] = values["attn.ssa.counts"]
  if config.mlp_ticks is not None:
    found["mlp"] = jnp.abs(values["mlp.counts"])
  return found


def _magnitudes(spikes) -> jax.Array:
  """Spikes of either sign, over the ticks."""
  return functools.reduce(jnp.add, map(jnp.abs, spikes))


def by_layer(values: Mapping[str, jax.Array]) -> list[dict[str, jax.Array]]:
  """Values of sites of a whole model, parted by layer.

  Args:
    values: path -> value.

  Returns:
    Of each layer, path inside of it -> value.
  """
  found: dict[int, dict[str, jax.Array]] = {}
  for path, value in values.items():
    head, _, rest = path.partition(".")
    if head == "layers":
      number, _, name = rest.partition(".")
      found.setdefault(int(number), {})[name] = value
  return [found[k] for k in sorted(found)]


def tally(config: Config, params, values, mask=None) -> dict[str, dict]:
  """Sums of one run; a pure function of what its sites held.

  Args:
    config: of the spiking model.
    params: its float parameters.
    values: of a run with taps, path -> float[B, T, n].
    mask: int[B, T], 0 for padding; None for none.

  Returns:
    Site key -> {"rows": int32[B] spikes of each text, "neurons": int32[n] of
    each neuron, "histogram": int32[ticks + 1], how many pairs of a neuron and
    a token have so many}.
  """
  found = {}
  layers = enumerate(by_layer(values))
  ticks = {s.key: s.ticks for s in sites(config, params)}
  for layer, here in layers:
    counts = counts_of(config, params["layers"][layer], here)
    for name, x in counts.items():
      key = f"{layer}.{name}"
      # A float may be a rounding away from the whole number that it means.
      n = jnp.round(x).astype(jnp.int32)
      real = jnp.ones(n.shape[:2], jnp.int32)
      if mask is not None:
        real = (jnp.asarray(mask) != 0).astype(jnp.int32)
      n = n * real[..., None]
      times = [
        jnp.sum((n == k) * real[..., None], dtype=jnp.int32)
        for k in range(ticks[key] + 1)
      ]
      found[key] = {
        "rows": jnp.sum(n, (1, 2), jnp.int32),
        "neurons": jnp.sum(n, (0, 1), jnp.int32),
        "histogram": jnp.stack(times),
      }
  return found


@dataclasses.dataclass(frozen=True, eq=False)
class Counts:
  """Spikes of a model on texts; whole numbers, int64.

  Attributes:
    sites: in the order of the network.
    tokens: of each text, [texts].
    spikes: [texts, sites].
    neurons: site key -> spikes of each neuron, [n].
    histograms: site key -> pairs of a neuron and a token with 0, 1, ... ticks
      spikes, [ticks + 1].
  """

  sites: tuple[Site, ...]
  tokens: np.ndarray
  spikes: np.ndarray
  neurons: Mapping[str, np.ndarray]
  histograms: Mapping[str, np.ndarray]

  @property
  def total(self) -> int:
    """Spikes of all texts."""
    return int(self.spikes.sum())

  @property
  def mean(self) -> float:
    """Spikes per inference, which is one text."""
    return self.total / len(self.spikes)

  @property
  def worst(self) -> int:
    """Spikes of the text with the most."""
    return int(self.spikes.sum(1).max())

  @property
  def possible(self) -> int:
    """Spikes of all texts if every neuron fired in every tick."""
    each = sum(site.neurons * site.ticks for site in self.sites)
    return each * int(self.tokens.sum())

  def rates(self, key: str) -> np.ndarray:
    """Share of the ticks in which each neuron fired, float64[n]."""
    ticks = {site.key: site.ticks for site in self.sites}[key]
    return self.neurons[key] / (ticks * int(self.tokens.sum()))

  def rows(self) -> list[dict]:
    """One per site: layer, site, neurons, ticks, spikes, per token, rate."""
    tokens = int(self.tokens.sum())
    found = []
    for site, spikes in zip(self.sites, self.spikes.sum(0), strict=True):
      each = int(spikes) / tokens
      found.append(
        {
          "layer": site.layer,
          "site": site.name,
          "neurons": site.neurons,
          "ticks": site.ticks,
          "spikes": int(spikes),
          "per_token": each,
          "rate": each / (site.neurons * site.ticks),
          "label": "measured",
        }
      )
    return found


def run_with(config: Config):
  """`run(params, ids, mask) -> (logits, values of all sites)`, [B, T, n]."""
  run = reference(gpt.make(config), taps=True)

  def both(params, ids, mask):
    out, _, values = run(params, {"ids": ids, "mask": mask})
    return out.logits, values

  return both


@functools.cache
def _counter(config: Config):
  """A compiled count of one batch."""

  @jax.jit
  def counted(params, ids, mask):
    _, values = run_with(config)(params, ids, mask)
    return tally(config, params, values, mask)

  return counted


def count(config: Config, params, ids, mask=None, batch: int = _BATCH):
  """Spikes of a model on texts.

  Args:
    config: of a spiking transformer.
    params: its float parameters.
    ids: int[B, T], or int[T] for one text; a text is one inference.
    mask: the same shape, 0 for padding; None for none.
    batch: texts of a call.

  Returns:
    `Counts`, exact.

  Raises:
    ConfigError: nothing in the model spikes.
    TokenError: no text, or as the model has it.
  """
  found = sites(config, params)
  ids, mask = texts(ids, mask)
  rows: list[np.ndarray] = []
  neurons: dict[str, np.ndarray] = {}
  histograms: dict[str, np.ndarray] = {}
  for first in range(0, len(ids), batch):
    part = slice(first, first + batch)
    masked = None if mask is None else mask[part]
    got = jax.device_get(_counter(config)(params, ids[part], masked))
    rows.append(np.stack([got[s.key]["rows"] for s in found], 1))
    for name, sums in (("neurons", neurons), ("histogram", histograms)):
      for s in found:
        new = np.asarray(got[s.key][name], np.int64)
        sums[s.key] = sums[s.key] + new if s.key in sums else new
  tokens = np.full(len(ids), ids.shape[1])
  if mask is not None:
    tokens = (mask != 0).sum(1)
  spikes = np.concatenate(rows).astype(np.int64)
  return Counts(found, tokens.astype(np.int64), spikes, neurons, histograms)


def texts(ids, mask=None) -> tuple[np.ndarray, np.ndarray | None]:
  """Ids and mask as int32[B, T].

  Raises:
    TokenError: no ids, or another shape.
  """
  ids = np.asarray(ids)
  ids = ids[None] if ids.ndim == 1 else ids
  if ids.ndim != 2 or not ids.size:
    raise TokenError(
      f"spike counts: found ids of shape {list(ids.shape)}; allowed are"
      " int[B, T], texts of one length, or int[T]"
    )
  if mask is not None:
    mask = np.asarray(mask, np.int32).reshape(ids.shape)
  return ids.astype(np.int32), mask
