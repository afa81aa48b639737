"""Driver: Lava's fixed-point LIF, `--variant dense` or `sparse` synapses.

To see spikes Lava needs a probe, which costs time: they are counted in a copy
of the network that runs the first measured stretch.
"""

import atexit

import frame
import numpy as np


def _network(load, variant, monitored):
  from lava.proc.dense.process import Dense
  from lava.proc.lif.process import LIF
  from lava.proc.monitor.process import Monitor
  from lava.proc.sparse.process import Sparse
  from scipy import sparse

  lif = LIF(
    shape=(load.n,),
    du=4095,
    dv=0,
    vth=load.threshold,
    bias_mant=load.drive,
    bias_exp=6,
  )
  if variant == "sparse":
    synapses = Sparse(weights=sparse.csr_matrix(load.weights))
  else:
    synapses = Dense(weights=load.weights)
  lif.s_out.connect(synapses.s_in)
  synapses.a_out.connect(lif.a_in)
  monitor = None
  if monitored:
    monitor = Monitor()
    monitor.probe(lif.s_out, load.warm + 2 * load.steps)
  return lif, monitor


def _runner(lif):
  from lava.magma.core.run_conditions import RunSteps
  from lava.magma.core.run_configs import Loihi1SimCfg

  configuration = Loihi1SimCfg(select_tag="fixed_pt")

  def run(steps):
    lif.run(condition=RunSteps(num_steps=steps), run_cfg=configuration)

  return run


def _count(load, variant):
  lif, monitor = _network(load, variant, True)
  _runner(lif)(load.warm + 2 * load.steps)
  (streams,) = monitor.get_data().values()
  (spikes,) = streams.values()
  lif.stop()
  return int(np.count_nonzero(spikes[-load.steps :]))


def build(load, variant):
  count = _count(load, variant)
  lif, _ = _network(load, variant, False)
  # Its processes are children that nobody ends otherwise.
  atexit.register(lif.stop)
  run = _runner(lif)

  def stretch(steps):
    run(steps)
    return count

  return stretch


if __name__ == "__main__":
  frame.main(build, "lava-nc")
