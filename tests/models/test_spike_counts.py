"""Counts of spikes against a loop over the values of all sites."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

import jaxnmc as nmc
from jaxnmc.errors import ConfigError, TokenError
from jaxnmc.models import gpt, spike_counts

BASE = gpt.Config(
  vocab_size=17,
  hidden_size=8,
  num_layers=1,
  num_heads=2,
  intermediate_size=12,
  max_position_embeddings=8,
  norm="layer",
  mlp="relu",
  positions="learned",
  initializer_range=0.7,
  attention="ssa",
  ticks=3,
  mlp_ticks=4,
)
KINDS = {
  "relu": {},
  "signed": {"signed": True, "neuron": "if", "mlp": "swiglu"},
  "attention": {"mlp_ticks": None, "mlp": "gelu"},
  "feed-forward": {"attention": "softmax"},
}
IDS = np.random.default_rng(0).integers(0, 17, (5, 8)).astype(np.int32)
MASK = np.ones((5, 8), np.int32)
MASK[0, :3] = MASK[3, 0] = 0


@functools.cache
def made(kind):
  config = dataclasses.replace(BASE, **KINDS[kind])
  params = gpt.init_params(config, jax.random.key(1))
  # Low thresholds, so that much spikes.
  lower = lambda path, x: (
    x - 1.5 if "'ssa'" in jax.tree_util.keystr(path) else x
  )
  return config, jax.tree_util.tree_map_with_path(lower, params)


def fired(config, params, layer, taps, name, row, token):
  """Spikes of the neurons of a site for one token, by Python."""
  at = f"layers.{layer}."
  if name == "mlp":
    return [abs(int(x)) for x in taps[at + "mlp.counts"][row, token]]
  at += "attn.ssa."
  if name in "qkv":
    sent = [taps[f"{at}{name}_spikes.{t}"][row, token] for t in range(3)]
    return [sum(abs(int(s[n])) for s in sent) for n in range(len(sent[0]))]
  reads = [taps[f"{at}read.{t}"][row, token] for t in range(3)]
  seen = taps[at + "seen.count"][row, token]
  theta = np.exp(params["layers"][layer]["attn"]["ssa"]["out"])
  found = []
  for n in range(len(seen)):
    v, spikes, limit = np.float32(0), 0, seen[n] * theta[n]
    for y in reads:
      h = v + y[n]
      h = h / np.float32(2) if config.neuron == "lif" else h
      up, down = h >= limit, config.signed and -h >= limit
      spikes += int(up or down)
      v = h - limit if up else h + limit if down else h
    found.append(spikes)
  return found


@pytest.mark.parametrize(
  ("kind", "masked"),
  [("relu", False), ("signed", True), ("attention", True)]
  + [("feed-forward", False)],
)
def test_counts_are_those_of_every_neuron_and_token(kind, masked):
  config, params = made(kind)
  mask = MASK if masked else None
  got = spike_counts.count(config, params, IDS, mask, batch=2)
  run = jax.jit(nmc.reference(gpt.make(config), taps=True))
  inputs = {"ids": IDS} | ({"mask": MASK} if masked else {})
  taps = jax.device_get(run(params, inputs)[-1])
  real = MASK if masked else np.ones_like(MASK)
  assert got.tokens.tolist() == real.sum(1).tolist()
  total = 0
  for k, site in enumerate(got.sites):
    here = np.array(
      [
        [
          np.multiply(
            fired(config, params, site.layer, taps, site.name, b, t),
            real[b, t],
          )
          for t in range(8)
        ]
        for b in range(5)
      ]
    )
    assert here.shape == (5, 8, site.neurons)
    assert here.max() <= site.ticks
    np.testing.assert_array_equal(got.spikes[:, k], here.sum((1, 2)))
    np.testing.assert_array_equal(got.neurons[site.key], here.sum((0, 1)))
    kept = here[real == 1].ravel()
    want = [int((kept == n).sum()) for n in range(site.ticks + 1)]
    assert got.histograms[site.key].tolist() == want
    total += int(here.sum())
  assert got.total == total > 50
  assert got.worst == got.spikes.sum(1).max() >= got.mean == total / 5
  assert got.total < got.possible


def test_rows_say_rates():
  config, params = made("relu")
  got = spike_counts.count(config, params, IDS)
  rows = got.rows()
  assert [(r["layer"], r["site"]) for r in rows] == [
    (layer, name) for layer in (0,) for name in ("q", "k", "v", "out", "mlp")
  ]
  assert sum(r["spikes"] for r in rows) == got.total
  for row in rows:
    key = f"{row['layer']}.{row['site']}"
    assert row["rate"] == pytest.approx(got.rates(key).mean())
    assert row["per_token"] * 40 == pytest.approx(row["spikes"])


def test_one_text_needs_no_batch_axis():
  config, params = made("relu")
  both = [
    spike_counts.count(config, params, x).total for x in (IDS[0], IDS[:1])
  ]
  assert both[0] == both[1] > 0


@pytest.mark.parametrize("ids", [np.zeros((0, 8)), np.zeros((2, 2, 2))])
def test_no_texts(ids):
  config, params = made("relu")
  with pytest.raises(TokenError, match="found ids of shape"):
    spike_counts.count(config, params, ids.astype(np.int32))


def test_a_model_that_does_not_spike():
  config = dataclasses.replace(BASE, attention="softmax", mlp_ticks=None)
  params = gpt.init_params(config, jax.random.key(0))
  with pytest.raises(ConfigError, match="nothing in this model spikes"):
    spike_counts.count(config, params, IDS)
