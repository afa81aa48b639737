"""Circuits against Python's integers, and their counters against NumPy."""

import dataclasses

import numpy as np
import pytest

import jaxnmc as nmc
from jaxnmc.chip import neurons
from jaxnmc.chip.circuits import Circuit, Connection, Input, Population, run
from jaxnmc.chip.circuits.limits import hazards
from jaxnmc.chip.synapses import Dense, Sparse
from jaxnmc.errors import ConfigError, FormatError, PlacementError
from tests.chip.circuits import oracle
from tests.chip.neurons import rules

STEPS = 30


def loop(seed: int):
  """A recurrent circuit of four kinds, and the same for the oracle."""
  rng = np.random.default_rng(seed)
  n, m, k = 13, 9, 7
  draw = lambda out, source, low, high, part: (
    rng.integers(low, high, (out, source)) * (rng.random((out, source)) < part)
  )
  w_in, w_rec = draw(n, 4, -256, 256, 0.8), draw(n, n, -120, 120, 0.4)
  delays = rng.integers(0, 4, (n, n))
  w_sd, w_a, w_b = (
    draw(m, n, -40, 40, 0.7),
    draw(k, m, -9, 9, 0.9),
    draw(k, m, 0, 200, 0.5),
  )
  w_back = draw(n, k, -3, 3, 0.6)
  lif = {
    "du": int(rng.integers(100, 4096)),
    "dv": int(rng.integers(0, 900)),
    "vth": int(rng.integers(50, 300)),
    "bias_mant": [int(x) for x in rng.integers(-90, 400, n)],
    "bias_exp": 4,
  }
  sd = {"vth": 3, "cum_error": False, "spike_exp": 0, "state_exp": 0, "bias": 2}
  tied = {"activation": "relu"}
  prod = {"vth": 0, "exp": 3}
  populations = {
    "lif": Population(
      neurons.LIF(**(lif | {"bias_mant": tuple(lif["bias_mant"])})), n
    ),
    "sd": Population(neurons.SigmaDelta(**sd, **tied), m),
    "prod": Population(neurons.ProdNeuron(**prod), k),
  }
  connections = [
    Connection("drive", "lif", Dense.of(w_in, weight_exp=1)),
    Connection("lif", "lif", Sparse.from_dense(w_rec, delays)),
    Connection("lif", "sd", Dense.of(w_sd, num_weight_bits=6)),
    Connection("sd", "prod", Dense.of(w_a, num_message_bits=16), "a_in1"),
    Connection(
      "sd", "prod", Sparse.from_dense(w_b, num_message_bits=16), "a_in2"
    ),
    Connection("prod", "lif", Dense.of(w_back, weight_exp=-2)),
  ]
  circuit = Circuit(populations, connections, {"drive": Input(4)})
  kept = lambda w, bits=8: rules.weights(w.tolist(), bits)
  plain = {
    "lif": (rules.lif, lif, 2, n),
    "sd": (rules.sigma_delta, sd | tied, 4, m),
    "prod": (rules.product, prod, 0, k),
  }
  wires = [
    ("drive", "lif", 0, kept(w_in), None, 1, True),
    ("lif", "lif", 0, kept(w_rec), delays.tolist(), 0, True),
    ("lif", "sd", 0, kept(w_sd, 6), None, 0, True),
    ("sd", "prod", 0, kept(w_a), None, 0, False),
    ("sd", "prod", 1, kept(w_b), None, 0, False),
    ("prod", "lif", 0, kept(w_back), None, -2, True),
  ]
  drive = (rng.random((STEPS, 4)) < 0.4).astype(int)
  return circuit, drive, (plain, wires, {"drive": drive.tolist()})


@pytest.mark.parametrize("seed", range(4))
def test_messages_are_those_of_python(seed):
  circuit, drive, plain = loop(seed)
  found = run(circuit)({"drive": drive}).messages
  want = oracle.simulate(*plain, STEPS)
  assert {k: v.tolist() for k, v in found.items()} == want
  for name, values in want.items():
    assert np.any(values), f"{name} is silent: nothing was tested"


def test_the_oracle_knows_delays_and_ports():
  circuit, drive, plain = loop(0)
  populations, wires, inputs = plain
  want = oracle.simulate(populations, wires, inputs, STEPS)
  later = [(*w[:4], w[4] and [[0] * 13] * 13, *w[5:]) for w in wires]
  assert oracle.simulate(populations, later, inputs, STEPS) != want
  swapped = [(*w[:2], 1 - w[2] if w[1] == "prod" else 0, *w[3:]) for w in wires]
  assert oracle.simulate(populations, swapped, inputs, STEPS) == want
  # (A product does not mind its operands' order; the synapses do.)
  lost = wires[:3] + wires[4:]
  assert oracle.simulate(populations, lost, inputs, STEPS) != want
  del circuit, drive


def test_a_run_goes_on_where_it_stopped():
  circuit, drive, _ = loop(1)
  simulate = run(circuit)
  whole = simulate({"drive": drive})
  state, parts = None, []
  for part in np.split(drive, [1, 7, 8, 20]):
    done = simulate({"drive": part}, state)
    state = done.state
    parts.append(done.messages["lif"])
  assert (np.concatenate(parts) == whole.messages["lif"]).all()
  # The state handed in is still there to start from again.
  again = simulate({"drive": drive[20:]}, done.state)
  once = simulate({"drive": drive[20:]}, done.state)
  assert (again.messages["lif"] == once.messages["lif"]).all()


def test_more_steps_than_a_chunk():
  circuit, drive, plain = loop(2)
  long = np.concatenate([drive] * 10)
  found = run(circuit)({"drive": long}).messages
  assert found["lif"].shape == (300, 13)
  populations, wires, _ = plain
  want = oracle.simulate(populations, wires, {"drive": long.tolist()}, 300)
  assert found["prod"].tolist() == want["prod"]


def small(cores: int, **limits):
  """A chip of few cores."""
  return dataclasses.replace(
    nmc.chip.loihi2(chips=1), cores_per_chip=cores, **limits
  )


@pytest.mark.parametrize("cores", [1, 4, 17])
def test_counters_are_those_of_the_messages(cores):
  circuit, drive, _ = loop(3)
  placement = nmc.place(circuit.network(), small(cores))
  done = run(circuit, placement)({"drive": drive})
  free = run(circuit)({"drive": drive})
  for name in circuit.populations:
    assert (done.messages[name] == free.messages[name]).all()
  sent = {**done.messages, "drive": drive}
  (stretch,) = done.counters.stretches
  assert (stretch.mode, stretch.tokens, stretch.steps) == (
    *("pipelined", STEPS),
    STEPS,
  )
  tiles = placement.tiles
  want = {k: np.zeros(len(tiles), int) for k in ("out", "in", "ops", "walk")}
  reads = set()
  for c, code in zip(circuit.connections, placement.encodings):
    on = (sent[c.source] != 0).sum(0)
    stored = c.synapse.weights != 0
    for i, tile in enumerate(tiles):
      if tile.population == c.target:
        mine = stored[tile.start : tile.stop]
        want["ops"][i] += (mine * on).sum()
        whole = on.sum() * len(mine)
        want["walk"][i] += (mine * on).sum() if code.kind == "sparse" else whole
        if (c.source, i) not in reads:
          reads.add((c.source, i))
          want["in"][i] += on.sum()
  for i, tile in enumerate(tiles):
    values = sent[tile.population][:, tile.start : tile.stop]
    want["out"][i] = np.count_nonzero(values)
  totals = stretch.totals
  assert totals["messages_out"].tolist() == want["out"].tolist()
  assert totals["messages_in"].tolist() == want["in"].tolist()
  assert totals["synops"].tolist() == want["ops"].tolist()
  assert totals["synops_stored"].tolist() == want["walk"].tolist()
  walked = stretch.steps_of["stored"]
  assert walked.shape == (STEPS,)
  assert walked.sum() == want["walk"].sum()
  assert np.count_nonzero(walked) > 1
  report = nmc.cost(done.counters, placement)
  assert report.steps_per_token.value == 1
  assert report.prefill_step_us.value > 0


@pytest.mark.parametrize(
  ("bits", "delays", "stored"),
  [(8, None, 8), (5, None, 8), (3, None, 4), (1, None, 2), (8, [[0, 5]], 11)],
)
def test_bits_of_a_stored_weight(bits, delays, stored):
  # 255 has 8 bits where all weights have one sign: the sign is kept once.
  weights = [[255, 1]]
  synapse = Sparse.from_dense(weights, delays, num_weight_bits=bits)
  neuron = {"a": Population(neurons.LIF(), 1)}
  circuit = Circuit(neuron, [Connection("in", "a", synapse)], {"in": Input(2)})
  placement = nmc.place(circuit.network(), small(1))
  (code,) = placement.encodings
  assert (code.kind, code.bits, code.entries) == ("dense", stored, 2)
  words = placement.network.populations[1].words
  # Current, voltage, and an accumulator for every step that is on its way.
  assert words == 2 + (6 if delays else 1)


def test_two_messages_of_one_neuron():
  """A norm: squares to the root, the root back to the neuron that waits."""
  n = 6
  ones = np.ones((1, n), int)
  populations = {
    "x": Population(neurons.NormVecDelay(vth=0, delay=2), n),
    "root": Population(neurons.InvSqrt(), 1),
  }
  wide = {"num_message_bits": 24}
  connections = [
    Connection("in", "x", Dense.of(2 * np.eye(n, dtype=int), **wide), "a_in1"),
    Connection("x", "root", Dense.of(ones, **wide), output=1),
    Connection("root", "x", Dense.of(ones.T, **wide), "a_in2"),
  ]
  circuit = Circuit(populations, connections, {"in": Input(n, 900)})
  x = np.zeros((8, n), int)
  x[0] = [3, -500, 70, 900, 0, 11]
  found = run(circuit)({"in": x}).messages
  twice = 2 * x[0]
  square = int((twice**2).sum())
  root = rules.inv_sqrt((), (square,))[1]
  assert found["x"][1][1].tolist() == (twice**2).tolist()
  assert found["root"][2].tolist() == [root]
  assert found["x"][0][3].tolist() == (twice * root).tolist()
  assert found["x"][0][4].tolist() == [0] * n


# --- what is refused


def tiny(**changes):
  fields = {
    "populations": {"a": Population(neurons.LIF(), 3)},
    "connections": [Connection("in", "a", Dense.of(np.ones((3, 2), int)))],
    "inputs": {"in": Input(2)},
  }
  return Circuit(**(fields | changes))


@pytest.mark.parametrize(
  ("changes", "text"),
  [
    (lambda: {"inputs": {"a": Input(2)}}, "'a' is a population and an input"),
    (lambda: {"populations": {}}, "there is no population"),
    (lambda: {"inputs": {"in": Input(0)}}, "input in: size is 0"),
    (
      lambda: {"populations": {"a": Population(neurons.LIF(), 0)}},
      "population a: size is 0",
    ),
    (
      lambda: {"populations": {"a": Population("LIF", 3)}},
      "population a: 'LIF' is no neuron",
    ),
    (
      lambda: {
        "populations": {"a": Population(neurons.LIF(bias_mant=(1, 2)), 3)}
      },
      "bias_mant has 2 values, the population 3",
    ),
    (
      lambda: {"connections": [Connection("b", "a", Dense.of([[1]]))]},
      "connection b -> a: there is no source 'b'; there are a, in",
    ),
    (
      lambda: {"connections": [Connection("a", "in", Dense.of([[1]]))]},
      "connection a -> in: there is no target 'in'",
    ),
    (
      lambda: {"connections": [Connection("in", "a", Dense.of([[1, 2]]))]},
      r"the synapses are \[1, 2\] \(out, in\), the populations \[3, 2\]",
    ),
    (
      lambda: {
        "connections": [
          Connection("in", "a", Dense.of(np.ones((3, 2), int)), "b_in")
        ]
      },
      "port is 'b_in'; LIF has a_in",
    ),
    (
      lambda: {
        "connections": [
          Connection("in", "a", Dense.of(np.ones((3, 2), int)), output=1)
        ]
      },
      "connection in -> a: output is 1; allowed are whole numbers from 0 to 0",
    ),
  ],
)
def test_a_circuit_that_cannot_be(changes, text):
  with pytest.raises(ConfigError, match=text):
    tiny(**changes())


def test_a_port_must_be_said_where_there_are_two():
  populations = {"p": Population(neurons.ProdNeuron(), 1)}
  wires = [Connection("in", "p", Dense.of([[1]]))]
  with pytest.raises(ConfigError, match="ProdNeuron has a_in1, a_in2"):
    Circuit(populations, wires, {"in": Input(1)})


@pytest.mark.parametrize(
  ("inputs", "steps", "text"),
  [
    ({}, 3, r"inputs are \[\]; allowed are exactly \['in'\]"),
    ({"in": np.zeros((3, 1), int)}, None, r"allowed are whole numbers \[steps"),
    ({"in": np.zeros((3, 2))}, None, r"input in is float64\[3, 2\]"),
    ({"in": np.zeros((3, 2), int)}, 4, "allowed is one number of steps"),
    ({"in": np.zeros((0, 2), int)}, None, "allowed is one number of steps"),
    (
      {"in": np.array([[0, 1], [0, -2]])},
      None,
      "input in sends -2 in step 1 on channel 1; allowed is up to 1",
    ),
  ],
)
def test_inputs_that_do_not_fit(inputs, steps, text):
  with pytest.raises(ConfigError, match=text):
    run(tiny())(inputs, steps=steps)


def test_a_placement_of_another_circuit():
  other = tiny(populations={"a": Population(neurons.LIF(), 3)}, connections=[])
  placement = nmc.place(other.network(), small(4))
  with pytest.raises(ConfigError, match="the placement is of another network"):
    run(tiny(), placement)


def test_a_circuit_that_no_core_holds():
  placed = tiny().network()
  with pytest.raises(PlacementError, match="population a needs 12 bytes"):
    nmc.place(placed, small(4, state_bytes_per_neuron=8))


def test_a_circuit_that_no_chip_holds():
  # 300 x 300 weights of 8 bits are 1,500 units of rows; two cores have 200.
  weights = np.full((300, 300), 255)
  populations = {"a": Population(neurons.LIF(), 300)}
  circuit = Circuit(populations, [Connection("a", "a", Dense.of(weights))])
  tight = small(2, synapse_units=100)
  with pytest.raises(PlacementError, match="synapse_units"):
    nmc.place(circuit.network(), tight)
  with pytest.raises(PlacementError, match="synapse_units"):
    nmc.place(circuit.network(), tight, head="host")


def test_only_what_could_overflow_is_watched():
  assert hazards(tiny()) == ()
  loose, _, _ = loop(0)
  watched = {(h.kind, h.owner) for h in hazards(loose)}
  assert ("step", "sd") in watched
  assert ("step", "lif") not in watched


def test_an_overflow_names_core_population_and_step():
  # 3 x 254 << 12 from each of 2 inputs is over the 2^18 that LIF takes.
  heavy = Dense.of(np.full((3, 2), 254), weight_exp=12)
  circuit = tiny(connections=[Connection("in", "a", heavy)])
  assert [h.kind for h in hazards(circuit)] == ["step"]
  drive = np.zeros((9, 2), int)
  placement = nmc.place(circuit.network(), small(3))
  quiet = run(circuit, placement)({"in": drive})
  assert not quiet.messages["a"].any()
  drive[4] = 1
  (tile,) = [t for t in placement.tiles if t.start == 0]
  text = (
    "step 5: the inputs of population a leave the range in which a step of LIF"
    rf" is exact \(neuron 0, chip {tile.chip}, core {tile.core}\)"
  )
  with pytest.raises(FormatError, match=text):
    run(circuit, placement)({"in": drive})


def test_a_message_too_large_for_its_sums():
  graded = {"g": Population(neurons.GradedVec(vth=0), 2)}
  wide = Dense.of([[200, 0], [0, 1]], num_message_bits=32)
  wires = [Connection("in", "g", wide), Connection("g", "g", wide)]
  circuit = Circuit(graded, wires, {"in": Input(2, 10**6)})
  assert [h.kind for h in hazards(circuit)] == ["walk", "add"]
  drive = np.zeros((4, 2), int)
  drive[0] = 10**6, 0
  # 2 * 10^8 comes back in step 2, times 200.
  with pytest.raises(FormatError, match=r"step 1: a message of g is larger"):
    run(circuit)({"in": drive})


def test_sums_of_several_connections_together():
  graded = {"g": Population(neurons.GradedVec(vth=0), 1)}
  wide = Dense.of([[128]], num_message_bits=32)
  wires = [Connection("a", "g", wide), Connection("b", "g", wide)]
  inputs = {"a": Input(1, 2**23 + 1), "b": Input(1, 2**23)}
  circuit = Circuit(graded, wires, inputs)
  assert [h.kind for h in hazards(circuit)] == ["add"]
  top, one = np.full((2, 1), 2**23), np.ones((2, 1), int)
  simulate = run(circuit)
  for a in (top, -top - one):
    with pytest.raises(FormatError, match="step 1: what several connections"):
      simulate({"a": a, "b": top * np.sign(a)})
    assert not simulate({"a": top, "b": -top}).messages["g"].any()
  for a, b, sum_ in (
    (top - one, top, 2**31 - 128),
    (-top, -top, -(2**31)),
    (-top, one, -(2**30) + 128),
    (one, -top, -(2**30) + 128),
  ):
    near = simulate({"a": a, "b": b})
    assert near.messages["g"].tolist() == [[0], [sum_]]
