"""Driver: the emulator of nengo-loihi, Loihi 1 in integers."""

import frame


def build(load, variant):
  import nengo
  import nengo_loihi
  from scipy import sparse

  dt = 0.001
  with nengo.Network(seed=load.seed) as network:
    nengo_loihi.add_params(network)
    neurons = nengo.Ensemble(
      load.n,
      1,
      neuron_type=nengo_loihi.LoihiSpikingRectifiedLinear(),
      gain=[1.0] * load.n,
      bias=load.drive / load.threshold / dt,
    ).neurons
    matrix = sparse.coo_matrix(load.weights / load.threshold)
    weights = nengo.Sparse((load.n, load.n), init=matrix)
    nengo.Connection(neurons, neurons, transform=weights, synapse=None)
  simulator = nengo_loihi.Simulator(
    network, dt=dt, target="sim", progress_bar=False
  )
  emulator = simulator.sims["emulator"]

  def stretch(steps):
    before = int(emulator.compartment.spike_count.sum())
    simulator.run_steps(steps)
    return int(emulator.compartment.spike_count.sum()) - before

  return stretch


if __name__ == "__main__":
  frame.main(build, "nengo-loihi")
