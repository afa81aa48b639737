"""Law 2 (one truth) and law 5 (counters agree), as properties of the machine.

Few networks are compiled; data, schedules and the way a run is fed vary much.
The truth is `fixed`, one token at a time, so it has one compiled program, too.
"""

import functools

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st
from jax import numpy as jnp

import jaxnmc as nmc
from jaxnmc.chip.engines import program, step, stream
from tests.chip.mini import EMPTY, VOCAB, mini, recut

LENGTH = 10
COUNTS = ("out", "inc", "synops", "stored")


class Case:
  """A placed network with both engines."""

  def __init__(self, layers, width, chips, head, cut, waits="fifo"):
    self.net = mini(layers, width)
    hardware = nmc.chip.loihi2(chips=chips, cores_per_chip=5)
    network = nmc.network(self.net.graph, waits)
    placed = nmc.place(network, hardware, head=head)
    self.placement = recut(placed, cut)
    self.functional = self.net.loihi(self.placement)
    self.stepped = self.stepped_anew()

  def stepped_anew(self):
    """An engine with nothing compiled."""
    return self.net.loihi(self.placement, engine="stepped")

  def truth(self, ids, state):
    """Outputs and state of `fixed`, token by token."""
    rows = []
    for token in ids:
      inputs = {"ids": np.array([token], np.int32)}
      out, state = self.net.fixed(self.net.qparams, inputs, state)
      rows.append(np.asarray(out.y.q)[0])
    return np.array(rows), state

  def counts(self, ids, state):
    """What functional counts: name -> int[T, columns]."""
    padded = np.resize(ids, LENGTH).astype(np.int32)
    padded[len(ids) :] = 1
    found = watched(
      self.functional,
      lambda: self.functional(self.net.qparams, {"ids": padded}, state),
    )
    return {name: rows[: len(ids)] for name, rows in found.items()}


def watched(engine, run):
  """Counts token by token of all that a run did: name -> int[T, columns]."""
  segments = []
  engine.watch = segments.append
  try:
    run()
  finally:
    engine.watch = None
  return {
    name: np.concatenate(
      [
        np.concatenate([getattr(c, name) for c in segment.counts], axis=1)
        for segment in segments
      ]
    )
    for name in COUNTS
  }


@functools.cache
def case(*shape):
  return Case(*shape)


# (layers, width, chips, head, neurons per tile, where values wait): one tile
# per population and tiles that do not divide the width, a head on the host and
# on the chips, waits in neurons and on axons.
SHAPES = [
  (1, 5, 1, "host", 5),
  (2, 5, 1, "chip", 2, "axon"),
  pytest.param((3, 6, 4, "chip", 4), marks=pytest.mark.slow),
]


def some_state(net, seed: int):
  """A state that is not zero, within its formats; None for seed 0."""
  if not seed:
    return None
  draw = np.random.default_rng(seed)
  ids = draw.integers(1, VOCAB, 1).astype(np.int32)
  _, state = net.fixed(net.qparams, {"ids": ids}, None)
  leaves = iter(jax.tree.leaves(net.graph.state))

  def fill(codes):
    leaf = next(leaves)
    new = draw.integers(leaf.low // 2, leaf.high // 2, codes.shape)
    return jnp.asarray(new, jnp.int32)

  return jax.tree.map(fill, state)


def check(case, engine, feed, ids, state) -> None:
  """Outputs, state and counts of what `feed` does are those of the truth."""
  done = {}

  def run():
    done["out"], done["state"], done["counters"] = feed(engine, ids, state)

  counts = watched(engine, run)
  want, end = case.truth(ids, state)
  np.testing.assert_array_equal(done["out"], want)
  jax.tree.map(np.testing.assert_array_equal, done["state"], end)
  for name, rows in case.counts(ids, state).items():
    np.testing.assert_array_equal(counts[name], rows, err_msg=name)
  assert done["counters"].tokens == len(ids)


TOKEN = st.one_of(st.just(EMPTY), st.integers(0, VOCAB - 1))
IDS = st.lists(TOKEN, min_size=1, max_size=LENGTH)
GAPS = st.lists(st.integers(1, 9), min_size=LENGTH, max_size=LENGTH)
SEED = st.integers(0, 5)


@pytest.mark.parametrize("shape", SHAPES)
@hypothesis.settings(max_examples=12)
@hypothesis.given(ids=IDS, first=st.integers(0, 80), gaps=GAPS, seed=SEED)
def test_any_injection_list(shape, ids, first, gaps, seed):
  it = case(*shape)
  inject = first + np.cumsum(gaps)[: len(ids)] - gaps[0]

  def feed(engine, ids, state):
    inputs = {"ids": np.array(ids, np.int32)}
    out, state, counters = engine(it.net.qparams, inputs, state, inject)
    return np.asarray(out.y.q), state, counters

  check(it, it.stepped, feed, ids, some_state(it.net, seed))


PIECE = st.tuples(st.integers(1, 4), st.integers(0, 9), st.booleans())


@pytest.mark.parametrize("shape", SHAPES)
@hypothesis.given(
  ids=IDS,
  pieces=st.lists(PIECE, min_size=LENGTH, max_size=LENGTH),
  seed=SEED,
)
def test_any_stream_of_bursts_gaps_and_drains(shape, ids, pieces, seed):
  """Tokens in flight, waits and drains in any order: nothing is lost."""
  it = case(*shape)

  def feed(engine, ids, state):
    flow, found, rest = engine.stream(it.net.qparams, state), [], list(ids)
    for size, idle, drain in pieces:
      if rest:
        burst, rest = rest[:size], rest[size:]
        found.append(flow.send(np.array(burst, np.int32)))
        found.append(flow.drain() if drain else flow.wait(idle))
    last, state, counters = flow.finish()
    outs = [np.asarray(out.y.q) for out in (*found, last)]
    assert flow.tokens == len(ids)
    assert flow.flying == 0
    return np.concatenate(outs), state, counters

  check(it, it.stepped, feed, ids, some_state(it.net, seed))


def test_any_number_of_steps_per_chunk(monkeypatch):
  it = case(*SHAPES[0])
  monkeypatch.setattr(stream, "CHUNK", 5)
  ids, inject = [3, EMPTY, 7, 1, 2], [0, 1, 6, 12, 13]

  def feed(engine, ids, state):
    inputs = {"ids": np.array(ids, np.int32)}
    out, state, counters = engine(it.net.qparams, inputs, state, inject)
    return np.asarray(out.y.q), state, counters

  check(it, it.stepped_anew(), feed, ids, some_state(it.net, 1))


# --- mutants: each breaks one small function, and the law must see it


def ungated(gate, new, old):
  return new


def talkative(gate, real, x):
  return jnp.where(real, x, 0)


def unpadded(gate, real, x):
  return jnp.where(gate[:, None, None], x, 0)


def too_young(waiting, age):
  return waiting[max(age - 2, 0)]


def on_arrival(before, injected):
  here, row = injected
  return jnp.concatenate([(here & jnp.any(row != 0))[None], before[:-1]])


MUTANTS = {
  "state is updated without a token": (step, "updated", ungated),
  "messages are sent without a token": (step, "messages", talkative),
  "padding neurons send": (step, "messages", unpadded),
  "a FIFO is one step short": (program, "waited", too_young),
  "the clock ticks on arrival": (step, "clock", on_arrival),
}


def bubbles(it):
  """A run with bubbles, an empty token, and padding in the last tile."""

  def feed(engine, ids, state):
    inputs, inject = {"ids": np.array(ids, np.int32)}, [1, 2, 9, 11, 30]
    out, state, counters = engine(it.net.qparams, inputs, state, inject)
    return np.asarray(out.y.q), state, counters

  return feed, [3, EMPTY, 7, 1, 2], some_state(it.net, 1)


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name, monkeypatch):
  it = case(*SHAPES[1])
  feed, ids, state = bubbles(it)
  waits = {w for c in it.stepped.machine.classes for w in c.program.waits}
  assert max(length for *_, length in waits) >= 2
  check(it, it.stepped, feed, ids, state)
  where, function, mutant = MUTANTS[name]
  monkeypatch.setattr(where, function, mutant)
  # Either the comparison sees it, or the engine's own: that all it counted
  # was where a token is.
  with pytest.raises((AssertionError, RuntimeError)):
    check(it, it.stepped_anew(), feed, ids, state)
