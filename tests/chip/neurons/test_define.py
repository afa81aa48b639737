"""Neurons of one's own: their integers, and what is refused."""

import pathlib
import types

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import numpy as jnp

import jaxnmc as nmc
from jaxnmc.chip import neurons
from jaxnmc.chip.circuits import Circuit, Connection, Input, Population, run
from jaxnmc.chip.synapses import Dense
from jaxnmc.errors import ConfigError, FormatError, PlacementError
from jaxnmc.quantize import Format
from tests.chip.neurons.kinds import ints
from tests.chip.neurons.test_rules import unwanted

WORD, TOP = Format(24, 8), 2**23 - 1
FORMATS = {
  "a_in": WORD,
  "u": WORD,
  "v": WORD,
  "th": WORD,
  "leak": Format(8, 7),
  "rise": Format(16, 8),
}


def adaptive(ops, params, state, inputs):
  """A leaky neuron whose threshold rises with every spike."""
  (drive,) = inputs
  leak = ops.const("leak", params["leak"])
  rise = ops.const("rise", params["rise"])
  v = ops.site("u", ops.add(ops.mul(leak, state["v"]), drive))
  spike = ops.compare(v, state["th"])
  v = ops.site("v", ops.select(spike, ops.zeros(v), v))
  th = ops.add(ops.mul(leak, state["th"]), ops.mul(spike, rise))
  return {"v": v, "th": ops.site("th", th)}, spike


def make(**changes):
  fields = {
    "formats": FORMATS,
    "state": ("v", "th"),
    "params": {"leak": 0.9, "rise": 40.0},
  }
  return neurons.define(adaptive, **(fields | changes))


def clip(x):
  return max(-TOP, min(TOP, x))


def by_hand(v, th, a, leak=115, rise=40 * 256):
  """One step in Python's integers: 0.9 is 115 / 128."""
  u = clip((leak * v + a * 128 + 64) >> 7)
  spike = int(u >= th)
  th = clip((leak * th + spike * rise * 128 + 64) >> 7)
  return (0 if spike else u), th, spike


@given(data=st.data())
def test_a_step_is_that_of_python(data):
  neuron = make()
  v, th, a = ([data.draw(ints(TOP)) for _ in range(4)] for _ in range(3))
  state = {"v": jnp.int32(v), "th": jnp.int32(th)}
  assert not neuron.overflows(state, (jnp.int32(a),)).any()
  state, spike = neuron.step(state, (jnp.int32(a),))
  want = [by_hand(*x) for x in zip(v, th, a)]
  found = zip(state["v"].tolist(), state["th"].tolist(), spike.tolist())
  assert list(found) == want


def test_what_a_core_executes():
  neuron = make()
  assert (neuron.name, neuron.sends, neuron.takes) == ("adaptive", 1, TOP)
  assert neuron.ports == ("a_in",)
  assert {"mul", "add", "round_shift", "ge", "select"} <= {*neuron.instructions}
  assert neuron.codes["leak"].tolist() == [115]


@pytest.mark.parametrize("x64", [False, True])
def test_only_32_bit_integers_and_no_division(x64):
  neuron = make(params={"leak": [0.9, 0.5, 0.0], "rise": 40.0})
  with jax.enable_x64(x64):
    args = neuron.init(3), jnp.int32([1, 2, 3])
    assert unwanted(lambda s, x: neuron.step(s, (x,)), *args) == set()
  state, _ = neuron.step({k: v + 256 for k, v in args[0].items()}, (args[1],))
  assert len({*state["th"].tolist()}) == 3


def test_the_float_form_is_near():
  neuron = make()
  rng = np.random.default_rng(1)
  drive = rng.normal(8, 6, (40, 50))
  state, real = neuron.init(50), {"v": jnp.zeros(50), "th": jnp.zeros(50)}
  apart = []
  for x in drive:
    # Both from the state of the integers, so that one spike is not all.
    real = {k: q / 256 for k, q in state.items()}
    codes = jnp.int32(np.floor(x * 256 + 0.5))
    state, sent = neuron.step(state, (codes,))
    real, spike = neuron.float_step(real, (codes / 256,))
    apart.append(np.abs(real["v"] - state["v"] / 256) * (spike == sent))
    assert (spike != sent).mean() <= 0.1
  # 0.9 is 115 / 128 in integers: at most 0.0016 of a state below 100.
  assert np.max(apart) < 0.2
  assert np.max(apart) > 0


def test_in_a_circuit_on_cores():
  neuron = make()
  wires = [
    Connection("in", "own", Dense.of(np.eye(5, dtype=int) * 2, weight_exp=9)),
    Connection("own", "lif", Dense.of(np.full((3, 5), 100))),
  ]
  populations = {
    "own": Population(neuron, 5),
    "lif": Population(neurons.LIF(vth=200), 3),
  }
  circuit = Circuit(populations, wires, {"in": Input(5)})
  placement = nmc.place(circuit.network(), nmc.chip.loihi2(chips=1))
  drive = (np.random.default_rng(0).random((25, 5)) < 0.7).astype(int)
  found = run(circuit, placement)({"in": drive})
  inner, want = [(0, 0)] * 5, []
  for t in range(25):
    now = drive[t - 1] * 1024 if t else np.zeros(5, int)
    steps = [by_hand(*s, int(a)) for s, a in zip(inner, now)]
    inner, spikes = [s[:2] for s in steps], [s[2] for s in steps]
    want.append(spikes)
  assert found.messages["own"].tolist() == want
  # Nobody reads what "lif" says, so it is not sent.
  sent = found.counters.total("messages_out").sum()
  assert sent == np.count_nonzero(found.messages["own"])


def test_the_page_shows_a_neuron_in_under_twenty_lines():
  root = pathlib.Path(__file__).parents[3]
  page = (root / "docs" / "neurons.md").read_text()
  block = page.split("## Your own neuron")[1].split("```python\n")[1]
  block = block.split("```")[0]
  assert len([x for x in block.splitlines() if x.strip()]) < 20
  scope = types.ModuleType("page").__dict__
  exec(compile(block, "neurons.md", "exec"), scope)
  assert scope["neuron"].sends >= 1


# --- what is refused


def divides(ops, params, state, inputs):
  return {}, inputs[0] / 2


def floats(ops, params, state, inputs):
  return {}, ops.mul(inputs[0], 0.5)


def leaves_ops(ops, params, state, inputs):
  return {}, jnp.exp(inputs[0])


def to_float(ops, params, state, inputs):
  return {}, inputs[0].to_float()


def branches(ops, params, state, inputs):
  return {}, inputs[0] if inputs[0] > 0 else ops.zeros(inputs[0])


def sums(ops, params, state, inputs):
  return {}, ops.sum(inputs[0])


def overflows(ops, params, state, inputs):
  return {}, ops.mul(inputs[0], inputs[0])


def unknown(ops, params, state, inputs):
  return {}, ops.site("w", inputs[0])


def grows(ops, params, state, inputs):
  return {"v": ops.add(state["v"], inputs[0])}, inputs[0]


def one_thing(ops, params, state, inputs):
  return inputs[0]


def forgets(ops, params, state, inputs):
  return {}, inputs[0]


def number(ops, params, state, inputs):
  return {"v": 0}, inputs[0]


@pytest.mark.parametrize(
  ("fn", "text"),
  [
    (divides, r"neuron divides, line \d+ .*a core has no division"),
    (floats, r"neuron floats, line \d+ .*found float"),
    (leaves_ops, r"neuron leaves_ops, line \d+ .*computes with ops\.\*"),
    (to_float, r"neuron to_float, line \d+ .*no float"),
    (branches, r"neuron branches, line \d+ .*computes with ops\.\*"),
    (sums, "neuron sums: sum is the work of synapses"),
    (overflows, "neuron overflows, line .*may reach 70368727400449"),
    (unknown, "neuron unknown, line .*no format for 'w'"),
    (grows, r"neuron grows: the new state v is .* end with ops.site\('v'"),
    (one_thing, r"must return \(state, message\), .* found Fx"),
    (forgets, r"state a dict of v, .* found \(a dict of nothing, Fx\)"),
    (number, "the new state v is int"),
  ],
)
def test_a_neuron_that_no_core_runs(fn, text):
  state = ("v",) if fn in (grows, forgets, number) else ()
  with pytest.raises(ConfigError, match=text):
    neurons.define(fn, formats=FORMATS, state=state)


@pytest.mark.parametrize(
  ("changes", "text"),
  [
    ({"ports": ()}, "there are no ports"),
    ({"ports": ("b",)}, "no format for 'b'"),
    ({"params": {"leak": 1.5, "rise": 1}}, "leak is 1.5; its format s8.7"),
    ({"params": {"leak": 0.5, "rise": np.nan}}, "rise is nan"),
    ({"params": {"leak": 0.5, "loss": 1}}, "loss has no format"),
  ],
)
def test_what_does_not_fit_its_format(changes, text):
  with pytest.raises(ConfigError, match=f"neuron adaptive: .*{text}"):
    make(**changes)


def test_the_ends_of_a_format_are_in_it():
  ends = make(params={"leak": [127 / 128, -127 / 128], "rise": 0})
  assert ends.codes["leak"].tolist() == [127, -127]
  with pytest.raises(ConfigError, match="leak"):
    make(params={"leak": -1.0, "rise": 0})


def test_lists_have_one_value_per_neuron():
  neuron = make(params={"leak": [0.9, 0.5], "rise": 40.0})
  with pytest.raises(ConfigError, match="leak has 2 values, the population 3"):
    neuron.init(3)
  with pytest.raises(ConfigError, match="adaptive: n is 0"):
    neuron.init(0)


def test_inputs_out_of_range_stop_a_run():
  heavy = Dense.of([[255]], weight_exp=14, num_message_bits=3)
  circuit = Circuit(
    {"own": Population(make(), 1)},
    [Connection("in", "own", heavy)],
    {"in": Input(1, 4)},
  )
  drive = np.array([[0], [2], [3]])
  run(circuit)({"in": drive[:2]})
  # 255 x 2 << 14 is below 2^23, read in step 2; with 3 it is above.
  with pytest.raises(FormatError, match="step 1: the inputs of population own"):
    run(circuit)({"in": np.array([[3], [0]])})


def test_more_state_than_a_core_has_for_a_neuron():
  names = tuple(f"s{i}" for i in range(1025))

  def hoards(ops, params, state, inputs):
    fresh = {n: ops.site(n, ops.add(state[n], inputs[0])) for n in names}
    return fresh, inputs[0]

  formats = dict.fromkeys((*names, "a_in"), Format(16, 0))
  neuron = neurons.define(hoards, formats=formats, state=names)
  wires = [Connection("in", "greedy", Dense.of([[1]]))]
  circuit = Circuit({"greedy": Population(neuron, 1)}, wires, {"in": Input(1)})
  text = r"population greedy needs 4,104 bytes of state; .* allows 4,096"
  with pytest.raises(PlacementError, match=text):
    nmc.place(circuit.network(), nmc.chip.loihi2(chips=1))
