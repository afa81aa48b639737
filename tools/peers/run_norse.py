"""Driver: Norse, a recurrent cell (`LIFRecurrentCell`, float32).

Its neuron always leaks; here 2^-10 of the potential per step, with weights
and drive scaled by as much.
"""

import frame

LEAK = 2.0**-10


def build(load, variant):
  import torch
  from norse.torch import LIFParameters, LIFRecurrentCell

  tensor = lambda x: torch.tensor(x / LEAK, dtype=torch.float32)
  p = LIFParameters(
    tau_syn_inv=torch.tensor(1000.0),  # an input lasts one step
    tau_mem_inv=torch.tensor(LEAK * 1000.0),
    v_th=torch.tensor(float(load.threshold)),
  )
  cell = LIFRecurrentCell(
    1,
    load.n,
    p,
    input_weights=tensor(load.drive[:, None]),
    recurrent_weights=tensor(load.weights),
    autapses=True,
  )
  one, state = torch.ones(1, 1), [None]

  @torch.no_grad()
  def stretch(steps):
    count = torch.zeros(())
    for _ in range(steps):
      spikes, state[0] = cell(one, state[0])
      count += spikes.sum()
    return int(count)

  return stretch


if __name__ == "__main__":
  frame.main(build, "norse")
