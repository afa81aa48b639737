"""Codes in two bits: the same model, whichever form its weights have."""

import chex
import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st
from jax import numpy as jnp

import jaxnmc as nmc
from jaxnmc.models import matmulfree
from jaxnmc.models.random_params import random_params
from jaxnmc.numerics import packed


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(
  n=st.integers(1, 5), k=st.integers(1, 700), seed=st.integers(0, 99)
)
def test_codes_come_back(n, k, seed):
  codes = np.random.default_rng(seed).integers(-1, 2, (n, k), np.int8)
  kept = packed.Packed.of(codes)
  assert kept.shape == (n, k)
  assert kept.size == codes.size
  assert kept.data.nbytes == n * packed.row_bytes(k)
  np.testing.assert_array_equal(np.asarray(kept), codes)
  np.testing.assert_array_equal(kept.astype(np.float32), codes)
  assert (kept.min(), kept.max()) == (codes.min(), codes.max())
  there = jax.jit(lambda x: x.astype(jnp.int8))(kept)
  assert there.dtype == jnp.int8
  np.testing.assert_array_equal(there, codes)


def test_blocks_of_rows():
  codes = np.random.default_rng(0).integers(-1, 2, (6, 300), np.int8)
  for block, want in zip(
    packed.Packed.of(codes).split(3), np.split(codes, 3), strict=True
  ):
    np.testing.assert_array_equal(np.asarray(block), want)


@pytest.mark.parametrize("wrong", [2, -2, 127])
def test_other_codes_are_refused(wrong):
  with pytest.raises(ValueError, match="-1, 0 and 1"):
    packed.Packed.of(np.full((2, 3), wrong, np.int8))


CONFIG = matmulfree.Config(
  vocab_size=48, hidden_size=24, num_layers=1, intermediate_size=32
)
IDS = np.array([3, 1, 44, 7, 7], np.int32)


def made(kept: bool):
  """(fn, plan, qparams) with weights packed or not."""
  params = random_params(CONFIG, 0, packed=kept)
  fn = matmulfree.make(CONFIG)
  stats = nmc.calibrate(fn)(params, [IDS])
  plan = nmc.plan(stats, nmc.quantize.W8A16)
  return fn, plan, nmc.quantize_params(params, plan)


def test_a_model_of_packed_weights_is_the_same_model():
  fn, plan, plain = made(False)
  _, same, kept = made(True)
  assert same.fingerprint == plan.fingerprint
  assert kept.weights == plain.weights
  types = {str(x.dtype) for x in jax.tree.leaves(kept)}
  assert "uint8" in types
  fixed = jax.jit(nmc.fixed(fn, plan))
  want = fixed(plain, {"ids": IDS})
  chex.assert_trees_all_equal(fixed(kept, {"ids": IDS}), want)
  found = []
  engines = ["functional"], ["functional", "stepped"]
  for qparams, names in zip((plain, kept), engines, strict=True):
    placement = nmc.place(nmc.record(fn, plan, qparams), nmc.chip.loihi2())
    for engine in names:
      run = nmc.loihi(fn, plan, placement, engine=engine)
      *out, counters = run(qparams, {"ids": IDS})
      chex.assert_trees_all_equal(tuple(out), want)
      found.append(counters)
  for other in found[1:]:
    for name in found[0].names:
      np.testing.assert_array_equal(other.total(name), found[0].total(name))
