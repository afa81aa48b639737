"""Driver: snnTorch, a recurrent layer (`RLeaky`, float32) without leak."""

import frame


def build(load, variant):
  import snntorch
  import torch

  neuron = snntorch.RLeaky(beta=1.0, linear_features=load.n)
  weights = torch.tensor(load.weights / load.threshold, dtype=torch.float32)
  drive = torch.tensor(load.drive / load.threshold, dtype=torch.float32)[None]
  with torch.no_grad():
    neuron.recurrent.weight.copy_(weights)
    if neuron.recurrent.bias is not None:
      neuron.recurrent.bias.zero_()
  state = [neuron.init_rleaky()]

  @torch.no_grad()
  def stretch(steps):
    spikes, potential = state[0]
    count = torch.zeros(())
    for _ in range(steps):
      spikes, potential = neuron(drive, spikes, potential)
      count += spikes.sum()
    state[0] = spikes, potential
    return int(count)

  return stretch


if __name__ == "__main__":
  frame.main(build, "snntorch")
