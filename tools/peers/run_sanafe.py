"""Driver: SANA-FE's Loihi with its quickest timing model ("simple")."""

import frame
import numpy as np

_PER_CORE = 1024


def build(load, variant):
  import sanafe

  arch = sanafe.load_loihi()
  network = sanafe.Network()
  attributes = {
    "threshold": float(load.threshold),
    "reset": 0.0,
    "leak_decay": 1.0,
    "force_update_every_timestep": True,
  }
  group = network.create_neuron_group(
    "lif",
    load.n,
    model_attributes=attributes,
    soma_hw_name="loihi_lif",
    default_synapse_hw_name="loihi_sparse_synapse",
    default_dendrite_hw_name="loihi_dendrites",
  )
  cores = [core for tile in arch.tiles for core in tile.cores]
  for i, drive in enumerate(load.drive.tolist()):
    group[i].set_attributes(model_attributes={"bias": float(drive)})
    group[i].map_to_core(cores[i // _PER_CORE])
  target, source = np.nonzero(load.weights)
  pairs = list(zip(source.tolist(), target.tolist(), strict=True))
  weights = load.weights[target, source].astype(float).tolist()
  group.connect_neurons_sparse(group, {"weight": weights}, pairs)
  chip = sanafe.SpikingChip(arch)
  chip.load(network)

  def stretch(steps):
    return chip.sim(steps, timing_model="simple")["neurons_fired"]

  return stretch


if __name__ == "__main__":
  frame.main(build, "sanafe")
