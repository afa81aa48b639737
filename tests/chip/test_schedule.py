"""Which population fires at which step."""

import numpy as np
import pytest

import jaxnmc as nmc
from jaxnmc.chip import network, outline, schedule
from jaxnmc.errors import UserError
from jaxnmc.report import schedule_plot
from tests.chip.tiny import TINY, tiny_model

STEPS = {"double": 19, "fused": 15, "gate": 13}


@pytest.fixture(scope="module")
def recorded():
  fn, _, plan, qparams = tiny_model("fused")
  return network.network(nmc.record(fn, plan, qparams))


def test_timeline_of_a_fused_block(recorded):
  """Step: who and what, written down by hand."""
  ((layers, rows),) = schedule.blocks(recorded)
  assert layers == list(range(TINY.num_layers))
  ends = {
    row.step: {v.removeprefix("layers.0.") for v in row.values} for row in rows
  }
  assert sorted(ends) == list(range(15))
  assert ends[2] == {"attn.in_norm.i", "attn.in_norm.f", "attn.in_norm.g"}
  assert ends[4] == {"attn.g_norm.root"}
  assert ends[7] == {"attn.o.norm"}
  assert ends[10] == {"mlp.in_norm.gate"}
  assert ends[13] == {"mlp.down.norm"}
  assert ends[14] == {"out"}
  width = {row.step: row.messages for row in rows}
  assert width[2] == 3 * TINY.hidden_size
  assert width[11] == 2 * TINY.mlp_size
  assert width[1] == width[4] == 1


def test_every_message_is_in_the_schedule_once(recorded):
  rows = schedule.firings(recorded)
  sent = {(r.depth, value) for r in rows for value in r.values}
  for synapse in recorded.synapses:
    assert (synapse.depth, synapse.path) in sent
  values = {s.source for s in recorded.synapses}
  # And at the end the logits, which no population reads.
  assert len(sent) == sum(len(r.values) for r in rows) == len(values) + 1
  assert rows[-1].targets == ("host",)
  assert rows[-1].depth == recorded.steps_per_token - 1
  assert rows[-1].messages == TINY.vocab_size
  assert rows[0].population == "embed"
  assert [r.depth for r in rows] == sorted(r.depth for r in rows)


@pytest.mark.parametrize("norm", STEPS)
def test_steps_of_each_formulation(norm):
  net = outline.matmulfree(3, 8, 12, 10, norm=norm)
  ((layers, rows),) = schedule.blocks(net)
  assert layers == [0, 1, 2]
  assert [row.step for row in rows] == list(range(STEPS[norm]))
  assert net.layer_starts == {n: 1 + n * STEPS[norm] for n in range(3)}
  assert net.head_start == 1 + 3 * STEPS[norm]


def test_layers_that_differ_are_told_apart():
  b = outline.Builder()
  last = b.population("embed", None, 4, 1, host=True)
  for layer, width in enumerate((4, 4, 4)):
    p = b.population(f"layers.{layer}.out", layer, width, 1)
    b.join(last, p, "relay", layer)
    if layer == 1:
      b.join(p, p, "dense", 1, np.ones((4, 4), np.int8))
    last = p
  found = [layers for layers, _ in schedule.blocks(b.network())]
  assert [1] in found


@pytest.mark.parametrize("mode", schedule.MODES)
def test_where_every_token_is(recorded, mode):
  steps = 2 * recorded.steps_per_token + 7
  token = schedule.occupancy(recorded, mode, steps)
  assert token.shape == (recorded.steps_per_token, steps)
  inject = schedule.injections(recorded, mode, steps)
  want = np.full(token.shape, -1)
  for n, start in enumerate(inject.tolist()):
    for depth in range(len(want)):
      if start + depth < steps:
        want[depth, start + depth] = n
  np.testing.assert_array_equal(token, want)
  busy = (token >= 0).sum(axis=0)
  if mode == "pipelined":
    assert (busy[recorded.steps_per_token :] == len(token)).all()
  else:
    assert (busy == 1).all()
  np.testing.assert_array_equal(
    schedule.occupancy(recorded, mode, steps, 5), token[:5]
  )


def test_unknown_mode(recorded):
  with pytest.raises(UserError, match="sideways"):
    schedule.occupancy(recorded, "sideways", 3)


def test_figure_has_both_modes_and_the_tokens(recorded):
  pytest.importorskip("matplotlib")
  fig = schedule_plot.figure(recorded, steps=50)
  axes = fig.axes
  assert [a.get_title() for a in axes] == [
    "pipelined: 50 tokens entered, 16 left",
    "fall-through: 2 tokens entered, 1 left",
  ]
  for axis, mode in zip(axes, schedule.MODES):
    mesh = axis.collections[0]
    token = schedule.occupancy(recorded, mode, 50)
    shade = np.where(token < 0, 0, 1 + token % 10)
    np.testing.assert_array_equal(
      np.asarray(mesh.get_array()).reshape(token.shape), shade
    )
  names = [t.get_text() for t in axes[0].get_yticklabels()]
  assert names == ["layer 0", "layer 1", "head"]


def test_figure_of_a_deep_network_is_cut():
  pytest.importorskip("matplotlib")
  net = outline.matmulfree(100, 2, 2, 2)
  fig = schedule_plot.figure(net)
  assert "first 1,024 depths" in fig.get_suptitle()
  assert "3072 tokens entered, 1568 left" in fig.axes[0].get_title()
  assert fig.axes[0].get_ylim()[0] == 1024
