"""Two placements with traffic, for counters and costs."""

import numpy as np
import pytest

from jaxnmc.chip import hardware
from jaxnmc.chip.costs.cost import cost
from jaxnmc.chip.counting.counters import Counters
from jaxnmc.chip.placement import place
from tests.chip import synthetic


@pytest.fixture(scope="session")
def big():
  """370M on 24 chips: a prompt of 400 tokens, then two tokens."""
  placed = place.place(
    synthetic.matmulfree(vocab=64), hardware.loihi2(chips=24)
  )
  latency = placed.steps_per_token
  parts = (np.arange(400), np.arange(2) * latency)
  counted = Counters.of(
    [synthetic.traffic(placed, p) for p in parts], placed, {}
  )
  return placed, counted, cost(counted, placed)


@pytest.fixture(scope="session")
def small():
  net = synthetic.matmulfree(layers=2, d=16, i=24, vocab=32, seed=1)
  return place.place(net, hardware.loihi2(chips=3, cores_per_chip=5))
