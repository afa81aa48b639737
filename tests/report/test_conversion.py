"""The report of a conversion against sums written out in NumPy."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxnmc.errors import ConfigError
from jaxnmc.models import gpt
from jaxnmc.models.to_spikes import Recipe, convert
from jaxnmc.ops.transform import reference
from jaxnmc.report import conversion, tables

BASE = gpt.Config(
  vocab_size=19,
  hidden_size=8,
  num_layers=2,
  num_heads=2,
  intermediate_size=12,
  max_position_embeddings=8,
  initializer_range=0.5,
)
KINDS = {
  "relu": {"mlp": "relu", "positions": "none"},
  "gelu": {"mlp": "gelu", "positions": "learned", "bias": True},
  "swiglu": {},
}
IDS = np.random.default_rng(0).integers(0, 19, (12, 8))
TICKS = 3


@pytest.mark.parametrize("kind", KINDS)
def test_feed_forward_errors(kind):
  """Only the first layer: there both models have the same stream."""
  config = dataclasses.replace(BASE, **KINDS[kind])
  params = gpt.init_params(config, jax.random.key(0))
  how = Recipe(ticks=None, mlp_ticks=TICKS, mlp_top="p90")
  made = convert(config, params, IDS, how)
  told = []
  rows = conversion.layers((config, params), made, IDS, told.append)
  assert told == [1, 1]
  row = rows[0]["feed_forward"]
  assert rows[0]["attention"] is None

  taps = lambda c, p: jax.jit(reference(gpt.make(c), taps=True))(
    p, {"ids": IDS}
  )[-1]
  site = {"swiglu": "glu"}.get(kind, kind)
  path = "layers.0.mlp."
  a = np.float64(taps(config, params)[path + site]).reshape(-1, 12)
  n = np.float64(taps(*made)[path + "counts"]).reshape(-1, 12)
  size = np.abs(a) if kind == "swiglu" else np.maximum(a, 0)
  top = np.percentile(size, 90, axis=0)
  code = n * top / TICKS
  kept = np.zeros(12)
  if kind == "gelu":
    kept = (a - code).mean(0)
  held = np.minimum(size, top)
  want = {
    "clipping": held - size,
    "quantisation": np.abs(code) - held,
    "negative": 0 * a if kind == "swiglu" else np.maximum(a, 0) + kept - a,
    "total": code + kept - a,
    "activation": a,
  }
  for name, error in want.items():
    assert row[name] == pytest.approx((error**2).mean(), rel=1e-3, abs=1e-12)
  assert row["unevenness"] < 1e-9
  assert row["rate"] == pytest.approx(np.abs(n).mean() / TICKS, rel=1e-5)
  assert row["silent"] == pytest.approx((n == 0).mean(), rel=1e-5)

  w = np.float64(params["layers"][0]["mlp"]["down"]["weight"]).T
  b = 0.0
  if kind == "gelu":
    b = np.float64(params["layers"][0]["mlp"]["down"]["bias"])
  off, added = (code + kept - a) @ w, a @ w + b
  error = np.sqrt((off**2).mean() / (added**2).mean())
  assert row["error"] == pytest.approx(error, rel=1e-3)


@pytest.mark.parametrize(
  ("signed", "neuron", "share"), [(False, "if", 75), (True, "lif", 90)]
)
def test_attention_rates_are_spikes_of_the_whole_model(signed, neuron, share):
  config = dataclasses.replace(BASE, **KINDS["gelu"])
  params = gpt.init_params(config, jax.random.key(1))
  how = Recipe(
    ticks=2, mlp_ticks=None, share=share, signed=signed, neuron=neuron
  )
  made = convert(config, params, IDS, how)
  rows = conversion.layers((config, params), made, IDS)
  run = jax.jit(reference(gpt.make(made[0]), taps=True))
  values = run(made[1], {"ids": IDS})[-1]
  for row in rows:
    at = f"layers.{row['layer']}.attn.ssa."
    for name in "qkv":
      sent = [np.abs(values[f"{at}{name}_spikes.{t}"]) for t in range(2)]
      rate = row["attention"]["rates"][name]
      assert rate == pytest.approx(np.mean(sent), rel=1e-4)
    out = row["attention"]["rates"]["out"]
    counted = np.abs(values[at + "counts"]).mean() / 2
    # Opposite spikes of one neuron cancel in the count.
    assert out >= counted * (1 - 1e-5)
    if not signed:
      assert out == pytest.approx(counted, rel=1e-4)
  dense = jax.jit(reference(gpt.make(config), taps=True))
  stream = dense(params, {"ids": IDS})[-1]["layers.1.out"]
  off = np.square(values["layers.1.out"] - stream).mean()
  error = np.sqrt(off / np.square(stream).mean())
  assert rows[1]["stream"] == pytest.approx(error, rel=1e-4)
  lacked = stream_error(values, dense(params, {"ids": IDS})[-1])
  assert rows[1]["attention"]["error"] == pytest.approx(lacked, rel=1e-4)


def stream_error(got, want):
  """What the second layer's stream lacks behind attention, over in front."""
  behind = got["layers.1.mid"] - want["layers.1.mid"]
  front = want["layers.1.mid"] - got["layers.0.out"]
  return np.sqrt(np.square(behind).mean() / np.square(front).mean())


def test_a_mean_in_the_bias_makes_gelu_better():
  """Without the bias the same block of counts is further off."""
  config = dataclasses.replace(BASE, **KINDS["gelu"])
  params = gpt.init_params(config, jax.random.key(2))
  how = Recipe(ticks=None, mlp_ticks=8)
  ids = np.random.default_rng(1).integers(0, 19, (160, 8))
  made = convert(config, params, ids, how)
  without = jax.tree.map(lambda x: x, made[1])
  for layer, old in zip(without["layers"], params["layers"], strict=True):
    layer["mlp"]["down"]["bias"] = old["mlp"]["down"]["bias"]
  error = lambda p: conversion.layers((config, params), (made[0], p), ids)[0][
    "feed_forward"
  ]["error"]
  assert error(made[1]) < 0.95 * error(without)


def test_rates_stand_under_their_names():
  rates = {"k": 0.1, "out": 0.2, "q": 0.3, "v": 0.4}
  attention = {"error": 0.5, "rates": rates}
  row = {"layer": 0, "attention": attention, "feed_forward": None}
  people = tables.console()
  with people.capture() as said:
    conversion.show(people, {"parts": [], "layers": [{**row, "stream": 0.25}]})
  lines = [line.split() for line in said.get().splitlines()]
  assert ["layer", "added,", "%", "q", "k", "v", "out"] in lines
  assert ["0", "50.00", "0.300", "0.100", "0.400", "0.200"] in lines


def test_no_conversion_has_no_report():
  params = gpt.init_params(BASE, jax.random.key(0))
  with pytest.raises(ConfigError, match="same attention and feed-forward"):
    conversion.layers((BASE, params), (BASE, params), IDS)
