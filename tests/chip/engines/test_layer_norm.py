"""LayerNorm on cores: a sum, what is centred, a sum of squares, a root."""

import functools

import chex
import jax
import numpy as np
import pytest
from flax import struct

import jaxnmc as nmc
from jaxnmc.models.inputs import token_check
from jaxnmc.numerics.fx import codes

# No power of two: 1/n is rounded.
VOCAB, WIDTH, HIDDEN = 9, 6, 11
IDS = np.array([3, 0, 8, 5, 5, 1, 7, 2], np.int32)


@struct.dataclass
class Out:
  y: jax.Array


def cell(ops, h, u):
  h = ops.site("h", ops.add(ops.shift(h, 1), u), align="u")
  return h, h


def fn(ops, params, inputs, state=None):
  """LayerNorm, dense, a leaky sum, a residual; LayerNorm, dense."""
  r = ops.embed("embed", params["embed"]["weight"], inputs["ids"])
  ends = []
  norm = lambda p, r: ops.layer_norm("norm", r, p["gain"], p["bias"], 1e-5)
  for k, p in enumerate(params["layers"]):
    with ops.layer(k):
      x = norm(p["norm"], r)
      up = ops.dense("up", p["up"]["weight"], x, p["up"]["bias"])
      up = ops.site("relu", ops.max(up, ops.zeros(up)))
      u = ops.dense("u", p["u"]["weight"], up)
      init = ops.zeros(u) if state is None else state[k]
      end, h = ops.scan("cell", cell, init, u)
      r = ops.site("out", ops.add(r, h))
    ends.append(end)
  x = norm(params["norm"], r)
  return Out(ops.dense("head", params["head"]["weight"], x)), ends


fn.check_inputs = token_check(VOCAB)


@functools.cache
def build(preset: str):
  """(params, plan, qparams, placement, (out, state, sites) of `fixed`)."""
  draw = np.random.default_rng(4)
  some = lambda *shape: np.float32(draw.normal(size=shape) / shape[-1] ** 0.5)
  norm = lambda: {"gain": 1 + some(WIDTH), "bias": some(WIDTH)}
  params = {
    "embed": {"weight": 1 + some(VOCAB, WIDTH)},
    "layers": [
      {
        "norm": norm(),
        "up": {"weight": some(HIDDEN, WIDTH), "bias": some(HIDDEN)},
        "u": {"weight": some(WIDTH, HIDDEN)},
      }
      for _ in range(2)
    ],
    "norm": norm(),
    "head": {"weight": some(VOCAB, WIDTH)},
  }
  stats = nmc.calibrate(fn)(params, [IDS])
  plan = nmc.plan(stats, getattr(nmc.quantize, preset))
  qparams = nmc.quantize_params(params, plan)
  graph = nmc.record(fn, plan, qparams)
  hardware = nmc.chip.loihi2(chips=2, cores_per_chip=6)
  placement = nmc.place(graph, hardware, head="chip")
  truth = jax.jit(nmc.fixed(fn, plan, taps=True))(qparams, {"ids": IDS})
  return params, plan, qparams, placement, truth


@pytest.mark.parametrize("preset", ["W8A16", "W8A8"])
def test_fake_quant_in_float64_equals_fixed_at_every_site(preset):
  params, plan, _, _, (_, _, sites) = build(preset)
  with jax.enable_x64(True):
    run = jax.jit(nmc.fake_quant(fn, plan, taps=True))
    fake = run(jax.tree.map(np.float64, params), {"ids": IDS})[2]
  assert list(fake) == list(sites)
  assert "layers.1.norm.centred" in sites
  for path, value in sites.items():
    np.testing.assert_array_equal(codes(fake[path]), codes(value), path)


def test_it_is_near_the_float_model():
  params, _, _, _, (out, _, _) = build("W8A16")
  want = nmc.reference(fn)(params, {"ids": IDS})[0].y
  gap = np.abs(np.asarray(out.y.to_float()) - np.asarray(want))
  # Weights of 8 bits and the plan's eps; formats of 8 bits are far off that.
  assert 0 < gap.max() < 0.06 * np.std(want)


@pytest.mark.parametrize("preset", ["W8A16", "W8A8"])
def test_both_engines_give_the_integers_of_fixed(preset):
  _, plan, qparams, placement, (want, last, _) = build(preset)
  counts = []
  for engine in ("functional", "stepped"):
    run = nmc.loihi(fn, plan, placement, engine=engine)
    out, state, counted = run(qparams, {"ids": IDS})
    chex.assert_trees_all_equal((out, state), (want, last))
    counts.append(counted)
    _, state, _ = run(qparams, {"ids": IDS[:7]})
    out, state, _ = run(qparams, {"ids": IDS[7:]}, state)
    np.testing.assert_array_equal(codes(out.y), codes(want.y)[7:])
    chex.assert_trees_all_equal(state, last)
  for name in ("synops", "messages_in", "messages_out"):
    one, two = (c.total(name) for c in counts)
    np.testing.assert_array_equal(one, two)
    assert np.sum(one) > 0


def test_what_it_takes_on_cores():
  """Two aggregators, four steps from the residual stream to the result."""
  placement = build("W8A16")[3]
  net = placement.network
  by_name = {p.name: p for p in net.populations}
  for name in ("layers.0.norm.sum", "layers.0.norm.root"):
    assert by_name[name].width == 1
    assert any(tile.population == name for tile in placement.tiles)
  depth = {n.site: net.depth[n.id] for n in net.graph.nodes if n.site}
  start = depth["layers.0.norm.sum"]
  assert depth["layers.0.norm.centred"] == start + 1
  assert depth["layers.0.norm.root"] == start + 2
  assert depth["layers.0.norm"] == start + 3
  sent = {s.path for s in net.synapses}
  assert "layers.0.norm.centred" not in sent, "it stays in its neuron"
