"""Parameters and inputs that a neuron cannot have, by name and number."""

import numpy as np
import pytest
from jax import numpy as jnp

from jaxnmc.chip import neurons as n
from jaxnmc.errors import UserError

# class, parameters, field, what is found, what is allowed
OUTSIDE = [
  (n.LIF, {"du": 4096}, "du is 4096", "0 to 4095"),
  (n.LIF, {"du": -1}, "du is -1", "0 to 4095"),
  (n.LIF, {"dv": 4096}, "dv is 4096", "0 to 4095"),
  (n.LIF, {"vth": 131072}, "vth is 131072", "0 to 131071"),
  (n.LIF, {"vth": -1}, "vth is -1", "0 to 131071"),
  (n.LIF, {"vth": 1.5}, "vth is 1.5", "whole numbers"),
  (n.LIF, {"vth": True}, "vth is True", "whole numbers"),
  (n.LIF, {"vth": "ten"}, "vth is 'ten'", "whole numbers"),
  (n.LIF, {"vth": [1, 2]}, r"the shape of vth is \[2\]", "one whole number"),
  (n.LIF, {"bias_mant": 4096}, "bias_mant is 4096", "-4096 to 4095"),
  (n.LIF, {"bias_mant": [0, -4097]}, r"bias_mant\[1\] is -4097", "-4096"),
  (n.LIF, {"bias_mant": [[0]]}, r"shape of bias_mant is \[1, 1\]", "per neur"),
  (n.LIF, {"bias_mant": []}, r"shape of bias_mant is \[0\]", "per neuron"),
  (n.LIF, {"bias_mant": [[0], 1]}, "shape of bias_mant is uneven", "per neur"),
  (n.LIF, {"bias_exp": 8}, "bias_exp is 8", "-12 to 7"),
  (n.LIF, {"bias_exp": -13}, "bias_exp is -13", "-12 to 7"),
  (
    n.LIF,
    {"bias_mant": [1, 2], "bias_exp": [1, 2, 3]},
    "bias_mant has 2 values, bias_exp 3",
    "as many of both",
  ),
  (n.TernaryLIF, {"vth_hi": 131072}, "vth_hi is 131072", "-131071 to 131071"),
  (n.TernaryLIF, {"vth_lo": -131072}, "vth_lo is -131072", "-131071 to"),
  (n.TernaryLIF, {"vth_hi": -11}, "vth_lo is -10", "at most vth_hi = -11"),
  (n.LIFReset, {"reset_interval": 0}, "reset_interval is 0", "1 to 2147483647"),
  (n.LIFReset, {"reset_offset": -1}, "reset_offset is -1", "0 to 2147483647"),
  (n.Threshold, {"vth": 2**31 - 1}, "vth is 2147483647", "to 2147483646"),
  (n.LeakyIntegrator, {"dv": 4096}, "dv is 4096", "0 to 4095"),
  (n.RF, {"sin_decay": 4097, "cos_decay": 0}, "sin_decay is 4097", "-4096 to"),
  (n.RF, {"sin_decay": 0, "cos_decay": -4097}, "cos_decay is -4097", "to 4096"),
  (
    n.RFIzhikevich,
    {"sin_decay": 0, "cos_decay": 9, "decay_bits": 3},
    "cos_decay is 9",
    "-8 to 8",
  ),
  (
    n.RF,
    {"sin_decay": 0, "cos_decay": 0, "decay_bits": 13},
    "decay_bits is 13",
    "1 to 12",
  ),
  (
    n.RF,
    {"sin_decay": 0, "cos_decay": 0, "state_exp": 8},
    "state_exp is 8",
    "0 to 7",
  ),
  (
    n.RF,
    {"sin_decay": 0, "cos_decay": 0, "state_exp": 7, "vth": 65536},
    "vth is 65536",
    "0 to 65535",
  ),
  (n.RF.of, {"period": 0, "alpha": 0.5}, "RF: period is 0", "other than 0"),
  (
    n.RFIzhikevich.of,
    {"period": float("inf"), "alpha": 0.5},
    "RFIzhikevich: period is inf",
    "finite",
  ),
  (n.RF.of, {"period": 3, "alpha": 1.5}, "alpha is 1.5", "from 0 to 1"),
  (n.RF.of, {"period": 3, "alpha": 0, "decay_bits": -2}, "decay_bits", "1 to"),
  (n.GradedVec, {"vth": 2**23}, "vth is 8388608", "0 to 8388607"),
  (n.GradedReluVec, {"vth": -1}, "GradedReluVec: vth is -1", "0 to 8388607"),
  (n.NormVecDelay, {"delay": 3}, "delay is 3", "1 to 2"),
  (n.NormVecDelay, {"vth": -1}, "vth is -1", "0 to 8388607"),
  (n.ProdNeuron, {"exp": 47}, "exp is 47", "0 to 46"),
  (n.ProdNeuron, {"vth": 2**23}, "vth is 8388608", "0 to 8388607"),
  (n.Delta, {"vth": 1, "spike_exp": 8}, "spike_exp is 8", "0 to 7"),
  (n.Delta, {"vth": 1, "state_exp": -1}, "state_exp is -1", "0 to 7"),
  (n.Delta, {"vth": 1, "cum_error": 1}, "cum_error is 1", "True and False"),
  (
    n.Delta,
    {"vth": 131072, "spike_exp": 4, "state_exp": 2},
    "vth is 131072",
    "0 to 131071",
  ),
  (n.SigmaDelta, {"vth": 1, "bias": 2**15}, "bias is 32768", "-32767 to 32767"),
  (
    n.SigmaDelta,
    {"vth": 1, "bias": (0, 512), "spike_exp": 7, "state_exp": 7},
    r"bias\[1\] is 512",
    "-511 to 511",
  ),
  (n.SigmaDelta, {"vth": 1, "activation": "tanh"}, "'tanh'", "relu and unit"),
]


@pytest.mark.parametrize("case", OUTSIDE, ids=lambda c: f"{c[0].__qualname__}")
def test_parameters_outside(case):
  make, parameters, found, allowed = case
  with pytest.raises(UserError, match=f"{found}.*allowed.*{allowed}"):
    make(**parameters)


@pytest.mark.parametrize("size", [0, -1, 2.0, True, None])
def test_there_is_at_least_one_neuron(size):
  with pytest.raises(UserError, match=rf"LIF: n is {size}; allowed .* from 1 "):
    n.LIF().init(size)


@pytest.mark.parametrize(
  "neuron",
  [
    n.LIF(bias_mant=[1, 2]),
    n.TernaryLIF(bias_exp=[1, 2]),
    n.LIFReset(bias_mant=[1, 2]),
    n.SigmaDelta(vth=1, bias=[1, 2]),
  ],
  ids=lambda neuron: type(neuron).__name__,
)
def test_lists_are_as_long_as_the_population(neuron):
  neuron.init(2)
  with pytest.raises(UserError, match=r"has 2 values, the population 3 neur"):
    neuron.init(3)


GOOD = jnp.zeros(3, jnp.int32)


@pytest.mark.parametrize(
  ("inputs", "message"),
  [
    (GOOD, r"tuple of one int32\[n\] per port \(a_in\); found \w*Array"),
    ((), "found 0 of them"),
    ((GOOD, GOOD), "found 2 of them"),
    ((jnp.zeros(2, jnp.int32),), r"a_in got int32\[2\]; allowed is int32\[3\]"),
    ((jnp.zeros(3),), r"a_in got float32\[3\]; allowed is int32\[3\]"),
    ((np.zeros(3, np.int64),), r"a_in got int64\[3\]"),
    (([0, 0, 0],), r"a_in got list\[3\]"),
    ((5,), r"a_in got int\[\]"),
  ],
)
def test_inputs_of_another_form(inputs, message):
  neuron = n.LIF()
  with pytest.raises(UserError, match=f"LIF: .*{message}"):
    neuron.step(neuron.init(3), inputs)


def test_inputs_without_a_state_to_compare_with():
  neuron = n.ProdNeuron()
  state = neuron.init(3)
  with pytest.raises(UserError, match=r"a_in2 got int32\[1\]; .* int32\[3\]"):
    neuron.step(state, (GOOD, GOOD[:1]))
  with pytest.raises(UserError, match=r"a_in1 got int32\[\]; .* int32\[n\]"):
    neuron.step(state, (GOOD[0], GOOD[0]))
