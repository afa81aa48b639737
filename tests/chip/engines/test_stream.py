"""Streams: bursts and gaps, an early stop, both modes in one run."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

import jaxnmc as nmc
from jaxnmc.errors import PlacementError, PlanError, TokenError
from jaxnmc.models.generate import generate
from tests.chip.mini import VOCAB, mini, recut

PROMPT = np.array([3, 0, 7, 1, 2, 5], np.int32)


@functools.cache
def engine(mode="pipelined", head="chip"):
  net = mini(2, 5)
  hardware = nmc.chip.loihi2(chips=1, cores_per_chip=5)
  placed = recut(nmc.place(net.graph, hardware, head=head), 2)
  return net, net.loihi(placed, engine="stepped", mode=mode)


def greedy(y) -> int:
  return int(np.argmax(y)) % VOCAB


def same(one, two):
  jax.tree.map(np.testing.assert_array_equal, one, two)


@pytest.mark.parametrize("head", ["host", "chip"])
def test_prompt_pipelined_then_generation_fall_through(head):
  """Both modes in one run on one state, as separate stretches."""
  net, run = engine(head=head)
  flow = run.stream(net.qparams)
  first = flow.send(PROMPT)
  rest = flow.drain()
  rows = np.concatenate([first.y.q, rest.y.q])
  ids = list(PROMPT)
  for _ in range(4):
    ids.append(greedy(rows[-1]))
    assert len(flow.send(np.array(ids[-1:], np.int32)).y.q) == 0
    rows = np.concatenate([rows, flow.drain().y.q])
  _, state, counters = flow.finish()
  want = net.fixed(net.qparams, {"ids": np.array(ids, np.int32)}, None)
  np.testing.assert_array_equal(rows, want[0].y.q)
  same(state, want[1])
  modes = [(s.mode, s.tokens) for s in counters.stretches]
  assert modes == [("pipelined", len(PROMPT)), *[("fall-through", 1)] * 4]
  latency = run.machine.last + 1
  lengths = [s.steps for s in counters.stretches]
  assert lengths == [len(PROMPT) - 1 + latency, *[latency] * 4]
  assert counters.steps == flow.steps


def test_the_same_by_generate_in_the_mode_fall_through():
  """Prefill and tokens by calls: the same integers and stretches."""
  net, run = engine()

  def lm(params, inputs, state):
    ids = np.asarray(inputs["ids"])[0] % VOCAB
    out, state, counters = run(params, {"ids": ids}, state)
    return Logits(out.y.q[None]), state, counters

  found = generate(lm, net.qparams, [PROMPT], 4, vocab_size=VOCAB, jit=False)
  merged = functools.reduce(lambda a, b: a.merge(b), found.counters)
  modes = [(s.mode, s.tokens) for s in merged.stretches]
  assert modes == [("pipelined", len(PROMPT)), *[("fall-through", 1)] * 3]


class Logits:
  def __init__(self, logits):
    self.logits = logits


def test_the_mode_says_when_tokens_enter():
  net, run = engine("fall-through")
  flow = run.stream(net.qparams)
  flow.send(PROMPT[:2])
  flow.send(PROMPT[2:])
  *_, counters = flow.finish()
  (stretch,) = counters.stretches
  assert stretch.mode == "fall-through"
  assert stretch.tokens == len(PROMPT)
  stride = run.network.steps_per_token
  latency = run.machine.last + 1
  assert stretch.steps == (len(PROMPT) - 1) * stride + latency


@pytest.mark.parametrize("inject", [None, [0, 1, 2, 9, 30, 31]])
def test_an_early_stop_drains_and_hands_back_one_state(inject):
  """The third token's output stops the run; what is on its way leaves."""
  net, run = engine()
  truth = np.asarray(net.fixed(net.qparams, {"ids": PROMPT}, None)[0].y.q)
  steps = np.arange(len(PROMPT)) if inject is None else np.array(inject)
  flow, seen = run.stream(net.qparams), []

  def stop(out):
    seen.append(np.asarray(out.y.q))
    return len(seen) == 3

  long = np.resize(PROMPT, 40).astype(np.int32)
  if inject is not None:
    long = PROMPT
  found = flow.send(long, inject, stop=stop)
  latency = run.machine.last + 1
  assert flow.stopped
  assert [x.shape[0] for x in seen] == [1, 1, 1]
  np.testing.assert_array_equal(np.concatenate(seen), truth[:3])
  # Nothing enters once the third token has left.
  entered = flow.tokens
  out_at = (2 if inject is None else steps[2]) + latency
  due = np.arange(40) if inject is None else steps
  assert entered == int((due < out_at).sum()) < len(long)
  last, state, counters = flow.finish()
  rows = np.concatenate([found.y.q, last.y.q])
  want = net.fixed(net.qparams, {"ids": long[:entered]}, None)
  np.testing.assert_array_equal(rows, want[0].y.q)
  same(state, want[1])
  assert counters.tokens == entered
  assert flow.flying == 0


def test_a_stop_that_never_comes_changes_nothing():
  net, run = engine()
  flow = run.stream(net.qparams)
  found = flow.send(PROMPT, stop=lambda out: False)
  last, state, _ = flow.finish()
  assert not flow.stopped
  want = net.fixed(net.qparams, {"ids": PROMPT}, None)
  same(np.concatenate([found.y.q, last.y.q]), np.asarray(want[0].y.q))
  same(state, want[1])


def test_a_state_with_tokens_in_flight_would_mix_them():
  """Why `finish` drains: later layers have not seen the last token yet."""
  net, run = engine()
  flow = run.stream(net.qparams)
  flow.send(PROMPT)
  mixed = run.leave(flow._cores, flow._count)
  want = net.fixed(net.qparams, {"ids": PROMPT}, None)[1]
  with pytest.raises(AssertionError):
    same(mixed, want)
  same(flow.finish()[1], want)


def test_a_stream_goes_on_after_finish_and_from_a_state():
  net, run = engine()
  flow = run.stream(net.qparams)
  flow.send(PROMPT[:3])
  _, middle, _ = flow.finish()
  flow.send(PROMPT[3:])
  _, end, counters = flow.finish()
  want = net.fixed(net.qparams, {"ids": PROMPT}, None)[1]
  same(end, want)
  assert [s.tokens for s in counters.stretches] == [3, 3]
  other = run.stream(net.qparams, middle)
  other.send(PROMPT[3:])
  same(other.finish()[1], want)


def test_idle_steps_count_to_what_follows():
  net, run = engine()
  flow = run.stream(net.qparams)
  flow.wait(5)
  flow.send(PROMPT[:2])
  flow.drain()
  flow.wait(70)
  flow.send(PROMPT[2:])
  *_, counters = flow.finish()
  latency = run.machine.last + 1
  lengths = [s.steps for s in counters.stretches]
  assert lengths == [5 + 1 + latency, 70 + 3 + latency]
  assert counters.steps == flow.steps


def test_wrong_use_is_refused():
  net, run = engine()
  flow = run.stream(net.qparams)
  with pytest.raises(PlanError, match="no token entered"):
    flow.finish()
  with pytest.raises(PlanError, match=r"one sequence.*found \[1, 6\]"):
    flow.send(PROMPT[None])
  with pytest.raises(TokenError):
    flow.send(np.array([0.5]))
  with pytest.raises(PlanError, match="wait -1 steps"):
    flow.wait(-1)
  with pytest.raises(PlanError, match="strictly increasing"):
    flow.send(PROMPT[:2], [4, 4])
  with pytest.raises(PlanError, match="made with plan"):
    run.stream(mini(2, 5, 1).qparams)


def test_two_tokens_at_a_merge_are_refused_by_name():
  """A schedule in which an operand comes after its reader."""
  net, run = engine()
  network = run.network
  pops = network.populations
  graph = network.graph
  # The first element-wise node that reads a synapse's sum.
  early = next(
    n.id
    for n in graph.nodes
    if n.op not in ("const", "input", "prev", "dense", "sum", "broadcast")
    and any(graph.nodes[a].op == "dense" for a in n.args)
  )
  depth = list(network.depth)
  depth[early] -= 1
  bad = dataclasses.replace(network, depth=tuple(depth))
  placed = dataclasses.replace(run.placement, network=bad)
  name = pops[network.home[early]].name
  with pytest.raises(PlacementError, match=f"two tokens meet in.*{name}"):
    net.loihi(placed, engine="stepped")


@pytest.mark.parametrize(
  ("change", "says"),
  [
    ({"core": 99}, "core 99 does not exist|no core 99"),
    ({"chip": 3}, "chip 3 does not exist|of chip 3"),
    ({"start": 1, "stop": 3}, "must follow each other and be equal"),
  ],
)
def test_tiles_that_cannot_be_are_refused(change, says):
  net, run = engine()
  tiles = list(run.placement.tiles)
  tiles[1] = dataclasses.replace(tiles[1], **change)
  make = lambda: net.loihi(
    dataclasses.replace(run.placement, tiles=tuple(tiles)), engine="stepped"
  )
  with pytest.raises(PlacementError, match=says):
    make()


def test_neurons_without_a_tile_are_refused():
  net, run = engine()
  tiles = run.placement.tiles
  last = max(i for i, t in enumerate(tiles) if t.population == "layers.0.out")
  fewer = tiles[:last] + tiles[last + 1 :]
  placed = dataclasses.replace(run.placement, tiles=fewer)
  with pytest.raises(PlacementError, match="layers.0.out has 5 neurons"):
    net.loihi(placed, engine="stepped")
