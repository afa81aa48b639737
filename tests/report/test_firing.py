"""Dead and saturated neurons, and thresholds far off, on nets made so."""

import functools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from jaxnmc.models import gpt, spike_counts
from jaxnmc.report import firing, plots, tables

CONFIG = gpt.Config(
  vocab_size=13,
  hidden_size=8,
  num_layers=1,
  num_heads=2,
  intermediate_size=20,
  max_position_embeddings=8,
  norm="layer",
  mlp="relu",
  positions="learned",
  initializer_range=0.7,
  attention="ssa",
  ticks=2,
  neuron="if",
  mlp_ticks=2,
)
IDS = np.random.default_rng(0).integers(0, 13, (6, 8)).astype(np.int32)


@functools.cache
def examined():
  """(counts, what was found) of a net with neurons that are made ill.

  q: 3 neurons with thresholds no drive reaches.  k: all of them.  mlp: 4 that
  cannot but fire, as a bias of their own would have it, by thresholds below any
  drive.
  """
  params = gpt.init_params(CONFIG, jax.random.key(2))
  (layer,) = params["layers"]
  ssa = layer["attn"]["ssa"]
  ssa["q"] = (ssa["q"] - 2).at[:3].set(20.0)
  ssa["k"] = jnp.full_like(ssa["k"], 20.0)
  ssa["v"] = ssa["v"] - 2
  fire = layer["mlp"]["fire"]
  layer["mlp"]["fire"] = fire.at[:, :4].set([[-1e6], [-1e5]])
  counts = spike_counts.count(CONFIG, params, IDS)
  return counts, firing.examine(CONFIG, params, IDS)


def row(name):
  (found,) = [r for r in examined()[1]["neurons"] if r["site"] == name]
  return found


def test_dead_neurons_are_found():
  rates = examined()[0].rates("0.q")
  assert (rates[:3] == 0).all()
  assert (rates[3:] > 0).all()
  assert row("q")["dead"] == 3
  assert row("q")["wrong"] == ""
  assert row("k")["dead"] == row("k")["neurons"] == 8
  assert row("k")["wrong"] == "silent, thresholds too high"
  # Nothing is remembered where no k fires.
  assert row("out")["dead"] == 8
  assert "silent" in row("out")["wrong"]


def test_saturated_neurons_are_found():
  rates = examined()[0].rates("0.mlp")
  assert (rates[:4] == 1).all()
  assert (rates[4:] < 0.9).all()
  assert row("mlp")["saturated"] == 4
  assert row("mlp")["wrong"] == "saturated"
  assert row("v")["saturated"] == 0


def test_scale_is_threshold_over_drive():
  assert row("k")["scale"] > 1e6
  assert 1 / 64 < row("v")["scale"] < 1
  assert row("out")["scale"] == np.inf


def test_ties_are_counted_token_by_token():
  logits = np.array([[4.0, 4.0, 0.0], [4.0, 3.9, 0.0], [4.0, 1.0, 0.0]])
  two = firing.ties(logits, 2)
  assert (two["tied"], two["tokens"], two["share"]) == (2, 3, 2 / 3)
  assert firing.ties(logits, 1000)["tied"] == 1
  assert firing.ties(-1 - logits, 4)["tied"] == 3  # nobody fires
  assert examined()[1]["ties"]["tokens"] == IDS.size


def test_histograms_hold_every_neuron_and_token():
  rows = firing.spike_histogram(examined()[0])
  for r, site in zip(rows, examined()[0].sites, strict=True):
    assert sum(r["times"]) == site.neurons * IDS.size
    assert len(r["times"]) == r["ticks"] + 1
    sent = sum(k * n for k, n in enumerate(r["times"]))
    assert sent == examined()[0].neurons[site.key].sum()
  assert firing.spike_histogram(examined()[0], layer=1) == []
  assert rows == examined()[1]["histogram"]


def test_the_plot_has_a_row_per_site():
  pytest.importorskip("matplotlib")
  figure = plots.spike_histogram(examined()[1]["histogram"])
  labels = [x.get_text() for x in figure.axes[0].get_yticklabels()]
  assert labels == ["0.q", "0.k", "0.v", "0.out", "0.mlp"]


def test_tables_fit_80_columns():
  people = tables.console()
  with people.capture() as said:
    firing.show(people, examined()[1]["neurons"], examined()[1]["ties"])
  head = said.get().split("read-out by")[0]
  assert max(map(len, head.splitlines())) <= 80
  assert "silent, thresholds too high" in " ".join(head.split())
