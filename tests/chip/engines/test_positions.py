"""Learned positions: the host counts tokens, and adds before it sends."""

import contextlib
import functools

import chex
import jax
import numpy as np
import pytest
from flax import struct

import jaxnmc as nmc
from jaxnmc.errors import PlacementError, PlanError, TokenError
from jaxnmc.models.inputs import token_check
from jaxnmc.numerics.fx import Fx, codes
from jaxnmc.ops.graph import Count

VOCAB, WIDTH, CONTEXT = 9, 6, 10
IDS = np.array([3, 0, 8, 3, 3, 1, 7, 2], np.int32)
ENGINES = ("functional", "stepped")


@struct.dataclass
class Out:
  y: jax.Array


def cell(ops, h, u):
  h = ops.site("h", ops.add(ops.shift(h, 1), u), align="u")
  return h, h


def make(how: str = "added"):
  """Two tables, a dense layer with a leaky sum, a dense head."""

  def fn(ops, params, inputs, state=None):
    ids, mask = inputs["ids"], inputs.get("mask")
    before = None if state is None else state["position"]
    places, end = ops.positions(ids, mask, before)
    r = ops.embed("embed", params["embed"], ids)
    if how == "twice":
      places = places + 0
    p = ops.embed("positions", params["positions"], places)
    free = contextlib.nullcontext
    with ops.layer(0) if how == "apart" else free():
      r = ops.site("in", ops.add(r, p))
    with free() if how == "joined" else ops.layer(0):
      u = ops.site("u", ops.keep(mask, ops.dense("up", params["up"], r)))
      init = ops.zeros(u) if state is None else state["h"]
      h_end, h = ops.scan("cell", cell, init, u)
      r = ops.site("out", ops.add(r, h))
    y = ops.dense("head", params["head"], r)
    if how == "counted":
      return Out(places), {"position": end, "h": h_end}
    return Out(y), {"position": end, "h": h_end}

  fn.check_inputs = token_check(VOCAB, CONTEXT)
  fn.context = CONTEXT
  return fn


@functools.cache
def build(how: str = "added"):
  """(fn, plan, qparams, run of `fixed`)."""
  draw = np.random.default_rng(8)
  some = lambda *shape: np.float32(draw.normal(size=shape))
  params = {
    "embed": some(VOCAB, WIDTH),
    # Smaller, so finer: the sum brings both to one binary point.
    "positions": 0.05 * some(CONTEXT, WIDTH),
    "up": some(WIDTH, WIDTH) / 3,
    "head": some(VOCAB, WIDTH),
  }
  fn = make(how)
  stats = nmc.calibrate(fn)(params, [IDS])
  plan = nmc.plan(stats, nmc.quantize.W8A16)
  qparams = nmc.quantize_params(params, plan)
  return fn, plan, qparams, jax.jit(nmc.fixed(fn, plan))


@functools.cache
def placed(how: str = "added"):
  fn, plan, qparams, _ = build(how)
  hardware = nmc.chip.loihi2(chips=1, cores_per_chip=4)
  return nmc.place(nmc.record(fn, plan, qparams), hardware, head="chip")


@functools.cache
def engine(name: str, how: str = "added"):
  fn, plan, _, _ = build(how)
  return nmc.loihi(fn, plan, placed(how), engine=name)


def test_the_host_adds_and_sends_one_value():
  fn, plan, qparams, _ = build()
  graph = nmc.record(fn, plan, qparams)
  index = {n.site: n.static["index"] for n in graph.inputs}
  assert index == {"embed": "token", "positions": "position"}
  assert graph.state["position"] == Count()
  net = placed().network
  assert [graph.nodes[i].site for i in net.entries] == ["in"]
  assert {s.path for s in net.synapses if net.populations[s.src].host} == {"in"}
  assert placed().host == ("in",)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("cuts", [(8,), (5, 1, 2)])
def test_positions_go_on_from_call_to_call(name, cuts):
  _, _, qparams, run = build()
  want, last = run(qparams, {"ids": IDS})
  assert int(last["position"]) == 8
  # Of equal tokens, so that only the position tells them apart.
  rows = codes(want.y)
  assert (rows[3] != rows[4]).any()
  outs, state, at = [], None, 0
  for size in cuts:
    part = {"ids": IDS[at : at + size]}
    out, state, _ = engine(name)(qparams, part, state)
    outs.append(codes(out.y))
    at += size
  np.testing.assert_array_equal(np.concatenate(outs), rows)
  chex.assert_trees_all_equal(state, last)
  assert state["position"].dtype == np.int32


def test_cores_may_add_what_the_host_sends_apart():
  """Two values a token, side by side in what is injected."""
  _, _, qparams, run = build("apart")
  net = placed("apart").network
  names = [net.graph.nodes[i].site for i in net.entries]
  assert names == ["embed", "positions"]
  want, last = run(qparams, {"ids": IDS})
  counts = []
  for name in ENGINES:
    out, state, counted = engine(name, "apart")(qparams, {"ids": IDS})
    chex.assert_trees_all_equal((out, state), (want, last))
    counts.append(counted)
  for kind in ("synops", "messages_in", "messages_out"):
    one, two = (c.total(kind) for c in counts)
    np.testing.assert_array_equal(one, two)
    assert np.sum(one) > 0
  sums = [c.stretches[0].steps_of["host_messages"] for c in counts]
  np.testing.assert_array_equal(*sums)


@pytest.mark.parametrize("name", ENGINES)
def test_a_batch_has_a_count_each(name):
  _, _, qparams, run = build()
  both = np.stack([IDS, IDS[::-1]])
  part = lambda a, b: {"ids": both[:, a:b]}
  want, middle = run(qparams, part(0, 3))
  out, state, _ = engine(name)(qparams, part(0, 3))
  chex.assert_trees_all_equal((out, state), (want, middle))
  # One sequence is one token ahead.
  middle["position"] = middle["position"] + np.array([0, 1], np.int32)
  want, last = run(qparams, part(3, 5), middle)
  out, state, _ = engine(name)(qparams, part(3, 5), middle)
  chex.assert_trees_all_equal((out, state), (want, last))
  assert state["position"].tolist() == [5, 6]


def test_padding_takes_no_position():
  _, _, qparams, run = build()
  ids = np.concatenate([[0, 0, 0], IDS[:4]])
  mask = np.array([0, 0, 0, 1, 1, 1, 1])
  want, last = run(qparams, {"ids": IDS[:4]})
  out, state, _ = engine("functional")(qparams, {"ids": ids, "mask": mask})
  np.testing.assert_array_equal(codes(out.y)[3:], codes(want.y))
  chex.assert_trees_all_equal(state, last)


def test_a_stream_counts_what_entered():
  _, _, qparams, run = build()
  want, last = run(qparams, {"ids": IDS})
  _, state, _ = engine("functional")(qparams, {"ids": IDS[:2]})
  stream = engine("stepped").stream(qparams, state)
  outs = [stream.send(IDS[2:3]), stream.wait(30), stream.send(IDS[3:6])]
  outs.append(stream.finish()[0])
  # Empty between: the second part of the counters, the same count of tokens.
  outs.append(stream.send(IDS[6:]))
  out, state, _ = stream.finish()
  found = np.concatenate([codes(o.y) for o in (*outs, out)])
  np.testing.assert_array_equal(found, codes(want.y)[2:])
  chex.assert_trees_all_equal(state, last)


def test_more_tokens_than_there_are_positions_are_refused():
  _, _, qparams, _ = build()
  for name in ENGINES:
    _, state, _ = engine(name)(qparams, {"ids": IDS})
    with pytest.raises(TokenError, match="11 tokens, .* at most 10"):
      engine(name)(qparams, {"ids": IDS[:3]}, state)
  stream = engine("stepped").stream(qparams, state)
  stream.send(IDS[:2])
  with pytest.raises(TokenError, match="11 tokens, .* at most 10"):
    stream.send(IDS[:1])


@pytest.mark.parametrize("name", ENGINES)
def test_a_count_that_is_none_is_refused(name):
  _, _, qparams, run = build()
  _, state = run(qparams, {"ids": IDS[:2]})
  state["position"] = state["h"]
  with pytest.raises(PlanError, match="holds Fx where the model counts"):
    engine(name)(qparams, {"ids": IDS[:1]}, state)


def test_what_the_host_cannot_do_is_refused():
  record = lambda how: nmc.record(*build(how)[:3])
  with pytest.raises(PlanError, match="positions: the host takes the row of a"):
    record("twice")
  with pytest.raises(PlanError, match="record: a result or state of type nd"):
    record("counted")
  # The residual stream is in no layer: one neuron of host and cores.
  fn, plan, qparams, _ = build("joined")
  with pytest.raises(PlacementError, match="out: what the host takes"):
    nmc.loihi(fn, plan, placed("joined"), engine="stepped")


def test_a_result_is_in_the_formats_of_the_plan():
  _, plan, qparams, run = build()
  out, _ = run(qparams, {"ids": IDS})
  assert isinstance(out.y, Fx)
  fine, coarse = plan.format("positions").frac, plan.format("embed").frac
  assert fine > coarse, "the sum has something to align"
