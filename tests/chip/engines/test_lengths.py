"""Sequences of any length: cut, padded, in batches; states kept or donated."""

import functools

import chex
import jax
import numpy as np
import pytest

import jaxnmc as nmc
from jaxnmc.chip.engines import functional
from tests.chip.mini import VOCAB, mini


@functools.cache
def case():
  net = mini(2, 5)
  hardware = nmc.chip.loihi2(chips=1, cores_per_chip=5)
  return net, nmc.place(net.graph, hardware, head="chip")


@functools.cache
def engine(**options):
  net, placement = case()
  return net.loihi(placement, **options)


def draw(*shape):
  return np.random.default_rng(shape).integers(0, VOCAB, shape, np.int32)


@pytest.fixture(autouse=True)
def short(monkeypatch):
  """Few lengths that are soon exceeded."""
  monkeypatch.setitem(functional.LENGTHS, "cpu", (1, 3, 7))


def check(ids, run, state=None):
  net, _ = case()
  *found, counters = run(net.qparams, {"ids": ids}, state)
  want = net.fixed(net.qparams, {"ids": ids}, state)
  chex.assert_trees_all_equal(tuple(found), tuple(want))
  assert counters.tokens == ids.size
  return found[1], counters


@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 6, 7, 8, 10, 21, 22])
def test_every_length_has_the_integers_and_counts_of_its_tokens(tokens):
  """Padding changes nothing, wherever the sequence is cut."""
  ids = draw(tokens)
  _, counters = check(ids, engine())
  state, one_by_one = None, None
  for token in ids:
    state, more = check(token[None], engine(), state)
    one_by_one = more if one_by_one is None else one_by_one.merge(more)
  for name in ("messages_out", "messages_in", "synops", "synops_stored"):
    np.testing.assert_array_equal(
      counters.total(name), one_by_one.total(name), err_msg=name
    )


def test_few_programs_serve_all_lengths():
  net, placement = case()
  run = net.loihi(placement)
  state = None
  for tokens in (5, 20, 6, 13, 7):
    *_, state, _ = run(net.qparams, {"ids": draw(tokens)}, state)
  assert run._jit._cache_size() == 2  # of 3 tokens (what is left) and of 7


def test_batches_are_cut_alike():
  net, _ = case()
  ids = draw(3, 10)
  state, counters = check(ids, engine())
  one = [engine()(net.qparams, {"ids": row}) for row in ids]
  for k, (_, last, count) in enumerate(one):
    mine = jax.tree.map(lambda x, k=k: x[k], state)
    chex.assert_trees_all_equal(mine, last)
    stretch, want = counters.stretches[k], count.stretches[0]
    np.testing.assert_array_equal(
      stretch.steps_of["stored"], want.steps_of["stored"]
    )
  check(ids[:, :2], engine(), state)


@pytest.mark.parametrize("option", ["histograms", "checked"])
def test_what_is_watched_sees_no_padding(option):
  ids = draw(10)
  run = engine(**{option: True})
  _, counters = check(ids, run)
  plain = check(ids, engine())[1]
  np.testing.assert_array_equal(
    counters.total("messages_out"), plain.total("messages_out")
  )
  if option == "histograms":
    for one in counters.histograms.values():
      assert one.tokens == len(ids)
      assert (one.sent <= len(ids)).all()


def test_a_state_is_overwritten_only_where_it_was_donated():
  net, placement = case()
  state, _ = check(draw(4), engine())
  check(draw(1), engine(), state)
  check(draw(1), engine(), state)  # still there
  gone = net.loihi(placement, donate=True)
  want = net.fixed(net.qparams, {"ids": draw(9)}, state)
  found = gone(net.qparams, {"ids": draw(9)}, state)
  chex.assert_trees_all_equal(found[:2], want)
  assert all(x.is_deleted() for x in jax.tree.leaves(state))
