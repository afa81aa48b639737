"""Which neurons of a spiking transformer fire too little, or too much.

    dead        fires in less than 0.1 % of the ticks
    saturated   fires in more than 90 % of them
    scale       threshold over drive: the median over the neurons of a site of
                its lowest threshold by the largest drive it saw
    ties        tokens for which the most active output neuron is not one

A neuron of more than 1 in scale cannot fire on this text at all; far below 1
it fires at the slightest drive.  Drives are magnitudes of signed neurons.
Counts are `jaxnmc.models.spike_counts`, exact; all of it is measured.
"""

import functools
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.models import spike_counts
from jaxnmc.models.gpt_config import Config
from jaxnmc.models.spike_counts import Counts
from jaxnmc.report import tables

__all__ = ["DEAD", "SATURATED", "examine", "health", "scales", "show"]
__all__ += ["spike_histogram", "ties"]

DEAD = 0.001
SATURATED = 0.9
# Scales outside are named: nothing above fires, all below fires at once.
SCALES = (1 / 64, 1.0)
COLUMNS = (
  *("layer", "site", ">neurons", ">rate %", ">dead", ">saturated"),
  *(">scale", "what is wrong"),
)


def spike_histogram(
  counts: Counts, layer: int | None = None
) -> list[dict[str, Any]]:
  """How often neurons fired, by site.

  Args:
    counts: of `spike_counts.count`.
    layer: only this one; None for all.

  Returns:
    Rows {"layer", "site", "ticks", "times", "label"}; times[k] is in how many
    pairs of a neuron and a token it fired k times.
  """
  return [
    {
      "layer": site.layer,
      "site": site.name,
      "ticks": site.ticks,
      "times": [int(n) for n in counts.histograms[site.key]],
      "label": "measured",
    }
    for site in counts.sites
    if layer is None or site.layer == layer
  ]


@functools.cache
def _largest(config: Config):
  """Largest drive that each neuron saw, by site; compiled."""

  @jax.jit
  def largest(params, ids, mask):
    _, values = spike_counts.run_with(config)(params, ids, mask)
    real = jnp.ones(ids.shape) if mask is None else mask != 0
    most = lambda x, signed: jnp.max(
      jnp.where(real[..., None] != 0, jnp.abs(x) if signed else x, 0), (0, 1)
    )
    found = {}
    for index, here in enumerate(spike_counts.by_layer(values)):
      if config.attention == "ssa":
        turned = config.positions == "rotary"
        for name in "qkv":
          site = name + "_turned" * (turned and name != "v")
          found[f"{index}.{name}"] = most(here[f"attn.{site}"], config.signed)
        seen = jnp.maximum(here["attn.ssa.seen.count"], 1)
        reads = [here[f"attn.ssa.read.{t}"] / seen for t in range(config.ticks)]
        each = [most(read, config.signed) for read in reads]
        found[f"{index}.out"] = functools.reduce(jnp.maximum, each)
      if config.mlp_ticks is not None:
        signed = config.mlp == "swiglu"
        drive = here["mlp.glu" if signed else "mlp.up"]
        found[f"{index}.mlp"] = most(drive, signed)
    return found

  return largest


def scales(config: Config, params, ids, mask=None) -> dict[str, float]:
  """Threshold over drive of every site, see above.

  Args:
    config: of a spiking transformer.
    params: its float parameters.
    ids: int[B, T].
    mask: int[B, T], 0 for padding; None for none.

  Returns:
    Site key -> the median over neurons; infinite where no drive is above 0.
  """
  ids, mask = spike_counts.texts(ids, mask)
  drives = jax.device_get(_largest(config)(params, ids, mask))
  found = {}
  for site in spike_counts.sites(config, params):
    p = params["layers"][site.layer]
    if site.name == "mlp":
      theta = np.min(np.asarray(p["mlp"]["fire"], np.float64), 0)
    else:
      theta = np.exp(np.asarray(p["attn"]["ssa"][site.name], np.float64))
    drive = np.float64(drives[site.key])
    with np.errstate(divide="ignore"):
      ratio = np.where(drive > 0, theta / np.maximum(drive, 1e-300), np.inf)
    found[site.key] = float(np.median(ratio))
  return found


def health(
  counts: Counts, scale: dict[str, float] | None = None
) -> list[dict[str, Any]]:
  """Dead and saturated neurons, and thresholds far off, by site.

  Args:
    counts: of `spike_counts.count`.
    scale: of `scales`; None leaves it out.

  Returns:
    Rows {"layer", "site", "neurons", "rate", "dead", "saturated" (numbers of
    neurons), "scale", "wrong": what is, or "", "label"}.
  """
  rows = []
  for site in counts.sites:
    rates = counts.rates(site.key)
    dead = int((rates < DEAD).sum())
    saturated = int((rates > SATURATED).sum())
    ratio = None if scale is None else scale[site.key]
    wrong = []
    if dead == site.neurons:
      wrong.append("silent")
    elif dead > site.neurons / 2:
      wrong.append("most are dead")
    if saturated > site.neurons / 10:
      wrong.append("saturated")
    if ratio is not None and ratio > SCALES[1]:
      wrong.append("thresholds too high")
    elif ratio is not None and ratio < SCALES[0]:
      wrong.append("thresholds too low")
    rows.append(
      {
        "layer": site.layer,
        "site": site.name,
        "neurons": site.neurons,
        "rate": float(rates.mean()),
        "dead": dead,
        "saturated": saturated,
        "scale": ratio,
        "wrong": ", ".join(wrong),
        "label": "measured",
      }
    )
  return rows


def ties(logits, ticks: int) -> dict[str, Any]:
  """How many tokens tie if the most active output neuron decodes.

  Output neurons are integrate-and-fire from half a threshold, under their
  logit in every tick; the threshold is the largest logit of all tokens, so a
  count of spikes is clip(floor(T logit / theta + 1/2), 0, T).

  Args:
    logits: float[..., V].
    ticks: T.

  Returns:
    {"ticks", "tokens", "tied": tokens whose largest count has two neurons or
    more, "share", "label"}.
  """
  x = np.asarray(logits, np.float64).reshape(-1, np.shape(logits)[-1])
  theta = max(float(x.max()), 1e-12)
  sent = np.clip(np.floor(ticks * x / theta + 0.5), 0, ticks)
  tied = int(((sent == sent.max(-1, keepdims=True)).sum(-1) > 1).sum())
  return {
    "ticks": ticks,
    "tokens": len(x),
    "tied": tied,
    "share": tied / len(x),
    "label": "measured",
  }


def examine(config: Config, params, ids, mask=None) -> dict[str, Any]:
  """All of this file about one model, on a text.

  Args:
    config: of a spiking transformer.
    params: its float parameters.
    ids: int[B, T].
    mask: int[B, T], 0 for padding; None for none.

  Returns:
    {"ids": real tokens, "neurons": of `health`, "ties": of `ties`, "histogram":
    of `spike_histogram`}.
  """
  ids, mask = spike_counts.texts(ids, mask)
  counts = spike_counts.count(config, params, ids, mask)
  run = jax.jit(spike_counts.run_with(config))
  logits = np.asarray(run(params, ids, mask)[0])
  real = np.ones(ids.shape, bool) if mask is None else mask != 0
  ticks = config.ticks if config.attention == "ssa" else config.mlp_ticks
  return {
    "ids": int(counts.tokens.sum()),
    "neurons": health(counts, scales(config, params, ids, mask)),
    "ties": ties(logits[real], ticks or 1),
    "histogram": spike_histogram(counts),
  }


def show(people, rows: list[dict[str, Any]], tie: dict[str, Any]) -> None:
  """Prints the table of `health` and the line of `ties`.

  Args:
    people: a console.
    rows: of `health`.
    tie: of `ties`.
  """
  body = [
    (
      r["layer"],
      r["site"],
      r["neurons"],
      f"{100 * r['rate']:.2f}",
      r["dead"],
      r["saturated"],
      "" if r["scale"] is None else r["scale"],
      r["wrong"],
    )
    for r in rows
  ]
  title = (
    "Spiking neurons (measured; dead: < 0.1 % of ticks, saturated: > 90 %)"
  )
  people.print(tables.table(title, COLUMNS, body))
  people.print(
    f"read-out by the most active of {tie['ticks']} ticks: {tie['tied']:,} of"
    f" {tie['tokens']:,} tokens tie ({100 * tie['share']:.1f} %, measured);"
    " the potential does not",
    markup=False,
    soft_wrap=True,
  )
