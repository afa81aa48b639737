"""A pruned model is its masked model: integers exactly, floats up to ulps."""

import dataclasses

import chex
import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

import jaxnmc as nmc
from jaxnmc.compress import heads, shrink, units
from jaxnmc.errors import ConfigError, PlanError
from jaxnmc.models import gpt
from jaxnmc.numerics.fx import codes
from tests.compress.small import (
  CONFIGS,
  HEADS,
  IDS,
  UNITS,
  heads_of,
  in_float64,
  make_params,
)

INTEGERS = (
  "spiking",
  pytest.param("windows", marks=pytest.mark.slow),
)


def pair(name, dtype="float64"):
  """(config, masked params), (config, pruned params)."""
  config, params = CONFIGS[name], make_params(name, dtype)
  parts = (heads_of(name), UNITS)
  with jax.enable_x64(dtype == "float64"):
    masked = jax.device_get(shrink.masked(config, params, *parts))
    small, pruned = shrink.shrink(config, params, *parts)
    return (config, masked), (small, jax.device_get(pruned))


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_are_those_of_the_config(name):
  (config, masked), (small, pruned) = pair(name)
  chex.assert_trees_all_equal_shapes(masked, make_params(name))
  want = {row.path: row.shape for row in gpt.parameters(small)}
  found = {
    jax.tree_util.keystr(k, simple=True, separator="."): x.shape
    for k, x in jax.tree_util.tree_leaves_with_path(pruned)
  }
  assert found == want
  assert sum(x.size for x in jax.tree.leaves(pruned)) == small.num_params
  assert small.num_params < config.num_params
  group = config.num_heads // config.kv_heads
  counts = [group * int(k.sum()) for k in heads_of(name)]
  assert [here.num_heads for here in small.layers] == counts
  assert [here.mlp_size for here in small.layers] == [5, 7]
  assert small.head_size == config.head_size


@pytest.mark.parametrize("name", CONFIGS)
def test_in_floats_it_is_the_masked_model_up_to_rounding(name):
  """A sum without its zeros may be added in another order; else the same."""
  (config, masked), (small, pruned) = pair(name)
  want, _ = in_float64(config, masked)
  found, state = in_float64(small, pruned)
  scale = np.abs(want).max()
  np.testing.assert_allclose(found, want, rtol=0, atol=64 * 2**-52 * scale)
  whole, _ = in_float64(config, make_params(name))
  assert np.abs(whole - want).max() > 0.01 * scale, "what went had a part"
  if name not in ("llama", "windows"):
    return
  # Token by token, from a state of its own sizes.
  now = jax.tree.map(
    lambda x: np.float64(x) if x.dtype == np.float32 else x,
    gpt.init_state(small, (2,)),
  )
  rows = []
  for t in range(9):
    row, now = in_float64(small, pruned, IDS[:, t : t + 1], now)
    rows.append(row)
  np.testing.assert_allclose(
    np.concatenate(rows, 1), want, rtol=0, atol=1e-12 * scale
  )
  chex.assert_trees_all_close(now, state, atol=1e-12)


@pytest.mark.parametrize("name", INTEGERS)
def test_in_integers_it_is_the_masked_model(name):
  """The formats of the masked model's plan; every logit, and every memory."""
  (config, masked), (small, pruned) = pair(name, "float32")
  fn, smaller = gpt.make(config), gpt.make(small)
  plan = nmc.plan(nmc.calibrate(fn)(masked, [IDS]), nmc.quantize.W8A16)
  fitted = shrink.plan_for(plan, pruned)
  assert fitted.formats == plan.formats
  run = lambda fn, plan, params: jax.jit(nmc.fixed(fn, plan, taps=True))(
    nmc.quantize_params(params, plan), {"ids": IDS}
  )
  want, _, sites = run(fn, plan, masked)
  found, _, fewer = run(smaller, fitted, pruned)
  np.testing.assert_array_equal(codes(found.logits), codes(want.logits))
  assert len(np.unique(codes(want.logits))) > 20
  assert list(fewer) == list(sites)
  for path, value in fewer.items():
    ours, theirs = codes(value), codes(sites[path])
    if ours.shape == theirs.shape:
      np.testing.assert_array_equal(ours, theirs, path)
  spikes = codes(sites["layers.1.attn.ssa.q_spikes.0"])
  kept = np.repeat(HEADS[1], config.head_size)
  assert not spikes[..., ~kept].any()
  np.testing.assert_array_equal(
    codes(fewer["layers.1.attn.ssa.q_spikes.0"]), spikes[..., kept]
  )


@pytest.mark.parametrize("name", ["gpt2"])
def test_fake_quant_takes_a_pruned_model_with_softmax(name):
  """It has no integers, so formats are simulated; taps are those of masks."""
  (config, masked), (small, pruned) = pair(name, "float32")
  fn, smaller = gpt.make(config), gpt.make(small)
  plan = nmc.plan(nmc.calibrate(fn)(masked, [IDS]), nmc.quantize.W8A16)
  fitted = shrink.plan_for(plan, pruned)
  with jax.enable_x64(True):
    run = lambda fn, plan, params: (
      jax.jit(nmc.fake_quant(fn, plan))(
        jax.tree.map(np.float64, params), {"ids": IDS}
      )[0].logits
    )
    want, found = run(fn, plan, masked), run(smaller, fitted, pruned)
  np.testing.assert_array_equal(codes(found), codes(want))


def test_windows_go_with_their_heads():
  small, _ = shrink.shrink(CONFIGS["windows"], make_params("windows"), HEADS)
  assert small.windows == ((2, 4, 3), (4,))
  assert small.heads_per_layer == (3, 1)
  again = [np.array(x, bool) for x in ([0, 1, 0], [1])]
  _, pruned = shrink.shrink(CONFIGS["windows"], make_params("windows"), HEADS)
  one, _ = shrink.shrink(small, pruned, again)
  assert (one.num_heads, one.heads_per_layer, one.windows) == (1, None, (4,))
  assert one.head_dim == 3


def test_layers_that_stay_equal_need_no_list():
  """Such a config is an ordinary one with a head_dim."""
  alike = [np.array([1, 0, 0, 1], bool)] * 2
  five = [np.arange(10) < 5] * 2
  config, params = CONFIGS["gpt2"], make_params("gpt2")
  small, _ = shrink.shrink(config, params, alike, five)
  want = dataclasses.replace(
    config, num_heads=2, head_dim=3, intermediate_size=5
  )
  assert small == want
  same, kept = shrink.shrink(config, params)
  assert same == config
  chex.assert_trees_all_equal(kept, params)
  chex.assert_trees_all_equal(shrink.masked(config, params), params)


@st.composite
def masks(draw, size):
  row = st.lists(st.booleans(), min_size=size, max_size=size).filter(any)
  return [np.array(draw(row)) for _ in range(2)]


@hypothesis.settings(max_examples=10)
@hypothesis.given(masks(4), masks(10))
def test_any_masks_give_what_is_left_of_every_matrix(some, others):
  config, params = CONFIGS["spiking"], make_params("spiking", "float32")
  small, pruned = shrink.shrink(config, params, some, others)
  masked = shrink.masked(config, params, some, others)
  size = config.head_size
  for layer, mine, full, h, u in zip(
    masked["layers"], pruned["layers"], params["layers"], some, others
  ):
    rows = np.repeat(h, size)
    for name in "qkv":
      for leaf in ("weight", "bias"):
        left = layer["attn"][name][leaf]
        np.testing.assert_array_equal(left[rows], mine["attn"][name][leaf])
        np.testing.assert_array_equal(
          left[rows], full["attn"][name][leaf][rows]
        )
        assert not left[~rows].any()
    o, down = layer["attn"]["o"]["weight"], layer["mlp"]["down"]["weight"]
    np.testing.assert_array_equal(o[:, rows], mine["attn"]["o"]["weight"])
    assert not o[:, ~rows].any()
    assert not down[:, ~u].any()
    assert not layer["mlp"]["up"]["weight"][~u].any()
    assert not layer["mlp"]["up"]["bias"][~u].any()
    for name in ("q", "out"):
      np.testing.assert_array_equal(
        mine["attn"]["ssa"][name], full["attn"]["ssa"][name][rows]
      )
    np.testing.assert_array_equal(
      mine["mlp"]["fire"], full["mlp"]["fire"][:, u]
    )
    np.testing.assert_array_equal(
      mine["attn"]["o"]["bias"], full["attn"]["o"]["bias"]
    )
  assert [c.num_heads for c in small.layers] == [int(h.sum()) for h in some]


def test_by_shares():
  config, params = CONFIGS["tiny"], make_params("tiny")
  small, _ = shrink.shrink(
    config,
    params,
    heads.keep(config, params, 0.4),
    units.keep(config, params, 0.3),
  )
  assert sum(c.num_heads for c in small.layers) == 8 - 3
  assert small.intermediate_size == 7


# --- what is refused


@pytest.mark.parametrize(
  ("some", "others", "message"),
  [
    (HEADS[:1], None, "found 1 masks of heads, the model has 2 layers"),
    ([HEADS[0], HEADS[1][:3]], None, r"layer 1: found heads as bool\[3\]"),
    ([HEADS[0], np.arange(4)], None, r"layer 1: found heads as int64\[4\]"),
    (None, [np.zeros(10, bool)] * 2, "layer 0 would keep none of its 10 units"),
    ([HEADS[0], np.zeros(4, bool)], None, "layer 1 would keep none of its 4"),
  ],
)
def test_masks_that_do_not_fit(some, others, message):
  for change in (shrink.shrink, shrink.masked):
    with pytest.raises(ConfigError, match=message) as error:
      change(CONFIGS["tiny"], make_params("tiny"), some, others)
    assert "\n" not in str(error.value)


def test_a_plan_of_another_model():
  (_, masked), (small, pruned) = pair("spiking", "float32")
  fn = gpt.make(small)
  plan = nmc.plan(nmc.calibrate(fn)(pruned, [IDS[:, :2]]), nmc.quantize.W8A16)
  with pytest.raises(PlanError, match="layers.1.* is not there"):
    shrink.plan_for(plan, {**pruned, "layers": pruned["layers"][:1]})
  with pytest.raises(PlanError, match="has shape"):
    plan.check_params(masked)
