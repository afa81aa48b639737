"""Energy per message against the weights that a run walked."""

import numpy as np
import pytest

import jaxnmc as nmc
from jaxnmc.chip.costs.energy import Energy
from jaxnmc.chip.costs.messages import joules_per_message
from jaxnmc.report import backends
from tests.chip.tiny import tiny_model

GIVEN = Energy("given", "this test", synop_j=2.0, message_j=5.0, crossing_j=7.0)


@pytest.mark.parametrize("chips", [1, 2])
def test_messages_make_up_what_the_run_cost(chips):
  fn, _, plan, qparams = tiny_model("fused")
  placed = backends.place_on(nmc.record(fn, plan, qparams), chips)
  run = nmc.loihi(fn, plan, placed, histograms=True)
  ids = np.arange(20, dtype=np.int32) % 32
  counters = run(qparams, {"ids": ids})[2]
  each = joules_per_message(placed, GIVEN)
  sent = {k: int(h.sent.sum()) for k, h in counters.histograms.items()}
  assert sent.keys() <= each.keys()
  total = sum(each[k] * n for k, n in sent.items())
  counted = sum(
    j * int(counters.total(name).sum())
    for j, name in (
      (GIVEN.synop_j, "synops_stored"),
      (GIVEN.message_j, "messages_out"),
      (GIVEN.crossing_j, "crossings"),
    )
  )
  if chips == 1:
    assert total == counted > 0
  else:
    # Crossings are a mean over the neurons of a value.
    assert total == pytest.approx(counted, rel=0.02)


def test_unknown_constants_count_as_nothing():
  fn, _, plan, qparams = tiny_model("fused")
  placed = backends.place_on(nmc.record(fn, plan, qparams), 1)
  found = joules_per_message(placed, Energy("given", "this test"))
  assert set(found.values()) == {0.0}
