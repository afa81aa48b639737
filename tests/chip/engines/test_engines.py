"""Law 2 (one truth) and law 5 (counters agree) for both engines of `loihi`."""

import dataclasses
import functools

import chex
import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

import jaxnmc as nmc
from jaxnmc import _compat
from jaxnmc.chip.engines import arrays, host, program, sharding, step
from jaxnmc.chip.routing import links
from jaxnmc.errors import PlacementError, PlanError, TokenError, TransformError
from jaxnmc.models import matmulfree
from tests.chip.routing.test_routes import as_arrays, brute
from tests.chip.tiny import TINY, tiny_model

TOKENS = np.array([3, 0, 17, 5, 5, 30, 1, 22], np.int32)
BUBBLES = [0, 3, 4, 9, 30, 31, 100, 101]


class Case:
  """One formulation, placed, with everything that is compiled once."""

  def __init__(self, norm: str, chips: int, head: str, waits: str = "fifo"):
    self.fn, self.params, self.plan, self.qparams = tiny_model(norm)
    graph = nmc.record(self.fn, self.plan, self.qparams)
    self.network = nmc.network(graph, waits)
    hardware = nmc.chip.loihi2(chips=chips, cores_per_chip=6)
    self.placement = nmc.place(self.network, hardware, head=head)
    self.fixed = jax.jit(nmc.fixed(self.fn, self.plan))
    make = lambda **k: nmc.loihi(self.fn, self.plan, self.placement, **k)
    self.functional = make()
    self.stepped = make(engine="stepped")

  def truth(self, ids, state=None):
    return self.fixed(self.qparams, {"ids": ids}, state)


# The other formulation is that of most tests of the commands.
@pytest.fixture(
  scope="module",
  params=[
    pytest.param(("double", "host", "fifo"), marks=pytest.mark.slow),
    ("fused", "chip", "axon"),
  ],
)
def case(request):
  norm, head, waits = request.param
  return Case(norm, 3, head, waits)


def raw_functional(case, ids):
  """int[T, columns] counts of the functional engine."""
  out = case.functional.traced(case.qparams, {"ids": ids})
  measured = case.functional.rows(out[2], np.shape(ids))
  spread = case.functional._counts.basis.spread
  return (spread.matrix @ measured.T).T


def raw_stepped(case, ids, inject):
  """Per route messages sent and entries walked, int[steps, tiles] each."""
  engine = case.stepped
  rows = host.sent(engine.network, ids, 0)
  steps = int(inject[-1]) + engine.machine.last + 1
  # One length for all lists: one compiled program.
  here, feed = np.zeros(200, bool), np.zeros((200, rows.shape[1]), np.int32)
  here[inject], feed[inject] = True, rows
  _, seen = engine.run(engine._enter(None), here, feed, steps)
  found, places = [], engine._places
  for i, route in enumerate(engine.routes):
    out = walked = None
    if i in places.sent:
      k, slot = places.sent[i]
      out = seen.out[k][:steps, slot, : route.src.count]
    if route.synapse.kind in ("dense", "relay") and i in places.rows:
      g, row = places.rows[i]
      walked = seen.each[g][:steps, row, : route.dst.count]
    found.append((out, walked))
  return found


def skewed(case, counts, inject):
  """Functional counts moved to the steps at which they happen."""
  steps = int(inject[-1]) + case.stepped.machine.last + 1
  found, at = [], 0
  for route in case.stepped.machine.routes:
    part = counts[:, at : at + route.columns]
    at += route.columns
    rows = np.zeros((steps, route.columns), np.int64)
    np.add.at(rows, inject + route.synapse.depth, part)
    k, m = route.src.count, route.dst.count
    found.append((rows[:, :k], rows[:, k + m : k + 2 * m]))
  return found


def test_functional_equals_fixed(case):
  out = case.functional(case.qparams, {"ids": TOKENS})
  chex.assert_trees_all_equal(out[:2], case.truth(TOKENS))


def test_functional_batch_counts_every_sequence(case):
  ids = np.stack([TOKENS, TOKENS[::-1]])
  out, state, counters = case.functional(case.qparams, {"ids": ids})
  chex.assert_trees_all_equal((out, state), case.truth(ids))
  single = [case.functional(case.qparams, {"ids": row})[2] for row in ids]
  merged = single[0].merge(single[1])
  np.testing.assert_array_equal(
    counters.total("synops"), merged.total("synops")
  )


@pytest.mark.parametrize(
  "inject", [None, BUBBLES], ids=["pipelined", "bubbles"]
)
def test_stepped_equals_fixed(case, inject):
  out = case.stepped(case.qparams, {"ids": TOKENS}, inject=inject)
  chex.assert_trees_all_equal(out[:2], case.truth(TOKENS))


def test_stepped_continues_from_a_state(case):
  _, state, _ = case.stepped(case.qparams, {"ids": TOKENS[:5]})
  out = case.stepped(case.qparams, {"ids": TOKENS[5:]}, state)
  want = case.truth(TOKENS[5:], case.truth(TOKENS[:5])[1])
  chex.assert_trees_all_equal(out[:2], want)


# The program of a step is compiled once, so a schedule costs only its steps;
# what the host computes is compiled per length, so there are few of them.
@hypothesis.settings(max_examples=6)
@hypothesis.given(
  first=st.integers(0, 70),
  gaps=st.lists(st.integers(1, 12), min_size=8, max_size=8),
  cut=st.sampled_from([3, 5]),
)
def test_stepped_under_any_schedule_and_split(case, first, gaps, cut):
  want, last = case.truth(TOKENS)
  steps = first + np.cumsum(gaps)
  head, state, _ = case.stepped(
    case.qparams, {"ids": TOKENS[:cut]}, inject=steps[:cut]
  )
  tail, state, _ = case.stepped(
    case.qparams, {"ids": TOKENS[cut:]}, state, inject=steps[cut:] - steps[cut]
  )
  both = np.concatenate([head.logits.q, tail.logits.q])
  chex.assert_trees_all_equal(both, np.asarray(want.logits.q))
  chex.assert_trees_all_equal(state, last)


def test_stepped_batch_counts_every_sequence(case):
  ids = np.stack([TOKENS, TOKENS[::-1]])
  out, state, counters = case.stepped(case.qparams, {"ids": ids})
  chex.assert_trees_all_equal((out, state), case.truth(ids))
  other = case.functional(case.qparams, {"ids": ids})[2]
  for name in ("synops", "messages_in", "messages_out"):
    np.testing.assert_array_equal(counters.total(name), other.total(name))


def test_functional_without_jit(case):
  with jax.disable_jit():
    eager = case.functional.traced(case.qparams, {"ids": TOKENS})
  chex.assert_trees_all_equal(eager[:2], case.truth(TOKENS))


def test_engines_start_from_init_state(case):
  start = matmulfree.init_state(TINY)
  for engine in (case.functional, case.stepped):
    out = engine(case.qparams, {"ids": TOKENS}, start)
    chex.assert_trees_all_equal(out[:2], case.truth(TOKENS))


def test_engines_say_that_they_cannot_be_traced(case):
  for engine in (case.functional, case.stepped):
    with pytest.raises(TransformError, match="cannot be traced"):
      jax.jit(engine)(case.qparams, {"ids": TOKENS})


@pytest.mark.parametrize("wrong", [-1, TINY.vocab_size])
def test_ids_out_of_range_are_refused(case, wrong):
  ids = np.where(TOKENS == 17, wrong, TOKENS)
  for engine in (case.functional, case.stepped):
    with pytest.raises(TokenError, match=rf"\[2\] is {wrong}, outside"):
      engine(case.qparams, {"ids": ids})


@pytest.mark.parametrize(
  "inject", [range(8), BUBBLES], ids=["dense", "bubbles"]
)
def test_counters_agree_step_by_step_and_tile_by_tile(case, inject):
  inject = np.array(inject)
  counts = raw_functional(case, TOKENS)
  assert counts.any(axis=0).mean() > 0.9
  pairs = zip(raw_stepped(case, TOKENS, inject), skewed(case, counts, inject))
  compared = 0
  for got, want in pairs:
    for mine, other in zip(got, want):
      if mine is not None:
        np.testing.assert_array_equal(mine, other)
        compared += mine.size
  assert compared > 0.2 * counts.size * (inject[-1] + 1) / len(inject)


def test_counters_equal_a_count_by_hand(case):
  """Messages and synops of one dense synapse, in plain Python."""
  run = nmc.fixed(case.fn, case.plan, taps=True)
  taps = run(case.qparams, {"ids": TOKENS})[2]
  counts = raw_functional(case, TOKENS)
  at = 0
  for route in case.functional.routes:
    synapse = route.synapse
    if synapse.kind == "dense" and route.dst.count:
      break
    at += route.columns
  sent = np.asarray(taps[synapse.path].q) != 0
  for n, row in enumerate(sent):
    want = []
    for start, size in zip(route.src.starts, route.src.sizes, strict=True):
      want.append(int(row[start : start + size].sum()))
    messages = int(row.sum())
    want += [messages] * route.dst.count
    for start, size in zip(route.dst.starts, route.dst.sizes, strict=True):
      block = synapse.weights[start : start + size][:, row]
      want.append(int(np.count_nonzero(block)))
    want += [messages * int(size) for size in route.dst.sizes]
    got = counts[n, at : at + route.columns]
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("x64", [False, True])
def test_no_float_in_either_engine(case, x64):
  with jax.enable_x64(x64):
    _assert_no_float(case)


def _assert_no_float(case):
  def kinds(jaxpr):
    return {
      str(v.aval.dtype)
      for inner in _compat.all_jaxprs(jaxpr)
      for eqn in inner.eqns
      for v in eqn.outvars
      if hasattr(v.aval, "dtype")
    }

  traced = jax.make_jaxpr(case.functional.traced)
  found = kinds(traced(case.qparams, {"ids": TOKENS}))
  engine = case.stepped
  cores = engine._enter(None)
  width = engine.network.populations[0].width
  feed = (np.zeros(2, bool), np.zeros((2, width), np.int32))
  for checked in (False, True):
    spread = sharding.spread(engine.machine, checked=checked)
    chunk = functools.partial(step.run_chunk.__wrapped__, spread, checked)
    args = (arrays.load(spread), cores, feed, np.int32(2))
    found |= kinds(jax.make_jaxpr(chunk)(*args))
  # What the host does with the values that left the chips.
  graph, nodes = engine.graph, engine._host_nodes
  taps = {
    tap.node: np.zeros((2, graph.nodes[tap.node].width), np.int32)
    for tap in engine.machine.taps
  }
  left = lambda values: host.evaluate(graph, nodes, values)
  found |= kinds(jax.make_jaxpr(left)(taps))
  assert "int32" in found
  assert not [k for k in found if "float" in k]


@pytest.mark.slow
def test_every_padding_neuron_is_silent():
  """A width that no tile divides: sigmoid(0) is not 0 in the padding."""
  case = Case("double", 1, "chip")
  tiles = [t for t in case.placement.tiles if t.population != "head.out"]
  # Ten neurons as 4 + 4 + 2, whatever the placer would do.
  cut = []
  for tile in tiles:
    if tile.start == 0:
      width = {p.name: p.width for p in case.network.populations}
      stops = range(0, width[tile.population], 4)
      cut += [
        dataclasses.replace(
          tile, start=s, stop=min(s + 4, width[tile.population])
        )
        for s in stops
      ]
  cut += [t for t in case.placement.tiles if t.population == "head.out"]
  placement = dataclasses.replace(case.placement, tiles=tuple(cut))
  assert {t.width for t in cut if t.population == "layers.0.out"} == {4, 2}
  case.stepped = nmc.loihi(case.fn, case.plan, placement, engine="stepped")
  out = case.stepped(case.qparams, {"ids": TOKENS})
  chex.assert_trees_all_equal(out[:2], case.truth(TOKENS))


def test_engines_refuse_what_does_not_belong_together(case):
  other = matmulfree.init_params(TINY, jax.random.key(9))
  qparams = nmc.quantize_params(other, case.plan)
  for engine in (case.functional, case.stepped):
    with pytest.raises(PlanError, match="other weights"):
      engine(qparams, {"ids": TOKENS})
  plan = dataclasses.replace(case.plan, name="changed")
  with pytest.raises(PlanError, match="another plan"):
    nmc.loihi(case.fn, plan, case.placement)
  with pytest.raises(PlanError, match="engine"):
    nmc.loihi(case.fn, case.plan, case.placement, engine="turbo")
  with pytest.raises(PlanError, match="mode"):
    nmc.loihi(case.fn, case.plan, case.placement, mode="turbo")
  with pytest.raises(PlacementError, match="place"):
    nmc.loihi(case.fn, case.plan, None)


@pytest.mark.parametrize(
  ("inject", "says"),
  [([0, 1], "8 non-negative"), ([0, 1, 1, 2, 3, 4, 5, 6], "tokens 1 and 2")],
)
def test_bad_injection_steps_are_refused(case, inject, says):
  with pytest.raises(PlanError, match=says):
    case.stepped(case.qparams, {"ids": TOKENS}, inject=inject)


def test_a_mask_is_refused_by_the_cores(case):
  mask = np.ones_like(TOKENS)
  with pytest.raises(PlanError, match="mask"):
    case.stepped(case.qparams, {"ids": TOKENS, "mask": mask})


def by_hand(case, ids):
  """Totals per tile from the values of `fixed`: what was not zero was sent."""
  placed, net = case.placement, case.network
  *_, taps = nmc.fixed(case.fn, case.plan, taps=True)(
    case.qparams, {"ids": ids}
  )
  totals = {
    name: np.zeros(len(placed.tiles), np.int64)
    for name in ("messages_out", "messages_in", "synops", "synops_stored")
  }
  sent, arrived = set(), set()
  for synapse, code in zip(net.synapses, placed.encodings, strict=True):
    value = taps[synapse.path]
    codes = np.asarray(getattr(value, "q", value))
    nonzero = (codes != 0).astype(np.int64).sum(0)  # of each source neuron
    width = net.populations[synapse.dst].width
    if synapse.kind == "dense":
      real = np.abs(synapse.weights.astype(np.int64)) @ nonzero
      stored = np.full(width, nonzero.sum())
      stored = real if code.kind == "sparse" else stored
    elif synapse.kind == "relay":
      real = stored = nonzero
    else:
      real = stored = np.full(width, nonzero.sum())
    for i in placed.tiles_of[synapse.src]:
      tile = placed.tiles[i]
      if synapse.source not in sent:
        part = nonzero[tile.start : tile.stop]
        totals["messages_out"][i] += part.sum()
    for i in placed.tiles_of[synapse.dst]:
      tile = slice(placed.tiles[i].start, placed.tiles[i].stop)
      totals["synops"][i] += real[tile].sum()
      totals["synops_stored"][i] += stored[tile].sum()
      if (synapse.source, synapse.dst) not in arrived:
        relay = synapse.kind == "relay"
        come = nonzero[tile] if relay else nonzero
        totals["messages_in"][i] += come.sum()
    sent.add(synapse.source)
    arrived.add((synapse.source, synapse.dst))
  return totals


def test_counters_are_what_the_values_of_fixed_say(case):
  *_, counters = case.functional(case.qparams, {"ids": TOKENS})
  for name, want in by_hand(case, TOKENS).items():
    assert want.any()
    np.testing.assert_array_equal(counters.total(name), want, err_msg=name)


def test_links_carry_what_the_values_of_fixed_say(case):
  """Every value that is not zero, walked on its own through the mesh."""
  fixed = nmc.fixed(case.fn, case.plan, taps=True)
  *_, taps = fixed(case.qparams, {"ids": TOKENS})
  codes = {s.source: taps[s.path] for s in case.network.synapses}
  sent = {k: np.asarray(getattr(v, "q", v)) != 0 for k, v in codes.items()}
  found = None
  for run in (case.functional, case.stepped):
    seen = []
    run.watch = seen.append
    try:
      *_, counters = run(case.qparams, {"ids": TOKENS})
    finally:
      run.watch = None
    (segment,) = seen
    if found is None:
      found, hops = brute(case.placement, segment, sent)
    for source in (counters, segment):
      loads = links.link_loads(source, case.placement)
      for kind, want in as_arrays(loads, found).items():
        np.testing.assert_array_equal(loads.messages[kind], want, kind)
      assert loads.hops == hops > 0
    crossed = counters.total("crossings").sum()
    assert loads.messages["out"][1].sum() == crossed > 0


def test_program_of_a_class_does_not_grow_with_layers(case):
  machine = case.stepped.machine
  members = {}
  for cls in machine.classes:
    members.setdefault(cls.role, []).append(len(cls.members))
    assert isinstance(cls.program, program.Program)
  layers = {k: v for k, v in members.items() if k.startswith("layers.*")}
  # The first layer has no lower bound: its mixer is a program of its own.
  mixer = layers.pop("layers.*.attn.o.norm")
  assert mixer == [1, TINY.num_layers - 1]
  assert all(v == [TINY.num_layers] for v in layers.values()), layers


def test_steps_compile_once_for_any_length(case):
  """Two prompts and a state: the chunk of steps is traced a single time."""
  step.run_chunk.clear_cache()
  chex.clear_trace_counter()
  counted = chex.assert_max_traces(step.run_chunk.__wrapped__, n=1)
  compiled = jax.jit(counted, static_argnums=(0, 1), donate_argnums=3)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(step, "run_chunk", compiled)
    _, state, _ = case.stepped(case.qparams, {"ids": TOKENS[:3]})
    case.stepped(case.qparams, {"ids": TOKENS}, state, inject=BUBBLES)


def test_a_state_of_another_size_is_refused(case):
  _, state, _ = case.functional(case.qparams, {"ids": TOKENS})
  pair = jax.tree.map(lambda x: np.stack([x, x]), state)
  for engine in (case.functional, case.stepped):
    with pytest.raises(PlanError, match="one sequence has"):
      engine(case.qparams, {"ids": TOKENS}, pair)


def test_state_on_the_cores_is_what_placement_counts(case):
  """Accumulators, FIFOs and recurrent state, in words per neuron."""
  machine = case.stepped.machine
  zero = case.stepped._enter(None)
  words = {}
  arrays = zip(machine.classes, zero.ports, zero.waits, zero.states)
  for cls, ports, waits, states in arrays:
    held = sum(x.shape[2] for x in (ports, *waits, states))
    words |= dict.fromkeys(cls.members, held)
  populations = case.stepped.network.populations
  assert words == {i: populations[i].words for i in words}
  assert sum(len(p.states) for p in populations) == TINY.num_layers
