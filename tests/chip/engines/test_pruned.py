"""A pruned transformer on cores: layers of other sizes are other roles."""

import functools

import chex
import jax
import numpy as np
import pytest

import jaxnmc as nmc
from jaxnmc.models import gpt
from jaxnmc.numerics.fx import codes

# Spiking attention and counts; layers of 2 heads and 1, of 5 units and 3.
CONFIG = gpt.Config(
  vocab_size=9,
  hidden_size=6,
  num_layers=2,
  num_heads=3,
  head_dim=2,
  heads_per_layer=(2, 1),
  intermediate_per_layer=(5, 3),
  max_position_embeddings=8,
  norm="layer",
  mlp="relu",
  positions="learned",
  attention="ssa",
  ticks=1,
  mlp_ticks=2,
  bias=True,
  tie_word_embeddings=False,
  norm_eps=1e-3,
)
IDS = np.array([3, 0, 8, 5, 5, 1], np.int32)


@functools.cache
def build():
  """(fn, plan, qparams, placement, (out, state, sites) of `fixed`)."""
  draw = np.random.default_rng(6)
  start = {"gain": 1.0, "threshold": -1.5}
  spread = {"gain": 0.2, "bias": 0.3, "threshold": 0.2}

  def fill(row):
    noise = draw.normal(size=row.shape)
    if row.kind == "table of thresholds":
      return np.float32(np.sort(0.5 * abs(noise) + 0.05, 0))
    more = spread.get(row.kind, 0.6) * noise
    return np.float32(start.get(row.kind, 0.0) + more)

  params = gpt.build({r.path: fill(r) for r in gpt.parameters(CONFIG)})
  fn = gpt.make(CONFIG)
  plan = nmc.plan(nmc.calibrate(fn)(params, [IDS]), nmc.quantize.W8A16)
  qparams = nmc.quantize_params(params, plan)
  graph = nmc.record(fn, plan, qparams)
  hardware = nmc.chip.loihi2(chips=3, cores_per_chip=8)
  placement = nmc.place(graph, hardware, head="chip")
  truth = jax.jit(nmc.fixed(fn, plan, taps=True))(qparams, {"ids": IDS})
  return fn, plan, qparams, placement, truth


@pytest.mark.parametrize("name", ["functional", "stepped"])
def test_both_engines_give_the_integers_of_fixed(name):
  """A prompt, and then a token with the state of the prompt."""
  fn, plan, qparams, placement, (want, last, sites) = build()
  run = nmc.loihi(fn, plan, placement, engine=name)
  out, state, _ = run(qparams, {"ids": IDS})
  chex.assert_trees_all_equal((out, state), (want, last))
  _, state, _ = run(qparams, {"ids": IDS[:5]})
  out, state, _ = run(qparams, {"ids": IDS[5:]}, state)
  np.testing.assert_array_equal(codes(out.logits), codes(want.logits)[5:])
  chex.assert_trees_all_equal(state, last)
  for path in ("layers.0.attn.ssa.counts", "layers.1.mlp.counts"):
    assert len(np.unique(codes(sites[path]))) > 1, path


def test_layers_of_other_sizes_are_not_stacked():
  """Widths of the neurons are those of each layer; what is alike is alike."""
  *_, placement, _ = build()
  width = {p.name: p.width for p in placement.network.populations}
  memory = "layers.{}.attn.ssa.memory.0.read"
  assert [width[memory.format(i)] for i in (0, 1)] == [2 * 2 * 2, 1 * 2 * 2]
  units = {
    i: {
      w
      for name, w in width.items()
      if name.startswith(f"layers.{i}.mlp.counts")
    }
    for i in (0, 1)
  }
  assert units == {0: {5}, 1: {3}}
