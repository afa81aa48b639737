"""Formats as data: the same numbers as a plan of their own, never compiled."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import jaxnmc as nmc
from jaxnmc.errors import PlanError
from jaxnmc.evaluate import closeness, trials
from jaxnmc.io.tokenizer import ByteTokenizer
from jaxnmc.models import matmulfree
from jaxnmc.numerics.float_formats import grids_of
from jaxnmc.numerics.formats import Format
from jaxnmc.ops import transform

BOS = ByteTokenizer().bos_id
CONFIG = matmulfree.Config(
  vocab_size=ByteTokenizer().vocab_size,
  hidden_size=16,
  num_layers=2,
  intermediate_size=24,
  rms_norm_eps=1e-3,
  bitlinear_eps=1e-3,
)
TEXTS = [
  np.frombuffer(x, np.uint8).astype(np.int32)
  for x in (b"a text that is long enough", b"another", b"and a third one")
]
WATCH = ("layers.0.attn.in_norm.i", "layers.1.mlp.down.norm")


@pytest.fixture(scope="module")
def model():
  """(fn, params, statistics, plan) of random weights."""
  params = matmulfree.init_params(CONFIG, jax.random.key(3))
  # Large matrices: what happens in the layers shall be seen in the logits.
  params = jax.tree.map(lambda x: 8 * x if x.ndim == 2 else x, params)
  fn = matmulfree.make(CONFIG)
  ids = np.stack([np.resize(t, 24) for t in TEXTS])
  stats = nmc.calibrate(fn, histograms=True)(params, [ids])
  return fn, params, stats, nmc.plan(stats, nmc.quantize.W8A16)


@pytest.fixture(scope="module")
def tried(model):
  """Trials of the plan."""
  fn, params, _, plan = model
  return trials.Trials(fn, params, plan, TEXTS, bos=BOS, watch=WATCH)


@pytest.mark.slow
def test_grids_round_as_the_formats_do(model):
  """One program for two plans; both as `Rounding` with these plans."""
  fn, params, stats, plan = model
  ids = jnp.asarray(TEXTS[0])
  run = transform.on_grids(fn, plan, WATCH)
  compiled = jax.jit(run)
  other = trials.narrowed(plan, stats, {WATCH[0]: 5, "layers.1.out": 6})
  assert other.format(WATCH[0]).bits == 5
  for one in (plan, other):
    grids = grids_of([one.formats[s] for s in run.sites])
    out, _, counts = compiled(params, grids, {"ids": ids})
    ops = transform.Rounding(one, taps=True)
    wanted = fn(ops, params, {"ids": ids}, None)[0]
    # XLA may order float sums otherwise; a code that flips is a step away.
    np.testing.assert_allclose(out.logits, wanted.logits, atol=2e-2, rtol=0)
    for site in WATCH:
      values = np.asarray(ops.tape.values[site])
      assert abs(int(counts[site].sum()) - np.count_nonzero(values)) <= 2
  assert compiled._cache_size() == 1


def test_a_watched_site_must_have_bits(model):
  fn, _, _, plan = model
  with pytest.raises(PlanError, match="nowhere.*nothing to watch"):
    transform.on_grids(fn, plan, ("nowhere",))


def test_nothing_changed_costs_nothing(tried, model):
  close, messages = tried(model[3])
  assert np.abs(close.kl).max() < 1e-5
  assert close.same.sum() == close.ids.sum() == sum(map(len, TEXTS))
  assert close.loss.value == pytest.approx(0, abs=1e-6)
  assert 0 < messages[WATCH[0]] <= CONFIG.hidden_size
  assert 0 < messages[WATCH[1]] <= CONFIG.intermediate_size


def test_effects_are_those_of_plans_made_by_hand(tried, model):
  """Against `fake_quant` of the changed plan, whose bits are integers."""
  fn, params, stats, plan = model
  found = trials.effects(tried, stats, WATCH, (3, 16), calibration="max")
  assert [(e.site, e.bits) for e in found] == [(s, 3) for s in WATCH]
  base = nmc.fake_quant(fn, plan), params
  for e in found:
    changed = trials.narrowed(plan, stats, {e.site: 3}, "max")
    assert str(changed.format(e.site)) == e.format
    differ = {k for k in plan.formats if plan.site(k) != changed.site(k)}
    assert differ == {e.site}
    by_hand = closeness.compare(
      base, (nmc.fake_quant(fn, changed), params), TEXTS, bos=BOS
    )
    kl = by_hand.divergence.value
    assert kl > 1e-4
    assert e.divergence.value == pytest.approx(kl, rel=0.1)
    # Three bits send fewer messages than sixteen.
    assert e.messages < tried(plan)[1][e.site]


def test_progress_counts_what_is_skipped_too(tried, model):
  steps = []
  trials.effects(tried, model[2], WATCH[:1], (24, 16), progress=steps.append)
  assert steps == [1, 1]


def test_narrowing_to_the_bits_it_has_changes_nothing(model):
  _, _, stats, plan = model
  assert trials.narrowed(plan, stats, {WATCH[0]: 16}) is plan


def test_a_plan_with_other_sites_is_refused(tried, model):
  plan = model[3]
  fewer = plan.replace(
    formats={k: f for k, f in plan.formats.items() if k != WATCH[0]}
  )
  with pytest.raises(PlanError, match="other sites"):
    tried(fewer)
  floating = nmc.plan(model[2], nmc.quantize.PT)
  with pytest.raises(PlanError, match="other sites"):
    tried(floating)
  assert isinstance(plan.site(WATCH[0]), Format)
