"""Conversion to spikes: what it refuses, what is exact, what it gets close."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

import jaxnmc as nmc
from jaxnmc.errors import ConfigError
from jaxnmc.models import gpt, to_spikes
from jaxnmc.models.to_spikes import Recipe, convert

SIZES = {
  "vocab_size": 13,
  "hidden_size": 8,
  "num_layers": 1,
  "num_heads": 2,
  "intermediate_size": 24,
  "max_position_embeddings": 16,
}
LLAMA = gpt.Config(**SIZES)
GPT2 = gpt.Config(
  **SIZES,
  norm="layer",
  mlp="gelu_tanh",
  positions="learned",
  bias=True,
)
IDS = np.random.default_rng(1).integers(0, 13, (64, 16)).astype(np.int32)
MLP = Recipe(ticks=None, mlp_ticks=8, mlp_top="maximum")


@functools.cache
def make_params(config, seed=0):
  draw = np.random.default_rng(seed)
  start = lambda row: float(row.kind == "gain")
  rows = gpt.parameters(config)
  return gpt.build(
    {
      r.path: np.float32(start(r) + 0.5 * draw.normal(size=r.shape))
      for r in rows
    }
  )


def logits(config, params, ids=IDS[:16]):
  run = jax.jit(nmc.reference(gpt.make(config)))
  return np.asarray(run(params, {"ids": ids})[0].logits)


# --- what is refused


@pytest.mark.parametrize(
  ("changes", "how", "message"),
  [
    ({}, Recipe(ticks=None, mlp_ticks=None), "neither ticks nor mlp_ticks"),
    ({"ternary": True}, Recipe(), "matrices of this model are ternary"),
    ({"attention": "ssa"}, Recipe(), "attention of this model is 'ssa' alre"),
    ({"mlp_ticks": 4}, Recipe(), "spike already, with 4 ticks; give mlp_ticks"),
    ({}, Recipe(positions="learned"), "are 'rotary'; it has no learned ones"),
    ({}, Recipe(ticks=0), "ticks is 0; allowed are whole numbers from 1"),
    ({}, Recipe(mlp_ticks=0), "ticks is 0; allowed are whole numbers from 1"),
    ({}, Recipe(mlp_ticks=2.5), "ticks is 2.5; allowed are whole numbers"),
    ({}, Recipe(ticks=65), "'ticks' must be .* to 64; found 65"),
    ({}, Recipe(neuron="hh"), "'neuron' must be one of lif, if; found 'hh'"),
    ({}, Recipe(windows=(3,)), "'windows' must be null or a list of 2"),
    ({}, Recipe(positions="sines"), "'positions' must be one of rotary"),
  ],
)
def test_what_cannot_be_converted(changes, how, message):
  config = dataclasses.replace(LLAMA, **changes)
  with pytest.raises(ConfigError, match=message) as error:
    convert(config, {}, IDS, how)  # refused before parameters are touched
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("how", "message"),
  [
    (dataclasses.replace(MLP, mlp_top="most"), "found 'most'; allowed are lea"),
    (dataclasses.replace(MLP, mlp_top="pmost"), "found 'pmost'; allowed are"),
    (dataclasses.replace(MLP, mlp_top="p0"), "percentile is 0.0; allowed are"),
    (dataclasses.replace(MLP, mlp_top="p101"), "percentile is 101.0; allowed"),
    (
      dataclasses.replace(MLP, mlp_top="p99.9"),
      "has 32 values per channel; percentile 99.9 needs at least 1000",
    ),
    (
      Recipe(mlp_ticks=None, share=99.99),
      "has 256 values; percentile 99.99 needs at least 10000",
    ),
    (Recipe(mlp_ticks=None, share=0), "percentile is 0; allowed are"),
  ],
)
def test_thresholds_that_calibration_cannot_tell(how, message):
  with pytest.raises(ConfigError, match=message):
    convert(LLAMA, make_params(LLAMA), IDS[:2], how)


def test_a_silent_layer_has_no_threshold():
  params = make_params(LLAMA)
  layer = params["layers"][0]
  up = {"weight": 0 * layer["mlp"]["up"]["weight"]}
  mlp = {**layer["mlp"], "up": up}
  params = {**params, "layers": [{**layer, "mlp": mlp}]}
  with pytest.raises(ConfigError, match="no value of the calibration set"):
    convert(LLAMA, params, IDS, MLP)


# --- feed-forward blocks


@pytest.mark.slow
def test_blocks_come_closer_with_ticks():
  """Half a step at most from each neuron, so twice the ticks halve it."""
  config = dataclasses.replace(GPT2, mlp="relu")
  params = make_params(config)
  want = logits(config, params)
  errors = []
  for ticks in (2, 8, 32):
    how = dataclasses.replace(MLP, mlp_ticks=ticks)
    made, converted = convert(config, params, IDS, how)
    assert (made.mlp_ticks, made.attention) == (ticks, "softmax")
    errors.append(np.abs(logits(made, converted) - want).mean() / want.std())
  assert errors[0] > 2.5 * errors[1] > 2.5**2 * errors[2]
  assert errors[2] < 0.01


def test_tops_are_as_asked():
  values = np.random.default_rng(0).gamma(1.0, size=(2000, 3))
  tops = functools.partial(to_spikes._tops, values, 8, signed=False)
  np.testing.assert_array_equal(tops("maximum"), values.max(0))
  want = np.percentile(values, 99, axis=0)
  np.testing.assert_allclose(tops("p99"), want)
  best = tops("least_error")
  error = lambda top: np.mean(
    (np.clip(np.round(values / top * 8), 0, 8) * top / 8 - values) ** 2
  )
  assert (best < values.max(0)).all()
  assert error(best) < min(error(0.7 * best), error(1.4 * best))


# --- attention


def test_the_model_trains_by_the_surrogate_that_was_asked_for():
  how = Recipe(signed=True, share=80.0, mlp_ticks=None, surrogate="boxcar")
  made, _ = convert(GPT2, make_params(GPT2), IDS[:4], how)
  assert made.surrogate == "boxcar"


def test_least_squares_give_what_the_stream_lacks():
  """W_o and b exact where counts tell all, up to the ridge."""
  draw = np.random.default_rng(0)
  counts = draw.integers(0, 4, (50, 8, 6)).astype(np.float32)
  weight, bias = draw.normal(size=(5, 6)), draw.normal(size=5)
  wanted = counts @ weight.T + bias
  found, offset = to_spikes._fit(counts, wanted)
  gap = np.abs(counts @ found.T + offset - wanted).max()
  assert gap < 0.05 * wanted.std()
  # The ridge is relative to the counts: it shrinks by about a hundredth.
  square = np.cov(counts.reshape(-1, 6).T, bias=True)
  ridge = to_spikes._RIDGE * square.diagonal().mean()
  shrunk = np.linalg.solve(square + ridge * np.eye(6), square @ weight.T).T
  np.testing.assert_allclose(found, shrunk, rtol=1e-6, atol=1e-6)
