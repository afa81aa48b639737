"""A recorded model as populations and synapses: its steps, state, synapses."""

import collections

import pytest

import jaxnmc as nmc
from jaxnmc.chip import network
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
