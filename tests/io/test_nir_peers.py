"""Graphs that we exported, run by snnTorch and Norse: the same spikes.

Inputs and parameters are on the grid of `nir_circuits`, where neither their
floats nor our integers round anything.
"""

import numpy as np
import pytest

from jaxnmc.chip import neurons
from jaxnmc.chip.circuits import Circuit, Connection, Input, Population
from jaxnmc.io import nir
from tests.io import nir_circuits as make

pytest.importorskip("nir", reason="the extra nir is not installed")
torch = pytest.importorskip("torch", reason="PyTorch is not installed")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def stepped(model, x):
  """Spikes of a model of nirtorch, int[steps, n]."""
  said, state = [], None
  for row in torch.tensor(x, dtype=torch.float32):
    arguments = (row[None],) if state is None else (row[None], state)
    out = model(*arguments)
    out, state = out if isinstance(out, tuple) else (out, state)
    said.append(out.detach().numpy()[0])
  return np.array(said)


def norse(graph, x, dt):
  pytest.importorskip("norse", reason="Norse is not installed")
  from norse.torch import from_nir

  return stepped(from_nir(graph, dt=dt, ignore_warnings=True), x)


def snntorch(graph, x, dt):
  pytest.importorskip("snntorch", reason="snnTorch is not installed")
  from snntorch.import_nir import import_from_nir

  assert dt == 1e-4  # it knows no other
  return stepped(import_from_nir(graph), x)


# Norse's dt is a float of 32 bits, in which 1e-4 / tau is no power of two.
PEERS = {"norse": (norse, 2.0**-10), "snntorch": (snntorch, 1e-4)}


@pytest.mark.parametrize(
  ("peer", "kind", "loop"),
  [
    ("norse", "LIF", False),
    ("norse", "LIF", True),
    ("norse", "CubaLIF", False),
    ("norse", "CubaLIF", True),
    ("norse", "IF", False),
    ("norse", "IF", True),
    ("snntorch", "LIF", False),
    ("snntorch", "CubaLIF", False),
  ],
)
def test_the_same_spikes(peer, kind, loop, tmp_path):
  run, dt = PEERS[peer]
  total = 0
  for seed in range(2):
    rng = np.random.default_rng(seed)
    circuit = make.layers(make.KINDS[kind], rng, loop)
    x = make.spikes(rng)
    exported = nir.export_circuit(circuit, dt=dt)
    nir.write(tmp_path / "x.nir", exported.graph)
    said = run(nir.read(tmp_path / "x.nir"), x, dt)
    messages = make.ours(circuit, x)["second"]
    total += make.same(messages, exported.lags["second"], said)
  assert 15 < total < 2 * 6 * make.STEPS - 15


def one(neuron, weight=64) -> Circuit:
  """A neuron and a spike in each step."""
  synapse = make.Dense.of([[weight]])
  return Circuit(
    {"a": Population(neuron, 1)},
    [Connection("drive", "a", synapse)],
    {"drive": Input(1)},
  )


@pytest.mark.parametrize("peer", PEERS)
def test_thresholds_are_strict_and_a_reset_forgets_the_rest(peer):
  """A tie does not fire; what is above the threshold is not kept."""
  run, dt = PEERS[peer]
  x = np.ones((make.STEPS, 1), int)
  # 64, 96, 112 = threshold: no spike; then 120 and from 0 again.
  circuit = one(neurons.LIF(du=4095, dv=2048, vth=112))
  exported = nir.export_circuit(circuit, dt=dt)
  said = run(exported.graph, x, dt)
  assert said[:, 0].tolist() == [0, 0, 0, 1] * 3
  assert make.same(make.ours(circuit, x)["a"], 1, said) == 3


def test_a_bias_of_an_affine_starts_a_step_earlier_here():
  circuit = one(neurons.LIF(du=4095, dv=2048, vth=112, bias_mant=1024))
  exported = nir.export_circuit(circuit, dt=2.0**-10)
  (note,) = [n for n in exported.report.lost if "bias" in n.what]
  assert note.node == "a"
  x = np.zeros((make.STEPS, 1), int)
  x[3:] = 1
  said = norse(exported.graph, x, 2.0**-10)
  back = nir.import_circuit(exported.graph, unit=1.0)
  exported.graph.metadata["jaxnmc"].pop("rested")
  fresh = nir.import_circuit(exported.graph)
  # What was ours starts as ours did; a graph of others as its nodes do.
  assert back.state is None
  assert fresh.state is not None
  here = make.ours(fresh.circuit, x, fresh.state)["a"]
  assert make.same(here, 1, said) > 1
