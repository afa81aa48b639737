"""A recorded model as populations and synapses: its steps, state, synapses."""

import collections

import jax
import numpy as np
import pytest

import jaxnmc as nmc
from jaxnmc.chip import network
from jaxnmc.chip.engines.program import compile_population
from jaxnmc.errors import PlacementError
from tests.chip.mini import mini
from tests.chip.tiny import TINY, tiny_model

# Depths in one block, after machine-notes: the relay, two hops for a norm's
# statistics (sum, root), one for a matrix; a double norm has two norms.
NORM = {"double": 4, "fused": 2}


@pytest.fixture(scope="module", params=NORM)
def recorded(request):
  fn, _, plan, qparams = tiny_model(request.param)
  return request.param, network.network(nmc.record(fn, plan, qparams))


def test_steps_of_a_block_and_of_a_token(recorded):
  norm, net = recorded
  # in, gate, o with its own norm, in, down: two double norms, then three
  # single ones, four matrices and the relay.
  block = 1 + 2 * NORM[norm] + 3 * 2 + 4
  assert block == {"double": 19, "fused": 15}[norm]
  assert net.steps_per_layer == (block,) * TINY.num_layers
  # The host's rows enter by a relay; the head is a double norm and a matrix.
  assert net.steps_per_token == 1 + TINY.num_layers * block + NORM[norm] + 2
  assert max(net.depth) == net.steps_per_token - 1
  assert min(net.depth) == 0


def test_a_hop_takes_a_step(recorded):
  """A value arrives one step after it was sent, and may then wait."""
  _, net = recorded
  for synapse in net.synapses:
    port = net.ports[synapse.port]
    assert port.population == synapse.dst
    assert port.depth == synapse.depth + 1
    reader = net.populations[synapse.dst]
    assert any(depth >= port.depth for depth in reader.depths)


def test_matrices_of_a_block(recorded):
  _, net = recorded
  kinds = collections.Counter(
    (s.kind, net.populations[s.dst].layer) for s in net.synapses
  )
  for layer in range(TINY.num_layers):
    # i, f, g, o, gate, up, down.
    assert kinds["dense", layer] == 7
    assert kinds["relay", layer] == 1
  assert kinds["dense", None] == kinds["relay", None] == 1
  states = [p for p in net.populations if p.states]
  assert [p.layer for p in states] == list(range(TINY.num_layers))
  assert [p.host for p in net.populations] == [
    p.name == "embed" for p in net.populations
  ]


# --- waiting on axons


@pytest.mark.parametrize("norm", ["double", "fused"])
def test_what_waits_on_axons_is_what_waited_in_neurons(norm):
  fn, _, plan, qparams = tiny_model(norm)
  graph = nmc.record(fn, plan, qparams)
  net, axons = nmc.network(graph), nmc.network(graph, "axon")
  named = [n.id for n in graph.nodes if n.site]
  assert [axons.depth[i] for i in named] == [net.depth[i] for i in named]
  assert axons.steps_per_layer == net.steps_per_layer
  extra = axons.synapses[len(net.synapses) :]
  assert extra
  for synapse in extra:
    node = graph.nodes[synapse.source]
    assert synapse.kind == "relay"
    assert node.cast
    # Somebody reads it just then.
    readers = [
      n.id
      for n in graph.nodes
      if synapse.source in n.args
      and net.home[n.id] == synapse.dst
      and axons.depth[n.id] == net.depth[node.id] + 1 + synapse.delay
    ]
    assert readers
  # Only values without a name wait in neurons still.
  for population in axons.populations:
    for kind, node, _ in population.fifos:
      assert kind == "axon" or not graph.nodes[node].cast
    # A wait of k steps is a port and a ring of k - 1 or k words.
    rings = sum(s.delay for s in extra if s.dst == population.index)
    rest = sum(a for k, _, a in population.fifos if k != "axon")
    state = len(population.ports) + len(population.states)
    assert population.words == state + rings + rest
    # The program reads them there, and not in a FIFO after all.
    own = compile_population(axons, population)
    node_of = {i: n for n, i in own.local.items()}
    for kind, i, _ in own.program.waits:
      assert kind == "port" or not graph.nodes[node_of[i]].cast
  waited = lambda n: sum(
    a for p in n.populations for k, _, a in p.fifos if k != "axon"
  )
  assert waited(axons) < waited(net) / 4


@pytest.mark.parametrize(
  "name", ["mini", pytest.param("fused", marks=pytest.mark.slow)]
)
def test_a_message_more_for_every_wait(name):
  if name == "mini":
    small = mini(2, 4)
    fn, plan, qparams = small.fn, small.plan, small.qparams
  else:
    fn, _, plan, qparams = tiny_model(name)
  graph = nmc.record(fn, plan, qparams)
  ids = np.array([3, 9, 4], np.int32)
  counts = {}
  for waits in ("fifo", "axon"):
    placed = nmc.place(nmc.network(graph, waits), nmc.chip.loihi2(chips=1))
    out, _, counters = nmc.loihi(fn, plan, placed)(qparams, {"ids": ids})
    counts[waits] = out, counters.total("messages_in").sum(), placed.network
  integers = (jax.tree.leaves(counts[waits][0]) for waits in counts)
  for fifo, axon in zip(*integers, strict=True):
    np.testing.assert_array_equal(fifo, axon)
  known = len(counts["fifo"][2].synapses)
  # What another layer sends anyway arrives once, for all delays.
  added = counts["axon"][2].synapses[known:]
  extra = {s.source for s in added if s.src == s.dst}
  assert len(added) > len(extra)
  fixed = jax.jit(nmc.fixed(fn, plan, taps=True))
  *_, taps = fixed(qparams, {"ids": ids}, None)
  sent = sum(np.count_nonzero(taps[graph.nodes[i].site].q) for i in extra)
  assert counts["axon"][1] - counts["fifo"][1] == sent > 0


def test_waits_that_cannot_be():
  fn, _, plan, qparams = tiny_model("double")
  graph = nmc.record(fn, plan, qparams)
  with pytest.raises(PlacementError, match="waits='no' must be one of"):
    nmc.network(graph, "no")
  short = nmc.chip.loihi2(chips=1, delay_max=1)
  nmc.place(nmc.network(graph), short)
  with pytest.raises(
    PlacementError, match=r"a delay of \d+ steps; .* allows 1"
  ):
    nmc.place(nmc.network(graph, "axon"), short)
