"""Graphs of other people as circuits, and graphs that cannot be."""

import numpy as np
import pytest

from jaxnmc.chip import neurons
from jaxnmc.errors import CheckpointError, ConfigError
from jaxnmc.io import nir
from jaxnmc.io.nir import quantise
from tests.io import nir_circuits as make
from tests.io import nir_numpy

N = pytest.importorskip("nir", reason="the extra nir is not installed")
DT = 2.0**-10


def ends(n_in=5, n_out=3):
  return {
    "in": N.Input({"input": np.array([n_in])}),
    "out": N.Output({"output": np.array([n_out])}),
  }


def chain(*nodes, n_in=5, n_out=3, **more):
  """Nodes one after the other, as n0, n1, ..."""
  named = {f"n{i}": node for i, node in enumerate(nodes)}
  names = ["in", *named, "out"]
  edges = list(zip(names[:-1], names[1:]))
  return N.NIRGraph(
    {**ends(n_in, n_out), **named}, edges, type_check=False, **more
  )


def full(x, n=3):
  return np.full(n, float(x))


def lif(n=3, tau=2 * DT, r=1.0, leak=0.0, threshold=1.0, reset=0.0):
  return N.LIF(
    tau=full(tau, n),
    r=full(r, n),
    v_leak=full(leak, n),
    v_threshold=full(1, n) * threshold,
    v_reset=full(reset, n),
  )


def weights(rng, out=3, n=5):
  """Multiples of 1/4 from -1/2 to 3/2."""
  return rng.integers(-2, 7, (out, n)) / 4


def check(graph, x, least=5, lost=(), **arguments):
  """Imports, runs, compares with the equations; gives the import."""
  back = nir.import_circuit(graph, dt=DT, **arguments)
  said = nir_numpy.simulate(graph, {"in": x}, DT)["out"]
  messages = make.ours(back.circuit, x, back.state, name="in")
  read = back.read(messages)["out"][: len(x)]
  np.testing.assert_array_equal(read, said)
  assert np.count_nonzero(said) >= least
  assert len(np.unique(said)) > 1
  assert [note.node for note in back.report.lost] == list(lost)
  return back


def cuba(n=3):
  return N.CubaLIF(
    tau_syn=full(2 * DT, n),
    tau_mem=full(2 * DT, n),
    r=full(2, n),
    v_leak=full(0, n),
    v_threshold=full(1.5, n),
    w_in=full(1.5, n),
  )


def li(n=3, leak=0.0):
  return N.LI(tau=full(2 * DT, n), r=full(1, n), v_leak=full(leak, n))


def affine(rng, bias):
  return N.Affine(weight=weights(rng), bias=np.array(bias, float))


RNG = np.random.default_rng(4)
GRAPHS = {
  "LIF": (N.Linear(weights(RNG)), lif(threshold=0.75)),
  "thresholds of powers of two": (
    N.Linear(weights(RNG)),
    lif(threshold=np.array([0.5, 1.0, 0.25])),
  ),
  "a reset that is not 0": (N.Linear(weights(RNG)), lif(reset=-0.5)),
  "a leak to another voltage": (N.Linear(weights(RNG)), lif(leak=0.75)),
  "a bias": (affine(RNG, [0.25, -0.5, 0.75]), lif()),
  "CubaLIF": (N.Linear(weights(RNG)), cuba()),
  "IF": (
    N.Linear(weights(RNG)),
    N.IF(r=full(1 / DT), v_threshold=full(2)),
  ),
  "Threshold": (affine(RNG, [0.5] * 3), N.Threshold(full(1.2))),
  "LI": (N.Linear(weights(RNG)), li()),
  "LI with a bias": (affine(RNG, [0.5, 0, -1]), li(leak=0.5)),
  "an LI as a current": (N.Linear(weights(RNG)), li(), lif(threshold=0.75)),
  "a sum": (N.Linear(weights(RNG)),),
  "linear chain": (
    N.Scale(np.array([1, 2, 0.5, 1, 1])),
    N.Flatten({"input": np.array([1, 5])}, start_dim=0),
    N.Linear(np.eye(3, 5)),
    N.Delay(np.array([0, 3, 1]) * DT),
    N.Linear(weights(RNG, 3, 3)),
    lif(threshold=0.75),
  ),
  "single numbers": (
    N.Linear(weights(RNG)),
    N.LIF(*(np.array(x) for x in (2 * DT, 1.0, 0.0, 0.75))),
  ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_runs_as_its_equations_say(name):
  x = make.spikes(np.random.default_rng(9))
  check(chain(*GRAPHS[name]), x)


def test_graded_inputs_and_a_file_of_another_tool(tmp_path):
  rng = np.random.default_rng(0)
  graph = chain(N.Linear(weights(rng)), lif(threshold=4))
  N.write(tmp_path / "a.nir", graph)
  x = rng.integers(-7, 20, (make.STEPS, 5))
  check(nir.read(tmp_path / "a.nir"), x, largest=19)


def test_loops_and_graphs_inside():
  rng = np.random.default_rng(7)
  inner = N.NIRGraph(
    {
      "input": N.Input({"input": np.array([3])}),
      "lif": lif(threshold=0.75),
      "w": N.Linear(-np.eye(3) / 2),
      "output": N.Output({"output": np.array([3])}),
    },
    [("input", "lif"), ("lif", "w"), ("w", "lif"), ("lif", "output")],
    type_check=False,
  )
  w = weights(rng)
  back = nir.import_circuit(chain(N.Linear(w), inner), dt=DT)
  flat = chain(N.Linear(w), lif(threshold=0.75))
  flat.nodes["w"] = N.Linear(-np.eye(3) / 2)
  flat.edges += [("n1", "w"), ("w", "n1")]
  x = make.spikes(rng)
  check(flat, x)
  read = back.read(make.ours(back.circuit, x, name="in"))["out"]
  said = nir_numpy.simulate(flat, {"in": x}, DT)["out"]
  np.testing.assert_array_equal(read[: len(x)], said)
  # A loop of two populations has two hops here.
  flat.nodes |= {
    "n2": lif(),
    "v": N.Linear(np.eye(3)),
    "w2": N.Linear(np.eye(3)),
  }
  flat.edges += [("n1", "v"), ("v", "n2"), ("n2", "w2"), ("w2", "n1")]
  lost = nir.import_circuit(flat, dt=DT).report.lost
  assert ["a loop has a step for each" in str(n) for n in lost] == [True]


def test_what_is_rounded_is_told():
  rng = np.random.default_rng(6)
  w = rng.normal(size=(3, 5))
  graph = chain(N.Linear(w), lif(tau=7.3 * DT, threshold=1.017))
  back = nir.import_circuit(graph, dt=DT)
  (connection,) = back.circuit.connections
  neuron = back.circuit.populations["n1"].neuron
  assert isinstance(neuron, neurons.LIF)
  assert neuron.dv == round(4096 / 7.3)
  kinds = [(n.node, n.kind) for n in back.report.lost]
  assert kinds == [("n1", "LIF"), ("n1", "LIF"), ("in -> n1", "weights")]
  told = " ".join(map(str, back.report.lost))
  assert "561/4096 instead of 0.136986" in told
  rule = connection.synapse.rule
  whole = connection.synapse.weights * 2.0**rule.weight_exp
  unit = 1.017 / neuron.vth
  ratio = whole * unit * 7.3 / w
  # 7 bits and a sign: half of an even step of the largest weight at most.
  error = np.abs(whole * unit * 7.3 - w).max() / np.abs(w).max()
  assert 0 < error < 1 / 126
  assert np.median(ratio) == pytest.approx(1, abs=0.02)
  # The unit is the smallest power of two with which nothing leaves 24 bits.
  reach = np.abs(w).sum(1).max() / 7.3
  exact = max(reach / (2**17 - 1), 16 * 1.017 / (2**17 - 1))
  assert quantise.power_of_two(exact) / 2 < exact
  assert neuron.vth == round(1.017 / quantise.power_of_two(exact))


def test_what_nothing_reads_is_told():
  graph = edited(edges(("n1", "end")))
  graph.nodes["end"] = N.Linear(np.ones((2, 3)))
  graph.edges.append(("in", "n0"))
  report = nir.import_circuit(graph, dt=DT).report
  assert [str(n) for n in report.lost] == [
    "end (Linear): no edge leads from it; it is left out"
  ]
  assert "in -> n0 (edge): given twice, counted once" in map(str, report.rules)


@pytest.mark.parametrize("x", [2.0**-3, 1.0, 2.0**40, 0.3, 5.0, 1e-9])
def test_power_of_two(x):
  found = quantise.power_of_two(x)
  assert found >= x > found / 2
  assert np.log2(found) % 1 == 0


def edited(change, *nodes, **sizes):
  graph = chain(*(nodes or (N.Linear(np.ones((3, 5))), lif())), **sizes)
  change(graph)
  return graph


def without(*names):
  def change(graph):
    graph.nodes = {n: x for n, x in graph.nodes.items() if n not in names}
    graph.edges = [e for e in graph.edges if not set(e) & set(names)]

  return change


def edges(*more):
  return lambda graph: graph.edges.extend(more)


def uneven(**fields):
  node = lif()
  for name, value in fields.items():
    setattr(node, name, np.array(value, float))
  return node


CONV = N.Conv1d(
  *(None, np.ones((3, 5, 1)), 1, 0, 1, 1, np.ones(3)),
)
ONES = N.Linear(np.ones((3, 5)))
REFUSED = {
  "node": (chain(CONV, lif()), r"n0 \(Conv1d\).*lost is its convolution"),
  "no input": (edited(without("in")), "no node of type Input"),
  "no output": (edited(without("out")), "no node of type Output"),
  "no edge": (edited(without("n1")), r"out \(Output\): no edge leads to it"),
  "stray": (edited(edges(("n0", "x"))), "names 'x', which is no node"),
  "into input": (
    edited(edges(("n1", "in")), N.Linear(np.eye(3)), lif(), n_in=3),
    "in is an Input; allowed are edges from it",
  ),
  "from output": (
    edited(edges(("out", "n1"))),
    "out is an Output; allowed are edges to it",
  ),
  "shapes": (
    chain(ONES, lif(4), n_out=4),
    r"n0 -> n1: n0 sends 3 values, n1 \(LIF\) takes 4",
  ),
  "matrix": (chain(N.Linear(np.ones((2, 3, 5)))), r"\[2, 3, 5\]; allowed is"),
  "bias": (
    chain(N.Affine(np.ones((3, 5)), np.ones(4)), lif()),
    "bias has 4 values, its weight 3 rows",
  ),
  "not finite": (chain(N.Linear(np.full((3, 5), np.nan)), lif()), "weight has"),
  "loop": (
    edited(
      edges(("n1", "n0")),
      *(N.Linear(np.ones((5, 5))), N.Linear(np.ones((5, 5))), lif(5)),
      n_out=5,
    ),
    r"loop that the edge n1 -> n0 closes has no neuron in it",
  ),
  "tau below dt": (chain(ONES, lif(tau=DT / 2)), r"tau is .*less than a step"),
  "different tau": (
    chain(ONES, uneven(tau=[DT * 2, DT * 3, DT * 4])),
    r"n1 \(LIF\): tau runs from .*one decay",
  ),
  "different thresholds": (
    chain(ONES, uneven(v_threshold=[1, 0, 2])),
    "thresholds run from 0 to 2",
  ),
  "below reset": (chain(ONES, lif(reset=2)), "v_threshold is below v_reset"),
  "voltage sent": (
    chain(ONES, li(), N.Linear(np.eye(3)), lif()),
    r"n1 \(LI\): it sends its voltage to n2",
  ),
  "delay below 0": (
    chain(N.Delay(full(-DT, 5)), ONES, lif()),
    r"n0 \(Delay\): a delay is",
  ),
  "delay too long": (
    chain(N.Delay(full(70 * DT, 5)), ONES, lif()),
    "has to wait 69 steps for n2; allowed are 62",
  ),
  "graph inside": (
    chain(ONES, N.NIRGraph({"a": lif()}, [], type_check=False)),
    r"n1 \(NIRGraph\): it has 0 nodes of type Input",
  ),
  "no size": (
    edited(without("in"), *(N.Scale(np.array(1.0)), lif())),
    "no node of type Input",
  ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_graph_that_cannot_run_is_one_clear_error(name):
  graph, message = REFUSED[name]
  with pytest.raises(ConfigError, match=message):
    nir.import_circuit(graph, dt=DT)


def test_a_step_must_be_known_and_a_unit_must_hold_the_numbers():
  graph = chain(ONES, lif())
  with pytest.raises(ConfigError, match=r"give dt in seconds .*snnTorch"):
    nir.import_circuit(graph)
  with pytest.raises(ConfigError, match="dt is -1; allowed are positive"):
    nir.import_circuit(graph, dt=-1)
  with pytest.raises(ConfigError, match=r"threshold is \d+ units of 1e-06"):
    nir.import_circuit(graph, dt=DT, unit=1e-6)
  with pytest.raises(ConfigError, match="largest weight is 1, .* units of"):
    nir.import_circuit(chain(ONES), dt=DT, unit=1e-13)
  with pytest.raises(ConfigError, match="largest names drive; .*inputs in"):
    nir.import_circuit(graph, dt=DT, largest={"drive": 3})
  with pytest.raises(ConfigError, match="found a LIF; allowed is a nir"):
    nir.import_circuit(lif(), dt=DT)


def test_files_that_are_none(tmp_path):
  path = tmp_path / "x.nir"
  with pytest.raises(CheckpointError, match="x.nir: there is no such file"):
    nir.read(path)
  nir.write(path, chain(ONES, lif()))
  whole = path.read_bytes()
  for size in (0, 100, len(whole) // 2, len(whole) - 200):
    path.write_bytes(whole[:size])
    with pytest.raises(CheckpointError, match=r"x\.nir: this is no NIR file"):
      nir.read(path)
  N.write(path, lif())
  with pytest.raises(CheckpointError, match=r"this is no NIR file"):
    nir.read(path)
  with pytest.raises(CheckpointError, match="it cannot be written"):
    nir.write(tmp_path / "no" / "x.nir", chain(ONES, lif()))
