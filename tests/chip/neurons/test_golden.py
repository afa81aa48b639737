"""Every recorded array of Lava, value for value."""

import json

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

from jaxnmc.chip import neurons
from jaxnmc.chip.synapses import Dense, Sparse
from jaxnmc.numerics import rsqrt

# What each test compares, by file; the rest of the arrays are inputs.
COMPARED = {
  "neurons_a": {
    **{f"lif{i}": (f"lif{i}_u", f"lif{i}_v", f"lif{i}_s") for i in range(4)},
    "tern": ("tern_u", "tern_v", "tern_s"),
    "rf": ("rf_real", "rf_imag", "rf_s"),
    "rfiz": ("rfiz_real", "rfiz_imag", "rfiz_s"),
  },
  "networks_a": {
    "net": (
      *("net_a1", "net_u1", "net_v1", "net_s1"),
      *("net_u2", "net_v2", "net_s2"),
    ),
    "delay": ("delay_a", "delay_u", "delay_v", "delay_s"),
    "gvec": ("gvec_a", "gvec_out"),
    "grelu": ("grelu_a", "grelu_out"),
    "prod": ("prod_out",),
    "sdn": ("sdn_d", "sdn_s", "sdn_sigma", "sdn_act"),
    "sdncum": ("sdncum_d", "sdncum_s", "sdncum_sigma", "sdncum_act"),
  },
  "invsqrt_a": {"root": ("y",)},
}
INPUTS = {
  "neurons_a": (
    *(f"lif{i}_{x}" for i in range(4) for x in ("a_in", "bias_mant")),
    *(f"lif{i}_bias_exp" for i in range(4)),
    *("tern_a_in", "rf_xr", "rf_xi"),
  ),
  "networks_a": (
    *("net_in", "net_W1", "net_W2", "net_Wr", "delay_W", "delay_D"),
    *("g_in", "g_W", "prod_x1", "prod_x2", "sdn_x", "sdn_W"),
    *("sdn_bias", "sdncum_bias"),
  ),
  "invsqrt_a": ("x", "table"),
}


class Recorded:
  """The arrays of one file."""

  def __init__(self, path):
    self.file = np.load(path)
    self.name = path.stem
    self.meta = json.loads(str(self.file["meta"])) if "meta" in self else {}

  def __contains__(self, key: str) -> bool:
    return key in self.file.files

  def __getitem__(self, key: str) -> np.ndarray:
    assert key in INPUTS[self.name]
    return self.file[key].astype(np.int32)

  def compare(self, case: str, found: dict) -> None:
    """`found` has every array of the case, laid out as it was recorded."""
    assert sorted(found) == sorted(COMPARED[self.name][case])
    for key, value in found.items():
      np.testing.assert_array_equal(value, self.file[key], err_msg=key)


@pytest.fixture(scope="module")
def recorded(shared_dir):
  folder = shared_dir / "golden" / "lava"
  return lambda name: Recorded(folder / f"{name}.npz")


def run(neuron, *inputs):
  """(states, messages) over time; inputs int[neurons, T] by port."""
  xs = tuple(jnp.asarray(x.T) for x in inputs)

  def step(state, x):
    state, sent = neuron.step(state, x)
    return state, (state, sent)

  start = neuron.init(inputs[0].shape[0])
  return jax.jit(lambda s, x: lax.scan(step, s, x)[1])(start, xs)


@pytest.mark.parametrize("name", ["lif0", "lif1", "lif2", "lif3"])
def test_lif(recorded, name):
  data = recorded("neurons_a")
  meta = data.meta[name]
  neuron = neurons.LIF(
    **{k: meta[k] for k in ("du", "dv", "vth")},
    bias_mant=data[f"{name}_bias_mant"],
    bias_exp=data[f"{name}_bias_exp"],
  )
  states, spikes = run(neuron, data[f"{name}_a_in"])
  found = {"u": states.u, "v": states.v, "s": spikes}
  data.compare(name, {f"{name}_{k}": x for k, x in found.items()})


def test_ternary_lif(recorded):
  data = recorded("neurons_a")
  fields = ("du", "dv", "vth_hi", "vth_lo")
  neuron = neurons.TernaryLIF(**{k: data.meta["tern"][k] for k in fields})
  states, spikes = run(neuron, data["tern_a_in"])
  found = {"tern_u": states.u, "tern_v": states.v, "tern_s": spikes}
  data.compare("tern", found)


@pytest.mark.parametrize(
  ("name", "kind"), [("rf", neurons.RF), ("rfiz", neurons.RFIzhikevich)]
)
def test_resonate_and_fire(recorded, name, kind):
  data = recorded("neurons_a")
  meta = data.meta[name]
  neuron = kind.of(
    meta["period"],
    meta["alpha"],
    **{k: meta[k] for k in ("vth", "state_exp", "decay_bits")},
  )
  assert neuron.sin_decay == meta["sin_decay"]
  assert neuron.cos_decay == meta["cos_decay"]
  states, spikes = run(neuron, data["rf_xr"], data["rf_xi"])
  found = {"real": states.real, "imag": states.imag, "s": spikes}
  data.compare(name, {f"{name}_{k}": x for k, x in found.items()})


def test_recurrent_network(recorded):
  data = recorded("networks_a")
  meta = data.meta["net"]
  first = Dense.of(data["net_W1"], **meta["dense1"])
  second = Dense.of(data["net_W2"], **meta["dense2"])
  back = Sparse.from_dense(data["net_Wr"], **meta["sparse_rec"])
  lif1, lif2 = neurons.LIF(**meta["lif1"]), neurons.LIF(**meta["lif2"])

  def step(state, x):
    (d1, d2, r, n1, n2, s1) = state
    d1, a1 = first.step(d1, x)
    # The recurrent synapse delivers first and then takes this step's spikes.
    _, ar = back.step(r, s1)
    n1, s1 = lif1.step(n1, (a1 + ar,))
    r, _ = back.step(r, s1)
    d2, a2 = second.step(d2, s1)
    n2, s2 = lif2.step(n2, (a2,))
    return (d1, d2, r, n1, n2, s1), (a1, n1, s1, n2, s2)

  start = (
    *(c.init() for c in (first, second, back)),
    lif1.init(40),
    lif2.init(24),
    jnp.zeros(40, jnp.int32),
  )
  xs = jnp.asarray(data["net_in"].T)
  a1, n1, s1, n2, s2 = jax.jit(lambda s, x: lax.scan(step, s, x)[1])(start, xs)
  found = {"a1": a1.T, "u1": n1.u, "v1": n1.v, "s1": s1}
  found |= {"u2": n2.u, "v2": n2.v, "s2": s2}
  data.compare("net", {f"net_{k}": x for k, x in found.items()})
  assert int(s1.sum()) == meta["spikes1"]
  assert int(s2.sum()) == meta["spikes2"]


def through(synapse, neuron, xs):
  """(activations, states, messages) of a synapse and a population."""

  def step(state, x):
    buffer, inner = state
    buffer, a = synapse.step(buffer, x)
    inner, sent = neuron.step(inner, (a,))
    return (buffer, inner), (a, inner, sent)

  n = synapse.init().shape[-1]
  start = (synapse.init(), neuron.init(n))
  return jax.jit(lambda s, x: lax.scan(step, s, x)[1])(start, xs)


def test_delays(recorded):
  data = recorded("networks_a")
  meta = data.meta["delay"]
  synapse = Sparse.from_dense(data["delay_W"], data["delay_D"], **meta["dense"])
  xs = jnp.asarray(data["net_in"].T)
  a, states, spikes = through(synapse, neurons.LIF(**meta["lif"]), xs)
  found = {"a": a.T, "u": states.u, "v": states.v, "s": spikes}
  data.compare("delay", {f"delay_{k}": x for k, x in found.items()})


@pytest.mark.parametrize(
  ("name", "kind"),
  [("gvec", neurons.GradedVec), ("grelu", neurons.GradedReluVec)],
)
@pytest.mark.parametrize("make", [Dense.of, Sparse.from_dense])
def test_graded(recorded, name, kind, make):
  data = recorded("networks_a")
  meta = data.meta[name]
  synapse = make(data["g_W"], **meta["dense"])
  xs = jnp.asarray(data["g_in"].T)
  a, _, out = through(synapse, kind(vth=meta["vth"]), xs)
  data.compare(name, {f"{name}_a": a.T, f"{name}_out": out.T})


def test_product(recorded):
  data = recorded("networks_a")
  neuron = neurons.ProdNeuron(**data.meta["prod"])
  _, out = run(neuron, data["prod_x1"], data["prod_x2"])
  data.compare("prod", {"prod_out": out.T})


@pytest.mark.parametrize("name", ["sdn", "sdncum"])
def test_sigma_delta(recorded, name):
  data = recorded("networks_a")
  meta = data.meta[name]
  _, d = run(neurons.Delta(**meta["delta"]), data["sdn_x"])
  fields = ("vth", "cum_error", "spike_exp", "state_exp")
  neuron = neurons.SigmaDelta(
    **{k: meta["sigmadelta"][k] for k in fields}, bias=data[f"{name}_bias"]
  )
  assert meta["sigmadelta"]["act_mode"].endswith("RELU")
  synapse = Dense.of(data["sdn_W"], **meta["dense"])
  _, states, sent = through(synapse, neuron, d)
  found = {"d": d.T, "s": sent.T, "sigma": states.sigma, "act": states.act}
  data.compare(name, {f"{name}_{k}": x for k, x in found.items()})


def test_inverse_square_root(recorded):
  data = recorded("invsqrt_a")
  _, y = run(neurons.InvSqrt(), data["x"][:, None])
  data.compare("root", {"y": y[0]})
  np.testing.assert_array_equal(rsqrt.TABLE, data["table"])


@pytest.mark.parametrize("name", COMPARED)
def test_nothing_recorded_is_left_out(recorded, name):
  compared = {key for keys in COMPARED[name].values() for key in keys}
  assert compared | {*INPUTS[name], "meta"} >= set(recorded(name).file.files)
