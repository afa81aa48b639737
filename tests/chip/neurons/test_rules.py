"""Stock neurons against their rules in Python's integers."""

import operator

import chex
import jax
import numpy as np
import pytest
from absl.testing import parameterized
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax import numpy as jnp

from jaxnmc import _compat
from jaxnmc.chip import neurons
from tests.chip.neurons import kinds
from tests.chip.neurons.kinds import KINDS

N, STEPS = 3, 6
# The root has a loop, which would otherwise be compiled anew in every step.
ROOT = jax.jit(neurons.InvSqrt().step)


def begin(neuron, start):
  """(state, tuple per neuron); `start` holds the leaves or is None."""
  state = neuron.init(N)
  if start is not None:
    state = jax.tree.unflatten(
      jax.tree.structure(state), [jnp.asarray(x) for x in start]
    )
  leaves = jax.tree.leaves(state)
  return state, kinds.columns(*leaves) if leaves else [()] * N


def as_lists(tree):
  return [tuple(np.asarray(x).tolist()) for x in jax.tree.leaves(tree)]


def messages_of(sent) -> list[tuple]:
  """Per neuron an int, or a tuple of both messages."""
  each = as_lists(sent)
  return [tuple(each[0])] if len(each) == 1 else [tuple(zip(*each))]


@pytest.mark.parametrize("name", KINDS)
@given(data=st.data())
def test_steps_follow_the_rule(name, data):
  kind = KINDS[name]
  parameters, start, inputs = kinds.draw(data, kind, N, STEPS)
  neuron = kind.make(**parameters)
  step = ROOT if name == "InvSqrt" else neuron.step
  state, columns = begin(neuron, start)
  states, messages = kinds.expected(kind, parameters, columns, inputs)
  for t, x in enumerate(inputs):
    if name != "InvSqrt":
      assert not neuron.overflows(state, kinds.ports(x)).any()
    state, sent = step(state, kinds.ports(x))
    chex.assert_type(jax.tree.leaves((state, sent)), jnp.int32)
    assert as_lists(state) == states[t], f"step {t}"
    assert messages_of(sent) == [messages[t]], f"step {t}"


def sample(name: str, steps: int = 40):
  """A neuron of a kind that is busy, and inputs for it."""
  kind = KINDS[name]
  bias = {"bias_mant": (70, -4096, 4095), "bias_exp": (-3, 7, 0)}
  leaky = {"du": 300, "dv": 40} | bias
  turning = {"sin_decay": 2978, "cos_decay": 2375, "state_exp": 6}
  encoder = {"vth": 9, "cum_error": True, "spike_exp": 3, "state_exp": 2}
  parameters = {
    "LIF": leaky | {"vth": 900},
    "TernaryLIF": leaky | {"vth_hi": 900, "vth_lo": -700},
    "LIFReset": leaky | {"vth": 1500, "reset_interval": 7, "reset_offset": 10},
    "LeakyIntegrator": leaky,
    "Threshold": {"vth": 100},
    "RF": turning | {"vth": 600, "decay_bits": 12},
    "RFIzhikevich": turning | {"vth": 600, "decay_bits": 12},
    "GradedVec": {"vth": 100},
    "GradedReluVec": {"vth": 100},
    "NormVecDelay": {"vth": 100, "delay": 2},
    "InvSqrt": {},
    "ProdNeuron": {"vth": 40, "exp": 6},
    "Delta": encoder,
    "SigmaDelta": encoder | {"bias": (3, 0, -7), "activation": "relu"},
  }[name]
  rng = np.random.default_rng(sorted(KINDS).index(name))
  size = {"LIF": 2**18, "Delta": 30, "InvSqrt": 2**24}.get(name, 900)
  shape = (steps, len(kind.limit), N)
  return kind, parameters, rng.integers(-size, size, shape).astype(np.int32)


def scan(neuron, state, inputs):
  """Outputs of `lax.scan` over time: (last state, (states, messages))."""

  def step(state, x):
    state, sent = neuron.step(state, tuple(x))
    return state, (state, sent)

  return lax.scan(step, state, inputs)


class ScanTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.named_parameters((name, name) for name in KINDS)
  def test_scan_over_time(self, name):
    kind, parameters, inputs = sample(name)
    neuron = kind.make(**parameters)
    state, columns = begin(neuron, None)
    run = self.variant(lambda state, x: scan(neuron, state, x))
    _, (states, sent) = run(state, jnp.asarray(inputs))
    want, messages = kinds.expected(kind, parameters, columns, inputs)
    for k, leaf in enumerate(jax.tree.leaves(states)):
      np.testing.assert_array_equal(leaf, [s[k] for s in want])
    leaves = jax.tree.leaves(sent)
    found = leaves[0] if len(leaves) == 1 else np.stack(leaves, -1)
    np.testing.assert_array_equal(found, messages)
    assert np.asarray(found).any()
    # A voltage is told in every step.
    assert name == "LeakyIntegrator" or not np.asarray(found).all()


@pytest.mark.parametrize("name", ["LIFReset", "NormVecDelay", "SigmaDelta"])
def test_a_batch_is_its_members(name):
  kind, parameters, inputs = sample(name, 8)
  neuron = kind.make(**parameters)
  batch = jnp.asarray(np.stack([inputs, inputs[::-1]]))
  state = neuron.init(N)
  run = lambda x: scan(neuron, state, x)
  together = jax.vmap(run)(batch)
  for i in range(2):
    member = jax.tree.map(operator.itemgetter(i), together)
    chex.assert_trees_all_equal(member, run(batch[i]))


DIVISIONS = {"div", "rem", "floor", "sqrt", "rsqrt", "pow"}


def unwanted(fn, *args) -> set[str]:
  """Floating types, wide integers and divisions in a program."""
  jaxpr = jax.make_jaxpr(fn)(*args)
  found = set()
  for inner in _compat.all_jaxprs(jaxpr):
    for eqn in inner.eqns:
      found |= {eqn.primitive.name} & DIVISIONS
      for var in (*eqn.invars, *eqn.outvars):
        dtype = getattr(var.aval, "dtype", np.int32)
        wide = dtype in (np.int64, np.uint64) and var.aval.ndim
        if jnp.issubdtype(dtype, jnp.inexact) or wide:
          found.add(str(dtype))
  return found


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_only_32_bit_integers_and_no_division(name, x64):
  kind, parameters, inputs = sample(name, 2)
  neuron = kind.make(**parameters)
  with jax.enable_x64(x64):
    state, x = neuron.init(N), kinds.ports(inputs[0])
    assert unwanted(neuron.step, state, x) == set()
    assert unwanted(neuron.overflows, state, x) == set()
    out = jax.eval_shape(neuron.step, state, x)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(out)} == {"int32"}


def test_the_walk_sees_what_it_looks_for():
  assert unwanted(lambda x: x * 0.5, jnp.int32(1)) == {"float32"}
  assert "div" in unwanted(lambda x: x // 3, jnp.int32(1))
  with jax.enable_x64(True):
    fn = lambda x: x.astype(jnp.int64)
    assert unwanted(fn, jnp.zeros(2, jnp.int32)) == {"int64"}


# --- where steps stop being exact


def overflow_cases():
  lif = neurons.LIF()
  yield lif, lif.init(3), [2**18, -(2**18), 2**18 + 1], [0, 0, 1]
  delta = neurons.Delta(vth=1, spike_exp=3, state_exp=1)
  yield delta, delta.init(3), [2**24, -(2**24) - 1, 2**24 + 1], [0, 1, 1]
  sigma = neurons.SigmaDelta(vth=1)
  full = sigma.init(3).replace(sigma=jnp.int32([2**28, -(2**28) - 1, 0]))
  yield sigma, full, [2**28, 0, -(2**28) - 1], [0, 1, 1]
  root = neurons.InvSqrt()
  yield root, root.init(3), [0, 2**24 - 1, 2**24], [0, 0, 1]
  yield root, root.init(3), [-1, 1, -(2**31)], [1, 0, 1]
  graded = neurons.GradedVec()
  yield graded, graded.init(3), [-(2**31), 2**31 - 1, 0], [0, 0, 0]


@pytest.mark.parametrize(
  "case", [*overflow_cases()], ids=lambda c: str(c[0])[:9]
)
def test_what_is_flagged(case):
  neuron, state, x, flags = case
  found = neuron.overflows(state, (jnp.asarray(x, jnp.int32),))
  assert found.tolist() == [bool(f) for f in flags]


@settings(max_examples=50)
@given(
  x1=kinds.ints(2**31 - 1, -(2**31)),
  x2=kinds.ints(2**31 - 1, -(2**31)),
  exp=st.integers(0, 46),
)
def test_products_are_exact_or_flagged_and_saturate(x1, x2, exp):
  pair = tuple(jnp.full(1, x, jnp.int32) for x in (x1, x2))
  word = lambda x: max(-(2**31), min(x, 2**31 - 1))
  prod = neurons.ProdNeuron(vth=0, exp=exp)
  true = (x1 * x2) >> exp
  assert prod.step(prod.init(1), pair)[1].tolist() == [word(true)]
  flagged = bool(prod.overflows(prod.init(1), pair)[0])
  assert flagged == (word(true) != true)

  norm = neurons.NormVecDelay(vth=0)
  state, (_, square) = norm.step(norm.init(1), (pair[0], pair[0]))
  assert square.tolist() == [word(x1 * x1)]
  _, (sent, _) = norm.step(state, (pair[0] * 0, pair[1]))
  assert sent.tolist() == [word(x1 * x2)]
  flagged = norm.overflows(state, (pair[0] * 0, pair[1]))
  assert bool(flagged[0]) == (word(x1 * x2) != x1 * x2)


def test_the_current_stays_in_24_bits_under_the_largest_input():
  neuron = neurons.LIF(du=0, vth=2**17 - 1)
  state = neuron.init(2)
  for _ in range(50):
    state, _ = neuron.step(state, (jnp.int32([2**18, -(2**18)]),))
    assert int(jnp.abs(state.u).max()) <= 2**23


def test_a_current_of_2_to_the_23_stays_and_one_more_wraps():
  neuron = neurons.LIF(du=4095)
  a = jnp.int32([2**17, 2**17 + 1, -(2**17) + 1, -(2**17)])
  state, _ = neuron.step(neuron.init(4), (a,))
  top = 2**23
  assert state.u.tolist() == [top, 64 - top, 64 - top, top]


def test_resonators_spike_at_the_threshold_itself():
  # No turn: the states are what is put in, 2^6 times as large.
  still = {"sin_decay": 0, "cos_decay": 0, "vth": 5}
  neuron = neurons.RF(**still)
  x = jnp.int32([[5, 4, 5, 5], [0, 0, -1, 0]])
  state = neuron.init(4).replace(imag=jnp.int32([-1, -1, -1, 0]))
  assert neuron.step(state, tuple(x))[1].tolist() == [1, 0, 0, 0]
  neuron = neurons.RFIzhikevich(**still)
  _, spikes = neuron.step(state, (x[1], jnp.int32([4, 5, 6, -5])))
  assert spikes.tolist() == [0, 1, 1, 0]


def test_resets_come_when_they_should():
  """t = 1 is the first step: interval 4 and offset 2 clear at 2, 6, 10."""
  neuron = neurons.LIFReset(
    du=0, vth=2**17 - 1, reset_interval=4, reset_offset=2
  )
  state, seen = neuron.init(1), []
  for _ in range(10):
    state, _ = neuron.step(state, (jnp.ones(1, jnp.int32),))
    seen.append(int(state.u[0]))
  assert [t + 1 for t, u in enumerate(seen) if u == 64] == [1, 2, 6, 10]


def test_neurons_are_static_arguments():
  neuron = neurons.LIF(vth=5, bias_mant=np.array([1, 2]))
  assert neuron == neurons.LIF(vth=np.int64(5), bias_mant=[1, 2])
  run = jax.jit(lambda n, s, x: n.step(s, (x,)), static_argnums=0)
  _, spikes = run(neuron, neuron.init(2), jnp.int32([7, -7]))
  assert spikes.tolist() == [1, 0]


def test_period_and_damping_are_truncated_towards_zero():
  neuron = neurons.RF.of(7, 0.07, vth=600)
  assert (neuron.sin_decay, neuron.cos_decay) == (2978, 2375)
  back = neurons.RFIzhikevich.of(-7, 0.07, vth=600)
  assert (back.sin_decay, back.cos_decay) == (-2978, 2375)
  assert neurons.RF.of(4, 0, decay_bits=3).sin_decay == 8
