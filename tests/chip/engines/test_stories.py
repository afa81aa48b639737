"""Law 2 on the model that ships: the stepped machine is `fixed`."""

import jax
import numpy as np
import pytest

import jaxnmc as nmc
from tests.chip.engines.test_law2 import watched

# (chips, head, where values wait).
PLACEMENTS = [(1, "host", "fifo"), (4, "auto", "axon"), (8, "chip", "fifo")]


@pytest.fixture(scope="module")
def story():
  model = nmc.load("stories-mmf")
  text = "Once upon a time there was a small cat."
  ids = np.array(model.tokenizer.encode(text)[:12], np.int32)
  fixed = jax.jit(nmc.fixed(model.fn, model.plan))
  want = fixed(model.qparams, {"ids": ids}, None)
  graph = nmc.record(model.fn, model.plan, model.qparams)
  return model, ids, want, graph


@pytest.mark.slow
@pytest.mark.parametrize(("chips", "head", "waits"), PLACEMENTS)
def test_the_stepped_machine_tells_the_same_story(story, chips, head, waits):
  model, ids, want, graph = story
  hardware = nmc.chip.loihi2(chips=chips)
  placed = nmc.place(nmc.network(graph, waits), hardware, head=head)
  make = lambda **options: nmc.loihi(model.fn, model.plan, placed, **options)
  functional, stepped = make(), make(engine="stepped")
  counts = watched(functional, lambda: functional(model.qparams, {"ids": ids}))
  latency = placed.network.steps_per_token
  gaps = np.array([0, 1, 1, 3, 1, latency, 1, 2, 40, 1, 1, 1])[: len(ids)]
  for inject in (None, np.arange(len(ids)) * latency, np.cumsum(gaps)):
    found = []

    def run(inject=inject, found=found):
      inputs = {"ids": ids}
      found.append(stepped(model.qparams, inputs, inject=inject))

    same = watched(stepped, run)
    ((out, state, _),) = found
    jax.tree.map(np.testing.assert_array_equal, (out, state), want)
    for name, rows in counts.items():
      np.testing.assert_array_equal(same[name], rows, err_msg=name)
