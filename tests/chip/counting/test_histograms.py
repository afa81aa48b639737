"""Sizes of messages and who sends them, against the values of `fixed`."""

import dataclasses

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from numpy import testing as npt

import jaxnmc as nmc
from jaxnmc.chip.counting import histograms
from jaxnmc.chip.counting.counters import Counters
from jaxnmc.chip.routing import traffic
from jaxnmc.errors import PlanError, UserError
from jaxnmc.models import matmulfree
from jaxnmc.numerics.fx import codes
from jaxnmc.ops.execute import executable
from tests.chip import tiny

IDS = np.array([3, 1, 4, 1, 5, 9, 2, 6], np.int32)


@pytest.fixture(scope="module")
def placed():
  """A model whose last two layers are alike, so that one scan runs them."""
  config = dataclasses.replace(tiny.TINY, num_layers=3, norm="fused")
  params = matmulfree.init_params(config, jax.random.key(0))
  params["embed"]["weight"] *= 20
  fn = matmulfree.make(config)
  ids = np.random.default_rng(0).integers(0, config.vocab_size, (4, 16))
  stats = nmc.calibrate(fn)(params, [ids.astype(np.int32)])
  plan = nmc.plan(stats, nmc.quantize.W8A16)
  qparams = nmc.quantize_params(params, plan)
  graph = nmc.record(fn, plan, qparams)
  assert 2 in [len(run.layers) for run in executable(graph).runs]
  return fn, plan, qparams, nmc.place(graph, nmc.chip.loihi2(chips=1))


@pytest.fixture(scope="module")
def run(placed):
  fn, plan, _, placement = placed
  return nmc.loihi(fn, plan, placement, histograms=True)


@pytest.fixture(scope="module")
def counters(placed, run):
  return run(placed[2], {"ids": IDS})[2]


def _by_hand(placed, ids):
  """{value: (bits, sent)} counted number by number from `fixed`."""
  fn, plan, qparams, placement = placed
  values = nmc.fixed(fn, plan, taps=True)(qparams, {"ids": ids})[2]
  found = {}
  for route in traffic.routes(placement):
    path = route.synapse.path
    x = np.asarray(codes(values[path]))
    x = x.reshape(-1, x.shape[-1])
    bits, sent = [0] * 33, [0] * x.shape[1]
    for row in x.tolist():
      for neuron, number in enumerate(row):
        bits[abs(number).bit_length()] += 1
        sent[neuron] += number != 0
    found[path] = (bits, sent)
  return found


def _same(found, expected, tokens):
  assert found.keys() == expected.keys()
  for path, (bits, sent) in expected.items():
    assert found[path].bits.tolist() == bits, path
    assert found[path].sent.tolist() == sent, path
    assert found[path].tokens == tokens


def test_every_value_that_is_sent_is_counted_as_by_hand(placed, counters):
  found = counters.histograms
  _same(found, _by_hand(placed, IDS), len(IDS))
  # Each value's bins hold every neuron and token, and zero is not sent.
  for one in found.values():
    assert one.bits.sum() == len(one.sent) * len(IDS)
    assert one.bits[1:].sum() == one.sent.sum()


def test_runs_add_up(counters):
  merged = counters.merge(counters)
  for path, one in counters.histograms.items():
    npt.assert_array_equal(merged.histograms[path].bits, 2 * one.bits)
    npt.assert_array_equal(merged.histograms[path].sent, 2 * one.sent)
    assert merged.histograms[path].tokens == 2 * one.tokens
  plain = dataclasses.replace(counters, histograms=None)
  assert counters.merge(plain).histograms is None


@pytest.mark.slow
def test_batches_and_masks(placed, run):
  qparams = placed[2]
  batch = np.stack([IDS, IDS[::-1]])
  found = run(qparams, {"ids": batch})[2].histograms
  expected = _by_hand(placed, batch)
  _same(found, expected, batch.size)
  # The interpreter of `fixed`, which a mask takes, counts the same.
  mask = np.ones_like(batch)
  found = run(qparams, {"ids": batch, "mask": mask})[2].histograms
  _same(found, expected, batch.size)


def test_they_agree_with_the_counters(placed, counters):
  *_, placement = placed
  sources = {s.path: s.src for s in placement.network.synapses}
  total = sum(
    one.sent.sum()
    for path, one in counters.histograms.items()
    if placement.tiles_of[sources[path]]
  )
  assert total == counters.total("messages_out").sum()


def test_the_stepped_engine_does_not_count_them(placed):
  fn, plan, _, placement = placed
  with pytest.raises(PlanError, match="does not count histograms"):
    nmc.loihi(fn, plan, placement, engine="stepped", histograms=True)


def test_ends_of_the_integers():
  x = [[0, 1, -1, 2**31 - 1, -(2**31)], [0, 0, 7, -8, 1 << 30]]
  found = histograms.counted(histograms.measure(jnp.array(x, jnp.int32)), 2)
  expected = {0: 3, 1: 2, 3: 1, 4: 1, 31: 2, 32: 1}
  assert {k: n for k, n in enumerate(found.bits.tolist()) if n} == expected
  assert found.sent.tolist() == [0, 1, 2, 2, 2]


def test_roles_take_the_layers_together():
  ones = {
    f"layers.{k}.a": histograms.Histogram(
      np.eye(33, dtype=np.int64)[k], np.array([k, 0]), 1
    )
    for k in (0, 1)
  }
  other = histograms.Histogram(np.zeros(33, np.int64), np.array([5]), 1)
  found = histograms.by_role({**ones, "embed": other})
  assert [*found] == ["layers.*.a", "embed"]
  assert found["layers.*.a"].sent.tolist() == [0, 0, 1, 0]
  assert found["layers.*.a"].bits.tolist()[:3] == [1, 1, 0]


def test_json_round_trip_and_bad_fields(counters):
  text = counters.to_json()
  again = Counters.from_json(text)
  assert again.to_json() == text
  assert again.histograms.keys() == counters.histograms.keys()
  plain = dataclasses.replace(counters, histograms=None)
  assert "histograms" not in plain.to_json()
  for bad in ('"bits": [0, ', '"bits": [-1, ', '"bits": [0.5, '):
    wrong = text.replace('"bits": [', bad, 1)
    with pytest.raises(UserError, match=r"histograms\..* must have 33 counts"):
      Counters.from_json(wrong)
