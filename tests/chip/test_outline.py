"""Networks from sizes alone are those that `record` gives."""

import collections

import numpy as np
import pytest

import jaxnmc as nmc
from jaxnmc.chip import network, outline
from jaxnmc.chip.placement import place
from jaxnmc.errors import UserError
from tests.chip.tiny import TINY, tiny_model


def _populations(net):
  return [
    (p.layer, p.width, p.phases, p.words, p.host) for p in net.populations
  ]


def _synapses(net):
  """How often there is which synapse, and how many values are sent."""
  pops = net.populations
  kinds = collections.Counter(
    (s.kind, s.depth, pops[s.src].layer, pops[s.dst].layer)
    + (pops[s.src].width, pops[s.dst].width)
    for s in net.synapses
  )
  return kinds, len({s.source for s in net.synapses})


@pytest.mark.parametrize("norm", ["double", "fused"])
def test_outline_is_the_recorded_network(norm):
  fn, _, plan, qparams = tiny_model(norm)
  recorded = network.network(nmc.record(fn, plan, qparams))
  sizes = (TINY.num_layers, TINY.hidden_size, TINY.mlp_size, TINY.vocab_size)
  net = outline.matmulfree(*sizes, norm=norm)
  assert _populations(net) == _populations(recorded)
  assert _synapses(net) == _synapses(recorded)
  assert net.steps_per_layer == recorded.steps_per_layer
  assert net.steps_per_token == recorded.steps_per_token
  # Placed alike, too: the same cuts and the same walk at every depth.
  chip = nmc.chip.loihi2(chips=2, cores_per_chip=5)
  one, two = (place.place(n, chip, head="host") for n in (net, recorded))
  assert [t.width for t in one.tiles] == [t.width for t in two.tiles]
  np.testing.assert_array_equal(one.walk, two.walk)


def test_gate_norm_fused_saves_two_steps():
  steps = {
    norm: outline.matmulfree(2, 8, 12, 10, norm=norm).steps_per_layer
    for norm in outline.FORMULATIONS
  }
  assert steps == {"double": (19, 19), "fused": (15, 15), "gate": (13, 13)}
  with pytest.raises(UserError, match="triple"):
    outline.matmulfree(norm="triple")


def test_share_of_the_messages():
  chip = nmc.chip.loihi2(chips=2, cores_per_chip=5)
  placed = place.place(outline.matmulfree(2, 16, 24, 32), chip)
  full, half = (
    outline.traffic(placed, [0, 1], share=s).counts for s in (1.0, 0.5)
  )
  for all_of, some in zip(full, half):
    np.testing.assert_array_equal(all_of.stored // 2, some.stored)
    # Whole messages before each tile: half of those that all tiles sent.
    before = np.cumsum(all_of.out, axis=1)
    np.testing.assert_array_equal(before // 2, np.cumsum(some.out, axis=1))
