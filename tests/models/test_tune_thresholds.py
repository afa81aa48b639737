"""Thresholds of spiking transformers: scaled, judged, tuned to a budget."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import jaxnmc as nmc
from jaxnmc.errors import ConfigError
from jaxnmc.models import gpt, spike_counts, to_spikes
from jaxnmc.models.threshold_scale import scaled
from jaxnmc.models.tune_thresholds import Judge, grid, tune
from jaxnmc.ops.reference import gelu
from jaxnmc.spike.budget import BudgetError

DENSE = gpt.Config(
  vocab_size=19,
  hidden_size=8,
  num_layers=1,
  num_heads=2,
  intermediate_size=12,
  max_position_embeddings=8,
  norm="layer",
  mlp="relu",
  positions="learned",
  tie_word_embeddings=False,
  initializer_range=0.5,
)
IDS = np.random.default_rng(0).integers(0, 19, (24, 8)).astype(np.int32)


@functools.cache
def models(mlp="relu", ticks=3):
  """(dense, spiking), each (config, params)."""
  config = dataclasses.replace(DENSE, mlp=mlp, bias=mlp == "gelu")
  params = gpt.init_params(config, jax.random.key(0))
  how = to_spikes.Recipe(ticks=ticks, mlp_ticks=ticks, share=90, mlp_top="p90")
  return (config, params), to_spikes.convert(config, params, IDS, how)


@functools.cache
def judge(**options):
  dense, spiking = models()
  return Judge(dense, spiking, IDS, **options)


# --- what a multiplier does


@pytest.mark.parametrize("mlp", ["relu", "gelu", "swiglu"])
@pytest.mark.parametrize("m", [0.5, 1.0, 3.0])
def test_a_block_stands_for_m_times_as_much_in_steps_of_m(mlp, m):
  """n spikes: where the activation reaches (n - 1/2) m top / T, worth n m."""
  _, (config, params) = models(mlp)
  found = scaled(config, params, {"0.mlp": m})
  before, after = params["layers"][0]["mlp"], found["layers"][0]["mlp"]
  act = (lambda x: gelu(x, "erf")) if mlp == "gelu" else (lambda x: x)
  np.testing.assert_allclose(
    act(after["fire"]), m * act(before["fire"]), rtol=2e-5, atol=1e-6
  )
  assert (np.diff(after["fire"], axis=0) > 0).all()
  np.testing.assert_allclose(
    after["down"]["weight"], m * before["down"]["weight"], rtol=1e-6
  )
  rest = [x["layers"][0]["attn"] for x in (found, params)]
  jax.tree.map(np.testing.assert_array_equal, *rest)


def test_thresholds_of_attention_are_multiplied():
  _, (config, params) = models()
  many = {"0.q": 2.0, "0.k": 3.0, "0.v": 0.5, "0.out": 5.0}
  found = scaled(config, params, many)["layers"][0]["attn"]
  before = params["layers"][0]["attn"]
  ratio = {
    k: float(jnp.exp(found["ssa"][k] - before["ssa"][k]).mean())
    for k in ("q", "k", "v", "out")
  }
  # The memory shrinks with the spikes that fill and read it.
  assert ratio == pytest.approx({"q": 2, "k": 3, "v": 0.5, "out": 5 / 3})
  np.testing.assert_allclose(
    found["o"]["weight"], 5 * before["o"]["weight"], rtol=1e-6
  )


def test_multipliers_of_1_change_nothing():
  _, (config, params) = models()
  ones = {site.key: 1.0 for site in spike_counts.sites(config, params)}
  found = scaled(config, params, ones)
  jax.tree.map(np.testing.assert_array_equal, found, dict(params))


def test_an_unknown_site():
  _, (config, params) = models()
  with pytest.raises(ConfigError, match=r"no site '2\.q'; sites of this model"):
    scaled(config, params, {"2.q": 2.0})


# --- what they come to


def by_hand(multipliers):
  """(spikes of each text, KL) without the class."""
  (dense, given), (config, params) = models()
  params = scaled(config, params, multipliers)
  logits = lambda c, p: np.float64(
    jax.jit(nmc.reference(gpt.make(c)))(p, {"ids": IDS})[0].logits
  )
  p, q = logits(dense, given), logits(config, params)
  log = lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True))
  kl = (np.exp(log(p)) * (log(p) - log(q))).sum(-1).mean()
  return spike_counts.count(config, params, IDS).spikes.sum(1), kl


@pytest.mark.parametrize("over", ["worst", "mean"])
def test_a_point_is_spikes_and_divergence(over):
  many = {"0.q": 1.5, "0.mlp": 0.5, "0.out": 2.0}
  point = judge(over=over)(many)
  spikes, kl = by_hand(many)
  assert point.spikes == (spikes.max() if over == "worst" else spikes.mean())
  assert point.divergence == pytest.approx(kl, rel=1e-4)
  assert point.multipliers == many


def test_batches_and_padding_change_nothing():
  dense, spiking = models()
  mask = np.ones_like(IDS)
  mask[:, 0] = 0
  padded = np.insert(IDS[:, :7], 0, 3, axis=1)
  few = Judge(dense, spiking, padded, mask, batch=7)
  one = Judge(dense, spiking, IDS[:, :7])
  ones = {site.key: 1.0 for site in few.sites}
  assert few(ones).spikes == one(ones).spikes
  assert few(ones).divergence == pytest.approx(one(ones).divergence, rel=1e-5)


# --- tuned


@pytest.mark.parametrize("share", [0.7, 0.25, 0.0])
def test_the_budget_is_honoured(share):
  ones = {site.key: 1.0 for site in judge().sites}
  most = share * judge()(ones).spikes
  found = tune(judge(), most, passes=1)
  params = judge().params(found.best)
  counted = spike_counts.count(models()[1][0], params, IDS)
  assert counted.worst == found.best.spikes <= most
  assert found.uniform.spikes <= most
  assert found.best.divergence <= found.uniform.divergence


def test_one_by_one_is_nearer_than_all_at_once():
  ones = {site.key: 1.0 for site in judge().sites}
  found = tune(judge(), 0.5 * judge()(ones).spikes, passes=2)
  assert found.best.divergence < found.uniform.divergence
  _, kl = by_hand(found.best.multipliers)
  assert kl == pytest.approx(found.best.divergence, rel=1e-4)


def test_a_budget_that_no_threshold_meets():
  with pytest.raises(BudgetError, match=r"up to 1\.1 times .*nearest is \d+"):
    tune(judge(), 1, span=1.1)


def test_the_grid_has_every_pair():
  judges = {ticks: Judge(*models(ticks=ticks), IDS) for ticks in (1, 3)}
  told = []
  rows = grid(judges, [0.5, 1, 2], 250, told.append)
  assert [(r["ticks"], r["multiplier"]) for r in rows] == [
    (t, m) for t in (1, 3) for m in (0.5, 1.0, 2.0)
  ]
  assert len(told) == 6
  assert {r["fits"] for r in rows} == {True, False}
  (best,) = [r for r in rows if r["best"]]
  assert best["divergence"] == min(r["divergence"] for r in rows if r["fits"])
  assert all(r["fits"] == (r["spikes"] <= 250) for r in rows)
  assert (
    rows[4]["spikes"]
    == judge()({site.key: 1.0 for site in judge().sites}).spikes
  )


@pytest.mark.parametrize("bad", [[], [0.0], [1, -2]])
def test_a_grid_of_nothing(bad):
  with pytest.raises(ConfigError, match="threshold grid: found ticks"):
    grid({3: judge()}, bad)


def test_what_cannot_be_judged():
  dense, spiking = models()
  other = dataclasses.replace(DENSE, vocab_size=20)
  with pytest.raises(ConfigError, match="20 tokens, this one 19"):
    Judge((other, dense[1]), spiking, IDS)
  with pytest.raises(ConfigError, match="over is 'most'"):
    Judge(dense, spiking, IDS, over="most")
  with pytest.raises(ConfigError, match="nothing in this model spikes"):
    Judge(dense, dense, IDS)
