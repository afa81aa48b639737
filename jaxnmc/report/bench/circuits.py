"""The standard load of spiking simulators, stepped with counters on.

LIF neurons that integrate a constant drive, joined at random: each pair with
probability 0.1, even weights of -60 to 60 (8-bit weights of both signs are
even). A drive of `activity` thresholds per step
makes a neuron fire in that share of the steps, because the weights cancel on
average; the activity that came out is reported, not the one asked for. The
full chip is one population of 3,584 neurons and 12.8 M ternary weights, dense,
on the 120 cores of one Loihi 2.
"""

import dataclasses
from typing import Any

import numpy as np

from jaxnmc.chip.circuits import Circuit, Connection, Population, run
from jaxnmc.chip.hardware import loihi2
from jaxnmc.chip.neurons import LIF
from jaxnmc.chip.placement.place import place
from jaxnmc.chip.synapses import Dense

DENSITY, LARGEST, THRESHOLD = 0.1, 60, 3600
FULL_CHIP = 3584  # squared: 12,845,056 weights, a block of the 370M model


def recurrent(n: int, activity: float, seed: int = 0) -> Circuit:
  """LIF neurons with a tenth of all connections.

  Args:
    n: neurons.
    activity: drive of a step in thresholds; about the share of the steps in
      which a neuron fires, less above 0.2, where the overshoot is lost.
    seed: of weights and drives.
  """
  rng = np.random.default_rng(seed)
  weights = 2 * rng.integers(-LARGEST // 2, LARGEST // 2 + 1, (n, n))
  weights[rng.random((n, n)) >= DENSITY] = 0
  return _driven(Dense.of(weights), activity, rng)


def full_chip(activity: float, n: int = FULL_CHIP, seed: int = 0) -> Circuit:
  """As many ternary weights as a block of the 370M model has."""
  rng = np.random.default_rng(seed)
  # Two bits keep -128, 0 and 128, which the exponent makes -1, 0 and 1. Every
  # weight is stored and walked, whether it is zero or not.
  weights = 128 * rng.integers(-1, 2, (n, n))
  synapse = Dense.of(weights, num_weight_bits=2, weight_exp=-7)
  return _driven(synapse, activity, rng)


def _driven(synapse: Dense, activity: float, rng) -> Circuit:
  n, _ = synapse.shape
  drive = rng.uniform(0.8, 1.2, n) * min(activity, 1) * THRESHOLD
  drive = np.clip(np.rint(drive), 1, 4095).astype(int)
  if activity >= 1:
    drive[:] = 4095
  lif = LIF(
    du=4095,
    vth=THRESHOLD,
    bias_mant=tuple(drive.tolist()),
    bias_exp=6,
  )
  wires = [Connection("lif", "lif", synapse)]
  return Circuit({"lif": Population(lif, n)}, wires)


@dataclasses.dataclass(eq=False)
class Load:
  """A circuit that keeps running, a stretch of steps at a time.

  Attributes:
    circuit: what runs.
    steps: steps of a stretch.
    warm: steps before the first one, so that the rate has settled.
  """

  circuit: Circuit
  steps: int
  warm: int = 0

  def __post_init__(self):
    placement = place(self.circuit.network(), loihi2(chips=1))
    self.cores = len(placement.used_cores)
    self._run = run(self.circuit, placement)
    self._last: Any = None

  def __call__(self) -> None:
    """Runs the next stretch, counters on."""
    if self._last is None and self.warm:
      self._last = self._run(steps=self.warm)
    state = None if self._last is None else self._last.state
    self._last = self._run(state=state, steps=self.steps)

  def facts(self) -> dict[str, Any]:
    """What the last stretch was: steps, synaptic operations, activity."""
    counters = self._last.counters
    return {
      "steps": self.steps,
      "synops": int(counters.total("synops").sum()),
      "synops_stored": int(counters.total("synops_stored").sum()),
      "activity": float(np.mean(self._last.messages["lif"] != 0)),
      "cores": self.cores,
    }


def loads(quick: bool) -> dict[str, Load]:
  """The standard loads by name."""
  if quick:
    return {"LIF 256, drive 0.06": Load(recurrent(256, 0.06), 64)}
  found = {
    f"LIF {n:,}, drive {activity:g}": Load(recurrent(n, activity), steps, 60)
    for n, steps in ((1024, 1000), (4096, 200))
    for activity in (0.06, 0.12, 0.5)
  }
  for activity in (1, 0.1, 0.01, 0.001):
    # All neurons start at rest, so the first cycles are in step.
    warm = round(6 / activity)
    name = f"full chip, drive {activity:g}"
    found[name] = Load(full_chip(activity), max(50, warm // 6), warm)
  return found
