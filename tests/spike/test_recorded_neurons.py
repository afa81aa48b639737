"""Neurons against the recorded outputs of public libraries: spikes exact."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from jaxnmc.spike.delayed import DelayedLIF
from jaxnmc.spike.neurons import IF, LIF, trace
from jaxnmc.spike.signed import STBIF, settled
from jaxnmc.spike.surrogates import surrogate


def _check(neuron, golden, key, v):
  """Spikes, potentials and, where recorded, the gradient of one case."""

  def loss(x):
    _, spikes, states = trace(neuron, x)
    upstream = golden.get("upstream", 1.0)
    return (spikes * upstream).sum(), (spikes, states.v)

  run = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (_, (spikes, states)), gradient = run(jnp.asarray(golden["x"]))
  np.testing.assert_array_equal(spikes, golden[f"spk_{key}"])
  np.testing.assert_allclose(states, golden[f"{v}_{key}"], 1e-5, 1e-5)
  if f"gx_{key}" in golden:
    np.testing.assert_allclose(gradient, golden[f"gx_{key}"], 1e-4, 1e-6)


@pytest.mark.parametrize("case", range(24))
def test_spikingjelly(recorded, described, case):
  meta = described("neurons")[f"{case:02d}"]
  fields = {
    "threshold": meta["v_threshold"],
    "reset": meta["reset"],
    "v_reset": meta["v_reset"] or 0.0,
    "detach": meta["detach_reset"],
  }
  if meta["kind"] == "if":
    neuron = IF(**fields)
  else:
    neuron = LIF(tau=meta["tau"], decay_input=meta["decay_input"], **fields)
  _check(neuron, recorded("neurons"), f"{case:02d}", "v")


def test_all_recorded_cases_are_run(recorded):
  assert sum(k.startswith("spk_") for k in recorded("neurons")) == 24


@pytest.mark.parametrize("case", range(8))
def test_snntorch(recorded, described, case):
  meta = described("snntorch_leaky")[f"{case:02d}"]
  neuron = DelayedLIF(
    beta=meta["beta"],
    threshold=meta["threshold"],
    reset=meta["reset_mechanism"],
    delay=meta["reset_delay"],
    surrogate=surrogate("fast_sigmoid"),
  )
  _check(neuron, recorded("snntorch_leaky"), f"{case:02d}", "mem")


TIES = {
  "sj_hard": IF(reset="hard"),
  "sj_soft": IF(),
  "snntorch_subtract": DelayedLIF(beta=1.0),
  "snntorch_zero": DelayedLIF(beta=1.0, reset="zero"),
}


@pytest.mark.parametrize("name", TIES)
def test_ties(recorded, name):
  golden = recorded("ties")
  _check(TIES[name], golden, name, "v")
  # The other comparison would not do: the drives meet the threshold.
  if name.startswith("sj_"):
    strict = IF(reset=TIES[name].reset, strict=True)
    _, spikes, _ = trace(strict, golden["x"])
    assert (np.asarray(spikes) != golden[f"spk_{name}"]).any()


@pytest.mark.parametrize("kind", ["pos", "sym"])
def test_signed(recorded, described, kind):
  golden, meta = recorded("stbif"), described("stbif")
  neuron = STBIF.levels(
    meta["level"], symmetric=kind == "sym", threshold=meta["th"]
  )
  state, spikes, _ = jax.jit(trace, static_argnums=0)(neuron, golden["drive"])
  np.testing.assert_array_equal(spikes, golden[f"spk_{kind}"])
  np.testing.assert_array_equal(spikes, golden[f"sj_{kind}"])
  np.testing.assert_array_equal(state.count, golden[f"acc_{kind}"])
  total = golden["drive"].sum(0)
  wanted = golden[f"quant_{kind}"]
  np.testing.assert_array_equal(settled(neuron, total) * meta["th"], wanted)
  np.testing.assert_array_equal(state.count * meta["th"], wanted)
