"""Circuits to NIR and back: the same integers, the same spikes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnmc.chip import neurons
from jaxnmc.chip.circuits import Circuit, Connection, Input, Population
from jaxnmc.chip.synapses import Dense, Sparse
from jaxnmc.errors import ConfigError
from jaxnmc.io import nir
from jaxnmc.io.nir import timing
from jaxnmc.kernels import walk
from tests.io import nir_circuits as make
from tests.io import nir_numpy

pytest.importorskip("nir", reason="the extra nir is not installed")


def by_delay(connection):
  """Delay -> what a spike of each source brings to each target."""
  synapse, found = connection.synapse, {}
  parts = walk.matrix(synapse.table).reshape(synapse.depth, *synapse.shape)
  for d, part in enumerate(parts):
    if part.any():
      found[d] = part.astype(np.int64) << synapse.rule.weight_exp
  return found


def arrivals(circuit, names=None):
  """(source, target, delay) -> the same, of all connections together."""
  names, found = names or {}, {}
  for c in circuit.connections:
    for d, part in by_delay(c).items():
      key = (names.get(c.source, c.source), names.get(c.target, c.target), d)
      found[key] = found.get(key, 0) + part
  return found


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("kind", make.KINDS)
def test_the_equations_of_nir_give_the_same_spikes(kind, loop):
  rng = np.random.default_rng(3)
  circuit = make.layers(make.KINDS[kind], rng, loop)
  x, dt = make.spikes(rng), 2.0**-10
  exported = nir.export_circuit(circuit, dt=dt)
  said = nir_numpy.simulate(exported.graph, {"drive": x}, dt)
  messages = make.ours(circuit, x)
  for name in circuit.populations:
    lag = exported.lags[name]
    assert make.same(messages[name], lag, said[exported.names[name]]) > 10
  node = type(exported.graph.nodes["second"]).__name__
  assert node == kind.split()[0]


@pytest.mark.parametrize(
  ("last", "node"),
  [
    (neurons.LeakyIntegrator(du=4095, dv=2048), "LI"),
    (neurons.LeakyIntegrator(du=2047, dv=2048), "CubaLI"),
    (neurons.LeakyIntegrator(du=4095), "I"),
    (neurons.Threshold(vth=3200), "Threshold"),
    (neurons.GradedVec(vth=0), "Scale"),
  ],
  ids=lambda x: x if isinstance(x, str) else "",
)
def test_readouts(last, node):
  rng = np.random.default_rng(5)
  circuit = make.layers(make.KINDS["LIF"], rng, last=last)
  x, dt, unit = make.spikes(rng), 2.0**-10, 2.0**-12
  exported = nir.export_circuit(circuit, dt=dt, unit=unit)
  assert type(exported.graph.nodes["second"]).__name__ == node
  said = nir_numpy.simulate(exported.graph, {"drive": x}, dt)["second"]
  lsb = {"Threshold": 1, "Scale": unit}.get(node, unit / 64)
  here = make.ours(circuit, x)["second"][2 : 2 + make.STEPS] * lsb
  np.testing.assert_array_equal(here, said)
  assert 5 < np.count_nonzero(here)
  if node != "Scale":  # a sum that is only passed on is made anew
    again = nir.import_circuit(exported.graph)
    read = again.read(make.ours(again.circuit, x))["second_out"]
    np.testing.assert_array_equal(read[: make.STEPS], said)


def test_delays_detours_and_loops_of_two():
  rng = np.random.default_rng(8)
  circuit, dt = make.tangle(rng), 2.0**-10
  x = make.spikes(rng)
  exported = nir.export_circuit(circuit, dt=dt)
  # b and c hear a detour of the input first, so their lags are the shortest.
  assert exported.lags == {"drive": 0, "a": 1, "b": 1, "c": 2}
  said = nir_numpy.simulate(exported.graph, {"drive": x}, dt)
  messages = make.ours(circuit, x)
  for name in "abc":
    assert make.same(messages[name], exported.lags[name], said[name]) > 10


def test_a_round_trip_through_a_file_keeps_every_integer(tmp_path):
  rng = np.random.default_rng(1)
  leaky = {"du": 900, "dv": 310, "vth": 500}
  circuit = Circuit(
    {
      "a 1/x": Population(
        neurons.LIF(du=4095, dv=401, vth=300, bias_mant=-7), 8
      ),
      "b": Population(neurons.LIF(**leaky), 6),
      "c": Population(
        neurons.LIF(**leaky, bias_mant=(4095, -3, 0), bias_exp=(7, 0, 5)),
        3,
      ),
      "d": Population(neurons.Threshold(vth=37), 3),
    },
    [
      Connection("in", "a 1/x", Dense.of(rng.integers(-99, 250, (8, 5)))),
      Connection(
        *("a 1/x", "b"),
        Sparse.from_dense(
          rng.integers(1, 200, (6, 8)), rng.integers(1, 4, (6, 8)), weight_exp=2
        ),
      ),
      Connection("b", "b", Dense.of(rng.integers(-256, 1, (6, 6)))),
      Connection("b", "c", Dense.of(rng.integers(-50, 50, (3, 6)))),
      Connection("b", "d", Dense.of(rng.integers(-50, 50, (3, 6)))),
      Connection("c", "a 1/x", Dense.of(rng.integers(-50, 50, (8, 3)))),
    ],
    {"in": Input(5, largest=9)},
  )
  for dt, unit in ((1e-4, 1.0), (0.3, 1 / 300)):
    exported = nir.export_circuit(circuit, dt=dt, unit=unit)
    nir.write(tmp_path / "x.nir", exported.graph)
    back = nir.import_circuit(nir.read(tmp_path / "x.nir"))
    assert back.report.lost == []
    assert exported.names["a 1/x"] == "a_1_x"
    want, got = arrivals(circuit, exported.names), arrivals(back.circuit)
    assert want.keys() == got.keys()
    for key in want:
      np.testing.assert_array_equal(want[key], got[key])
    for name, population in circuit.populations.items():
      old = population.neuron
      new = back.circuit.populations[exported.names[name]].neuron
      if name == "d":
        assert old == new
        continue
      assert (old.du, old.dv, old.vth) == (new.du, new.dv, new.vth)
      n = population.size
      for neuron in (old, new):
        assert np.broadcast_to(neuron.bias, n).shape == (n,)
      assert (np.zeros(n, int) + old.bias == new.bias).all()
    assert back.circuit.inputs["in"].largest == 9
  x = (rng.random((300, 5)) < 0.4).astype(int)
  before = make.ours(circuit, x, name="in")
  after = make.ours(back.circuit, x, back.state, name="in")
  for name in circuit.populations:
    np.testing.assert_array_equal(before[name], after[exported.names[name]])
    assert before[name].any()


def test_what_nir_cannot_say_is_told_and_cut_out():
  rng = np.random.default_rng(2)
  relu = neurons.GradedReluVec(vth=3)
  circuit = Circuit(
    {
      "a": Population(make.KINDS["LIF"], 8),
      "relu": Population(relu, 4),
      "rf": Population(neurons.RF(sin_decay=1, cos_decay=4000), 4),
      "end": Population(neurons.LIF(du=100, dv=9), 3),
    },
    [
      Connection("in", "a", Dense.of(rng.integers(0, 50, (8, 5)))),
      Connection("a", "relu", Dense.of(rng.integers(-9, 50, (4, 8)))),
      Connection(
        "relu", "end", Dense.of(rng.integers(-9, 50, (3, 4)), weight_exp=-3)
      ),
      Connection("relu", "rf", Dense.of(np.eye(4, dtype=int)), "a_real_in"),
    ],
    {"in": Input(5, largest=7)},
  )
  exported = nir.export_circuit(circuit)
  told = [str(note) for note in exported.report.lost]
  told_of = lambda *words: any(all(w in t for w in words) for t in told)
  assert told_of("relu (GradedReluVec)", "NIR has no such node")
  assert told_of("rf (RF)", "NIR has no such node")
  assert told_of("end (LIF)", "decays are rounded toward zero")
  assert told_of("relu -> end (Dense)", "rounded down to a multiple of 8")
  assert told_of("relu -> end (Dense)", "count as 1")
  assert told_of("in -> a (Dense)", "messages other than 0 count as 1")
  assert told_of("end (LIF)", "24 bits")
  kinds = {n: type(x).__name__ for n, x in exported.graph.nodes.items()}
  assert kinds["relu"] == "Input"
  assert kinds["relu_a_in"] == "Output"
  assert not any("rf" in name for name in kinds)
  assert ("a_relu_weight", "relu_a_in") in exported.graph.edges
  assert f"lost: {len(told)}" in str(exported.report)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"dt": 0}, "dt is 0; allowed are positive"),
    ({"dt": float("nan")}, "dt is nan"),
    ({"unit": -1.0}, "unit is -1.0; allowed are positive"),
  ],
)
def test_no_step_and_no_unit(arguments, message):
  circuit = make.layers(make.KINDS["IF"], np.random.default_rng(0))
  with pytest.raises(ConfigError, match=message):
    nir.export_circuit(circuit, **arguments)


def test_a_circuit_of_which_nothing_can_be_said():
  circuit = Circuit({"x": Population(neurons.InvSqrt(), 2)}, [])
  with pytest.raises(ConfigError, match=r"no node for any .*InvSqrt"):
    nir.export_circuit(circuit)


NAMES = "uvwxyz"
EDGES = st.dictionaries(
  st.tuples(st.sampled_from("i" + NAMES), st.sampled_from(NAMES)),
  st.integers(1, 9),
  min_size=1,
  max_size=14,
)


@given(steps=EDGES)
def test_lags_leave_every_connection_its_steps(steps):
  lags = timing.lags_there(["i"], list(NAMES), steps)
  assert lags["i"] == 0
  there = {e: k - (lags[e[1]] - lags[e[0]]) for e, k in steps.items()}
  assert min(there.values()) >= 0
  # Each that an input reaches has a way on which nothing waits.
  tight = {e for e, k in there.items() if k == 0}
  for name in NAMES:
    reached = [e for e in steps if e[1] == name and lags[name]]
    assert not reached or any(e in tight for e in reached)
  # Back again from the same lags, nothing has changed.
  wires = {i: (*e, there[e]) for i, e in enumerate(there)}
  again, raised = timing.lags_here(["i", *NAMES], wires, lags)
  assert again == lags
  assert not raised


@given(steps=EDGES)
def test_loops_get_a_step_for_each_hop(steps):
  wires = {i: (*e, k - 1) for i, (e, k) in enumerate(steps.items())}
  lags, raised = timing.lags_here(["i", *NAMES], wires, {})
  for i, (source, target, s) in wires.items():
    assert raised.get(i, s) >= s
    assert raised.get(i, s) + lags[target] - lags[source] >= 1
  loops = timing.closing(["i"], steps)
  order: dict[str, int] = {}
  left = set(steps) - loops
  while left:  # without the closing edges nodes can be put in order
    free = {a for a, _ in left} - {b for _, b in left}
    assert free
    order |= dict.fromkeys(free, len(order))
    left = {e for e in left if e[0] not in free}
