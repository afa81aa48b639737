"""Driver: this repository's circuits, counters on."""

import frame
import numpy as np


def build(load, variant):
  from jaxnmc import _version
  from jaxnmc.report.bench import circuits

  circuit = circuits.recurrent(load.n, load.activity, load.seed)
  if not np.array_equal(circuit.connections[0].synapse.weights, load.weights):
    raise ValueError("the weights are not those of `circuits.recurrent`")
  warm = circuits.Load(circuit, load.steps, load.warm)
  called = []

  def stretch(steps):
    # `Load` walks its warm steps itself, before the first stretch.
    if not called:
      called.append(steps)
      return 0
    warm()
    return round(warm.facts()["activity"] * load.steps * load.n)

  def more():
    facts = warm.facts()
    return {
      "synops_counted": facts["synops"],
      "cores": facts["cores"],
      "version": _version.__version__,
    }

  return stretch, more


if __name__ == "__main__":
  frame.main(build, None)
