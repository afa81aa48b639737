"""How close a spiking model is to the one it comes from, and how it spikes."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax import numpy as jnp

import jaxnmc as nmc
from jaxnmc.evaluate import closeness
from jaxnmc.models import gpt, spike_counts

HIDDEN = "norm"  # the site in front of the head


def _cosine(a: jax.Array, b: jax.Array) -> jax.Array:
  """Cosine of the angle between two vectors: float[...]."""
  length = jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1)
  return jnp.sum(a * b, -1) / jnp.maximum(length, 1e-12)


def beside(config: gpt.Config, teacher: gpt.Config) -> Callable:
  """The run that `closeness.Comparison` takes, params (student, teacher).

  Per id it counts the cosine of the last hidden states and of the logits, and
  spikes per neuron and tick, by site, means over layers.
  """
  ours = nmc.reference(gpt.make(config), taps=True)
  theirs = nmc.reference(gpt.make(teacher), taps=True)

  def run(params, inputs, state=None):
    out, _, taps = ours(params[0], inputs)
    wanted, _, aim = theirs(params[1], inputs)
    found = {
      "hidden": _cosine(taps[HIDDEN], aim[HIDDEN]),
      "logits": _cosine(out.logits, wanted.logits),
    }
    rates: dict[str, list] = {}
    layers = zip(params[0]["layers"], spike_counts.by_layer(taps), strict=True)
    for p, values in layers:
      for name, x in spike_counts.counts_of(config, p, values).items():
        ticks = config.mlp_ticks if name == "mlp" else config.ticks
        rates.setdefault(name, []).append(jnp.mean(x, -1) / ticks)
    found |= {f"rate {k}": sum(v) / len(v) for k, v in rates.items()}
    return out, state, found

  run.context = config.context  # type: ignore[attr-defined]
  return run


class Judge:
  """Compares models with the teacher on the same ids."""

  def __init__(self, model, documents, bos: int):
    self.config, self.params, self.bos = model.config, model.params, bos
    self.documents = documents

  def __call__(self, config: gpt.Config, params: Any) -> dict[str, Any]:
    """Figures of one model, ready for JSON."""
    base = nmc.reference(gpt.make(self.config)), self.params
    both = closeness.Comparison(
      base,
      beside(config, self.config),
      self.documents,
      bos=self.bos,
      batch=8,
      chunk=self.config.context,
    )
    close, sums = both((params, self.params))
    means = {name: value / both.ids for name, value in sums.items()}
    return {
      "ids": both.ids,
      "documents": len(close.ids),
      "perplexity": close.perplexity,
      "teacher_perplexity": close.base_perplexity,
      "change": dataclasses.asdict(close.loss),
      "agreement": dataclasses.asdict(close.agreement),
      "kl": dataclasses.asdict(close.divergence),
      "cosine_hidden": means.pop("hidden"),
      "cosine_logits": means.pop("logits"),
      "rates": {k.removeprefix("rate "): v for k, v in means.items()},
    }
