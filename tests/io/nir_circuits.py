"""Small circuits for the tests of NIR, on a grid that real numbers share.

Weights are multiples of 2^5 at least, states 6 bits finer, and decays 1/2, so
that in a dozen steps nothing is rounded, neither in the integers nor in 24 bits
of a float; sums stay below 2^17, where the integers would saturate.
"""

import numpy as np

from jaxnmc.chip import neurons
from jaxnmc.chip.circuits import Circuit, Connection, Input, Population, run
from jaxnmc.chip.synapses import Dense, Sparse

STEPS = 12
EXP = 5  # of weights, which are even

# The kinds of neurons, by the node they become.
KINDS = {
  "LIF": neurons.LIF(du=4095, dv=2048, vth=2300),
  "CubaLIF": neurons.LIF(du=2047, dv=2048, vth=3000),
  "IF": neurons.LIF(du=4095, dv=0, vth=11 * 2**8),
  "IF with a current": neurons.LIF(du=2047, dv=0, vth=6000),
}


def dense(rng, out, n, low=-75, high=90, exp=EXP):
  """Random even weights of both signs."""
  weights = 2 * rng.integers(low, high, (out, n))
  weights[0, 0], weights[-1, -1] = 100, -60
  return Dense.of(weights, weight_exp=exp)


def layers(neuron, rng, loop=False, last=None) -> Circuit:
  """Two layers, the second with a loop if asked."""
  connections = [
    Connection("drive", "first", dense(rng, 8, 5)),
    Connection("first", "second", dense(rng, 6, 8, exp=EXP - bool(last))),
  ]
  if loop:
    connections.append(Connection("second", "second", dense(rng, 6, 6)))
  return Circuit(
    {"first": Population(neuron, 8), "second": Population(last or neuron, 6)},
    connections,
    {"drive": Input(5)},
  )


def tangle(rng) -> Circuit:
  """Delays, a way round a layer, a loop of two populations."""
  neuron = KINDS["LIF"]
  weights = 2 * rng.integers(-70, 90, (6, 8))
  delays = rng.integers(0, 4, (6, 8))
  return Circuit(
    {n: Population(neuron, 6 if n != "a" else 8) for n in "abc"},
    [
      Connection("drive", "a", dense(rng, 8, 5)),
      Connection("a", "b", Sparse.from_dense(weights, delays, weight_exp=EXP)),
      Connection("drive", "b", dense(rng, 6, 5)),
      Connection("b", "c", dense(rng, 6, 6)),
      Connection("c", "b", dense(rng, 6, 6)),
      Connection("a", "c", dense(rng, 6, 8)),
    ],
    {"drive": Input(5)},
  )


def spikes(rng, n=5, steps=STEPS) -> np.ndarray:
  """int[steps, n]."""
  return (rng.random((steps, n)) < 0.6).astype(int)


def ours(circuit, x, state=None, more=8, name="drive"):
  """Messages of a circuit, with some steps more for what comes late."""
  feed = np.concatenate([x, np.zeros((more, x.shape[1]), int)])
  return run(circuit)({name: feed}, state).messages


def same(messages, lag, there) -> int:
  """Compares messages with those of a node; how many are not 0."""
  here = messages[lag : lag + len(there)]
  np.testing.assert_array_equal(here, there)
  return int(np.count_nonzero(here))
