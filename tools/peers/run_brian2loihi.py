"""Driver: Brian2Loihi, Loihi 1 in Brian's numpy code."""

import frame
import numpy as np


def build(load, variant):
  import brian2
  import brian2_loihi

  brian2.prefs.codegen.target = "numpy"
  neurons = brian2_loihi.LoihiNeuronGroup(
    load.n, threshold_v_mant=load.threshold, decay_v=0, decay_I=4096
  )
  # The package has no bias; Brian's own way to add one every step.
  drive = brian2.TimedArray(load.drive[None] * 64.0, dt=1 * brian2.ms)
  neurons.namespace["drive"] = drive
  neurons.run_regularly("v += drive(0*ms, i)", dt=1 * brian2.ms, when="start")
  mixed = brian2_loihi.synapse_sign_mode.MIXED
  synapses = brian2_loihi.LoihiSynapses(neurons, neurons, sign_mode=mixed)
  target, source = np.nonzero(load.weights)
  synapses.connect(i=source, j=target)
  synapses.w = load.weights[target, source]
  monitor = brian2.SpikeMonitor(neurons, record=False)
  network = brian2_loihi.LoihiNetwork(neurons, synapses, monitor)
  seen = [0]

  def stretch(steps):
    network.run(steps)
    before, seen[0] = seen[0], int(monitor.num_spikes)
    return seen[0] - before

  return stretch


if __name__ == "__main__":
  frame.main(build, "brian2-loihi")
