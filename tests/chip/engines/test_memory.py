"""Spiking attention on cores: a memory of sums as neurons, spikes compared."""

import dataclasses
import functools

import chex
import jax
import numpy as np
import pytest

import jaxnmc as nmc
from jaxnmc import _compat
from jaxnmc.errors import FormatError, TokenError
from jaxnmc.models import generate, gpt
from jaxnmc.numerics.fx import codes
from jaxnmc.ops.memory import reads, recall, wiring
from jaxnmc.report import diverge, tables
from jaxnmc.report.populations import population_rows, population_table
from tests.ops.rows.products import recalled

HEADS, SIZE, TICKS, CONTEXT = 2, 3, 2, 10
# A GPT-2 but for its attention and activation.
CONFIG = gpt.Config(
  vocab_size=9,
  hidden_size=HEADS * SIZE,
  num_layers=2,
  num_heads=HEADS,
  max_position_embeddings=CONTEXT,
  intermediate_size=7,
  norm="layer",
  mlp="relu",
  positions="learned",
  attention="ssa",
  ticks=TICKS,
  bias=True,
  tie_word_embeddings=False,
  norm_eps=1e-3,
)
IDS = np.array([3, 0, 8, 5, 5, 1, 7, 2], np.int32)
MEMORY = "layers.0.attn.ssa.memory.0"


@functools.cache
def build(config=CONFIG):
  """(fn, params, plan, qparams, placement, (out, state, sites) of `fixed`)."""
  draw = np.random.default_rng(6)
  rows = gpt.parameters(config)
  spread = {"gain": 0.2, "bias": 0.3, "threshold": 0.2}

  def fill(row):
    noise = spread.get(row.kind, 0.6) * draw.normal(size=row.shape)
    # Low thresholds: spikes in every part of the memory.
    start = {"gain": 1.0, "threshold": -1.5}.get(row.kind, 0.0)
    return np.float32(start + noise)

  params = gpt.build({row.path: fill(row) for row in rows})
  fn = gpt.make(config)
  stats = nmc.calibrate(fn)(params, [IDS])
  plan = nmc.plan(stats, nmc.quantize.W8A16)
  qparams = nmc.quantize_params(params, plan)
  graph = nmc.record(fn, plan, qparams)
  hardware = nmc.chip.loihi2(chips=3, cores_per_chip=8)
  placement = nmc.place(graph, hardware, head="chip")
  truth = jax.jit(nmc.fixed(fn, plan, taps=True))(qparams, {"ids": IDS})
  return fn, params, plan, qparams, placement, truth


@functools.cache
def engine(name: str, config=CONFIG, **options):
  fn, _, plan, _, placement, _ = build(config)
  return nmc.loihi(fn, plan, placement, engine=name, **options)


def test_fake_quant_in_float64_equals_fixed_at_every_site():
  fn, params, plan, _, _, (_, state, sites) = build()
  with jax.enable_x64(True):
    run = jax.jit(nmc.fake_quant(fn, plan, taps=True))
    _, fake_state, fake = run(jax.tree.map(np.float64, params), {"ids": IDS})
  assert list(fake) == list(sites)
  for path, value in sites.items():
    np.testing.assert_array_equal(codes(fake[path]), codes(value), path)
  for one, two in zip(jax.tree.leaves(fake_state), jax.tree.leaves(state)):
    np.testing.assert_array_equal(one, two)
  # Not for want of spikes: some of each kind, and of what is read.
  spikes = [codes(v) for k, v in sites.items() if "_spikes." in k]
  assert len(spikes) == 2 * 3 * TICKS
  assert all(0.05 < np.mean(x) < 0.95 for x in spikes)
  counts = codes(sites["layers.1.attn.ssa.counts"])
  assert set(np.unique(counts)) == {0, 1, 2}
  assert codes(sites[MEMORY]).max() > 2


@pytest.mark.parametrize("name", ["functional", "stepped"])
@pytest.mark.parametrize("cuts", [(8,), (4, 1, 1, 2)])
def test_both_engines_give_the_integers_of_fixed(name, cuts):
  _, _, _, qparams, _, (want, last, _) = build()
  outs, state, at = [], None, 0
  for size in cuts:
    part = {"ids": IDS[at : at + size]}
    out, state, _ = engine(name)(qparams, part, state)
    outs.append(codes(out.logits))
    at += size
  np.testing.assert_array_equal(np.concatenate(outs), codes(want.logits))
  chex.assert_trees_all_equal(state, last)


OTHERS = {
  "windows": {"windows": (2, 6)},
  "signed": {"signed": True, "windows": (2, None), "ticks": 1},
  "counts": {"mlp_ticks": 3, "ticks": 1},
  "signed counts": {"mlp_ticks": 2, "mlp": "swiglu", "ticks": 1},
  "if": {"neuron": "if", "num_heads": 3, "ticks": 1},
  "ternary": {
    "ternary": True,
    "bias": False,
    "norm": "rms",
    "block_norms": False,
    "positions": "none",
    "mlp": "swiglu",
    "num_heads": 1,
    "ticks": 3,
  },
}


@pytest.mark.slow
@pytest.mark.parametrize("other", OTHERS)
def test_so_do_other_transformers(other):
  config = dataclasses.replace(CONFIG, **OTHERS[other], num_layers=1)
  qparams, (want, last, sites) = (build(config)[i] for i in (3, 5))
  assert codes(sites[MEMORY]).max() > 1
  for name in ("functional", "stepped"):
    out, state, _ = engine(name, config)(qparams, {"ids": IDS})
    chex.assert_trees_all_equal((out, state), (want, last))
    _, state, _ = engine(name, config)(qparams, {"ids": IDS[:7]})
    out, state, _ = engine(name, config)(qparams, {"ids": IDS[7:]}, state)
    np.testing.assert_array_equal(codes(out.logits), codes(want.logits)[7:])
    chex.assert_trees_all_equal(state, last)


@pytest.mark.slow
def test_messages_of_few_bits():
  """The bounds of sums and memories are known: what is wide is cut, no more."""
  fn, _, plan, qparams, placement, (want, last, _) = build()
  chip = nmc.chip.loihi2(chips=3, cores_per_chip=8, message_bits=8)
  placed = nmc.place(placement.network.graph, chip, head="chip")
  sites = {s.path for s in placed.network.synapses}
  assert "layers.0.attn.norm.sum.digit1" in sites
  assert MEMORY + ".read" in sites, "at most 15: one message"
  for name in ("functional", "stepped"):
    run = nmc.loihi(fn, plan, placed, engine=name)
    out, state, _ = run(qparams, {"ids": IDS})
    chex.assert_trees_all_equal((out, state), (want, last))


def test_no_float():
  _, _, _, qparams, _, _ = build()
  traced = jax.make_jaxpr(engine("functional").traced)(qparams, {"ids": IDS})
  kinds = {
    v.aval.dtype
    for inner in _compat.all_jaxprs(traced.jaxpr)
    for eqn in inner.eqns
    for v in eqn.outvars
  }
  assert kinds
  assert not [k for k in kinds if np.issubdtype(k, np.floating)]


def test_both_engines_count_the_same():
  _, _, _, qparams, _, _ = build()
  run = lambda name: engine(name)(qparams, {"ids": IDS})[2]
  same_counts(run("functional"), run("stepped"))


def same_counts(one, two):
  for name in ("synops", "messages_in", "messages_out"):
    np.testing.assert_array_equal(one.total(name), two.total(name))
    assert np.sum(one.total(name)) > 0


@pytest.mark.slow
def test_padding_and_saturation_counts_take_the_interpreter():
  _, _, _, qparams, _, (want, last, _) = build()
  run = engine("functional", saturation=True)
  ids, mask = np.array([0, 0, *IDS[:6]], np.int32), np.ones(8, np.int32)
  mask[:2] = 0
  out, state, _ = run(qparams, {"ids": ids, "mask": mask})
  np.testing.assert_array_equal(codes(out.logits)[2:], codes(want.logits)[:6])
  _, plain, _ = engine("functional")(qparams, {"ids": IDS[:6]})
  chex.assert_trees_all_equal(state, plain)
  out, state, counts = run(qparams, {"ids": IDS, "mask": np.ones_like(mask)})
  np.testing.assert_array_equal(codes(out.logits), codes(want.logits))
  chex.assert_trees_all_equal(state, last)
  same_counts(counts, engine("functional")(qparams, {"ids": IDS})[2])


@pytest.mark.slow
def test_generation_goes_on_from_prompts_of_two_lengths():
  """Padding in front, then a token at a time, each at its own position."""
  fn, _, plan, qparams, _, _ = build()
  prompts = [IDS[:5].tolist(), IDS[:3].tolist()]
  ways = {"jit": nmc.fixed(fn, plan), "": engine("functional")}
  found = [
    generate.generate(run, qparams, prompts, 4, vocab_size=9, jit=bool(jit))
    for jit, run in ways.items()
  ]
  for one, two in zip(found[0].ids, found[1].ids, strict=True):
    assert one.tolist() == two.tolist()
  chex.assert_trees_all_equal(found[0].state, found[1].state)
  assert found[0].state["position"].tolist() == [8, 6]


def test_the_neurons_of_a_memory(capsys):
  """d x d per head, three accumulators and one word of state each."""
  _, _, plan, _, placement, _ = build()
  net = placement.network
  found = [p for p in net.populations if p.name.startswith(MEMORY)]
  assert [p.name for p in found] == [MEMORY + ".read"]
  (memory,) = found
  assert memory.width == HEADS * SIZE * SIZE
  assert (len(memory.ports), len(memory.states)) == (3, 1)
  assert sum(p.role == memory.role for p in net.populations) == 2
  into = [s for s in net.synapses if s.dst == memory.index]
  assert {s.path.rpartition(".")[0] for s in into} == {
    f"layers.0.attn.ssa.{x}_spikes" for x in "qkv"
  }
  rows, columns, _ = wiring(HEADS * SIZE, HEADS)
  for synapse in into:
    wired = columns if "v_spikes" in synapse.path else rows
    np.testing.assert_array_equal(synapse.weights, wired)
  assert any(tile.population == memory.name for tile in placement.tiles)
  rows = {row["role"]: row for row in population_rows(placement)}
  row = rows["layers.*.attn.ssa.memory.0.read"]
  assert row["neurons"] == 2 * HEADS * SIZE * SIZE
  assert (row["where"], row["layers"], row["states"]) == ("cores", "0-1", 1)
  # What lies there: three synapses of weight 1 to each neuron.
  assert row["weights"] >= 3 * row["neurons"]
  people = tables.console()
  people.print(population_table(list(rows.values())))
  assert "attn.ssa.memory.0.read" in capsys.readouterr().out
  assert plan.format(MEMORY).high >= CONTEXT


def test_every_site_of_the_graph_is_that_of_fixed():
  fn, params, plan, qparams, _, (_, _, sites) = build()
  found = diverge.values(fn, "graph", params, IDS, plan, qparams)
  apart = diverge.compare(sites, found, 0)
  assert diverge.first(apart) is None
  assert MEMORY in {site.path for site in apart}
  assert len(apart) > 50


def test_equal_layers_are_one_program():
  """The count of tokens and the memories are states of a layer like others."""
  exe = engine("functional")._exe
  assert [len(run.layers) for run in exe.runs if len(run.layers) > 1] == [2]


def test_what_the_neurons_send_adds_up_to_what_is_read():
  draw = np.random.default_rng(0)
  q, k, v = draw.integers(-1, 2, (3, 5, HEADS * SIZE)).astype(np.int32)
  memory = draw.integers(-4, 5, HEADS * SIZE * SIZE).astype(np.int32)
  y, after = recall(q, k, v, memory, HEADS)
  sent = np.asarray(reads(q, k, v, memory, HEADS))
  rows, columns, _ = wiring(HEADS * SIZE, HEADS)
  np.testing.assert_array_equal(sent @ columns, y)
  # The last token with a q of ones reads the whole memory.
  ones = np.ones_like(q)
  np.testing.assert_array_equal(reads(ones, k, v, memory, HEADS)[-1], after)
  # From nothing, token by token.
  nothing = np.zeros_like(memory)
  sent = np.asarray(reads(q, k, v, nothing, HEADS))
  np.testing.assert_array_equal(sent @ columns, recalled(q, k, v))
  # What a token adds: spike a of k times spike b of v.
  added = np.diff(np.asarray(reads(ones, k, v, nothing, HEADS)), axis=0)
  np.testing.assert_array_equal((k @ rows.T * (v @ columns.T))[1:], added)


def test_what_does_not_fit_is_refused():
  fn, _, plan, qparams, _, (_, state, _) = build()
  for name in ("functional", "stepped"):
    with pytest.raises(TokenError, match="11 tokens, .* at most 10"):
      engine(name)(qparams, {"ids": IDS[:3]}, state)
  tight = plan.with_formats({MEMORY: nmc.quantize.Format(4, 0)})
  tight_params = nmc.quantize_params(build()[1], tight)
  with pytest.raises(FormatError, match="10 tokens may fill the memory to 10"):
    nmc.record(fn, tight, tight_params)
