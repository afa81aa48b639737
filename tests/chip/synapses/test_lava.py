"""Synapses against Lava's weight rules in Python's integers."""

import chex
import jax
import numpy as np
import pytest
from absl.testing import parameterized
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from jax import numpy as jnp

from jaxnmc.chip.synapses import Dense, Sparse
from jaxnmc.chip.synapses import weights as lava_weights
from jaxnmc.errors import UserError
from tests.chip.neurons import kinds, rules
from tests.chip.neurons.test_rules import unwanted

RANGES = {"mixed": (-256, 255), "excitatory": (0, 255), "inhibitory": (-256, 0)}


def matrices(mode: str, out: int, source: int):
  low, high = RANGES[mode]
  value = st.one_of(st.just(0), kinds.ints(high, low))
  row = st.lists(value, min_size=source, max_size=source)
  return st.lists(row, min_size=out, max_size=out)


def deliver(synapse, messages):
  """Activations by step, int[T][out]."""
  state, out = synapse.init(), []
  for s in messages:
    state, a = synapse.step(state, jnp.asarray(s, jnp.int32))
    chex.assert_type([state, a], jnp.int32)
    out.append(a.tolist())
  return out


@given(data=st.data(), mode=st.sampled_from(sorted(RANGES)))
def test_weights_keep_their_highest_bits(data, mode):
  matrix = data.draw(matrices(mode, 3, 4))
  bits = data.draw(st.integers(1, 8))
  given_mode = data.draw(st.sampled_from([None, mode]))
  synapse = Dense.of(matrix, num_weight_bits=bits, sign_mode=given_mode)
  want = rules.weights(matrix, bits, given_mode)
  assert np.asarray(synapse.weights).tolist() == want


def test_all_weights_at_all_widths():
  # Beyond their range, too: the rule clips, though a synapse refuses them.
  every = np.arange(-300, 301)
  for mode in RANGES:
    for bits in range(1, 9):
      found = lava_weights.effective(every, bits, mode)
      assert found.tolist() == rules.weights([every.tolist()], bits, mode)[0]


@pytest.mark.parametrize("kind", ["dense", "sparse", "delayed"])
@given(data=st.data())
def test_activations_follow_the_rule(kind, data):
  out, source, steps = 3, 4, 5
  matrix = data.draw(
    st.sampled_from(sorted(RANGES)).flatmap(lambda m: matrices(m, out, source))
  )
  if kind != "dense":
    matrix[0][0] = matrix[0][0] or 1  # something must be stored
  exp = data.draw(st.integers(-12, 6))
  if data.draw(st.integers(0, 9)) == 0:
    exp = data.draw(st.integers(-32, -13))
  bits = data.draw(st.integers(1, 8))
  width = data.draw(st.sampled_from([0, 1, 8, 14]))
  limit = 2**14
  messages = [
    [data.draw(kinds.ints(limit)) for _ in range(source)] for _ in range(steps)
  ]
  parameters = {
    "weight_exp": exp,
    "num_weight_bits": bits,
    "num_message_bits": width,
  }
  delays = None
  if kind == "dense":
    synapse = Dense.of(matrix, **parameters)
  elif kind == "sparse":
    synapse = Sparse.from_dense(matrix, **parameters)
  else:
    one = st.lists(st.integers(0, 3), min_size=source, max_size=source)
    delays = data.draw(st.lists(one, min_size=out, max_size=out))
    synapse = Sparse.from_dense(matrix, delays, **parameters)
  kept = rules.weights(matrix, bits)
  want = rules.activations(kept, delays, messages, exp=exp, binary=width == 0)
  assert width == 0 or synapse.rule.largest_message >= limit
  assert deliver(synapse, messages) == want


def sample(kind: str):
  rng = np.random.default_rng(7)
  matrix = rng.integers(-256, 256, (5, 9))
  matrix[rng.random(matrix.shape) < 0.5] = 0
  delays = rng.integers(0, 4, matrix.shape)
  parameters = {"weight_exp": -3, "num_weight_bits": 5, "num_message_bits": 9}
  messages = rng.integers(-256, 256, (12, 9)).astype(np.int32)
  make = {
    "dense": lambda: Dense.of(matrix, **parameters),
    "sparse": lambda: Sparse.from_dense(matrix, **parameters),
    "delayed": lambda: Sparse.from_dense(matrix, delays, **parameters),
  }[kind]
  want = rules.activations(
    rules.weights(matrix.tolist(), 5),
    delays.tolist() if kind == "delayed" else None,
    messages.tolist(),
    exp=-3,
    binary=False,
  )
  return make(), messages, want


class ScanTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.parameters("dense", "sparse", "delayed")
  def test_scan_over_time(self, kind):
    synapse, messages, want = sample(kind)
    # Weights are leaves: the synapse is an argument, not a constant.
    run = self.variant(lambda s, x: lax.scan(s.step, s.init(), x)[1])
    found = run(synapse, jnp.asarray(messages))
    assert found.tolist() == want


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("kind", ["dense", "sparse", "delayed"])
def test_only_32_bit_integers_and_no_division(kind, x64):
  synapse, messages, _ = sample(kind)
  with jax.enable_x64(x64):
    fn = lambda s, state, x: s.step(state, x)
    args = (synapse, synapse.init(), jnp.asarray(messages[0]))
    assert unwanted(fn, *args) == set()


def test_a_batch_is_its_members():
  synapse, messages, want = sample("delayed")
  run = lambda x: lax.scan(synapse.step, synapse.init(), x)[1]
  both = jax.vmap(run)(jnp.asarray(np.stack([messages, messages[::-1]])))
  assert both[0].tolist() == want
  assert both[1].tolist() == run(jnp.asarray(messages[::-1])).tolist()


def test_sums_are_exact_up_to_the_largest_message():
  synapse = Dense.of([[255, 255], [-1, 0]], num_message_bits=32)
  assert np.asarray(synapse.weights).tolist() == [[254, 254], [-2, 0]]
  top = synapse.rule.largest_message
  assert top == (2**31 - 1) // 508
  for s in (top, -top):
    (_, a) = deliver(synapse, [[s, s], [0, 0]])
    assert a == [508 * s, -2 * s]
  assert 508 * (top + 1) > 2**31 - 1
  flags = synapse.rule.overflows(jnp.int32([top, top + 1]))
  assert flags.tolist() == [False, True]
  binary = Dense.of([[1]]).rule
  assert binary.largest_message == 1
  assert not binary.overflows(jnp.int32([2**31 - 1])).any()


def test_the_delay_line_is_as_long_as_the_largest_delay():
  synapse = Sparse.of((2, 2), [0, 1, 1], [0, 0, 1], [2, 4, 8], [0, 62, 1])
  assert synapse.init().shape == (63, 2)
  messages = jnp.zeros((64, 2), jnp.int32).at[0].set(1)
  _, seen = lax.scan(synapse.step, synapse.init(), messages)
  arrived = {t: a for t, a in enumerate(seen.tolist()) if any(a)}
  assert arrived == {1: [2, 0], 2: [0, 8], 63: [0, 4]}


TWO = [[1, 2], [3, 4]]
REFUSED = {
  "too large": (
    lambda: Dense.of([[1, 2], [3, 256]]),
    r"Dense: excitatory weights\[1, 1\] is 256; allowed are 0 to 255",
  ),
  "too small": (
    lambda: Dense.of([[-257, 2]]),
    r"mixed weights\[0, 0\] is -257; allowed are -256 to 255",
  ),
  "against the sign mode": (
    lambda: Dense.of([[-1, 2, -7]], sign_mode="excitatory"),
    r"excitatory weights\[0, 0\] is -1; allowed are 0 to 255 \(2 such",
  ),
  "inhibitory and positive": (
    lambda: Dense.of([[-1, 2]], sign_mode="inhibitory"),
    r"inhibitory weights\[0, 1\] is 2; allowed are -256 to 0",
  ),
  "no such mode": (
    lambda: Dense.of(TWO, sign_mode="null"),
    "sign_mode is 'null'; allowed are mixed, excitatory, inhibitory and None",
  ),
  "floats": (
    lambda: Dense.of([[0.5]]),
    r"Dense: weights is float64\[1, 1\]; allowed are integers with 2 axes",
  ),
  "a vector": (lambda: Dense.of([1, 2]), r"weights is int64\[2\]"),
  "uneven": (lambda: Dense.of([[1], [2, 3]]), "weights is object"),
  "nothing": (lambda: Dense.of([[]]), r"weights is float64\[1, 0\]"),
  "no bits": (
    lambda: Dense.of(TWO, num_weight_bits=0),
    "num_weight_bits is 0; allowed are whole numbers from 1 to 8",
  ),
  "nine bits": (
    lambda: Sparse.from_dense(TWO, num_weight_bits=9),
    "Sparse: num_weight_bits is 9; allowed are whole numbers from 1 to 8",
  ),
  "half an exponent": (
    lambda: Dense.of(TWO, weight_exp=0.5),
    "weight_exp is 0.5; allowed are whole numbers from -32 to 31",
  ),
  "an exponent of 32": (
    lambda: Dense.of(TWO, weight_exp=32),
    "weight_exp is 32; allowed are whole numbers from -32 to 31",
  ),
  "33 message bits": (
    lambda: Dense.of(TWO, num_message_bits=33),
    "num_message_bits is 33; allowed are whole numbers from 0 to 32",
  ),
  "a truth value": (
    lambda: Dense.of(TWO, num_message_bits=True),
    "num_message_bits is True",
  ),
  "sums over 32 bits": (
    lambda: Dense.of([[4, 4]], weight_exp=28),
    "weight_exp is 28, so the activation of one target can reach 2147483648"
    " with messages of 1; allowed is 2147483647",
  ),
  "a delay of 63": (
    lambda: Sparse.from_dense(TWO, [[0, 63], [0, 0]]),
    r"Sparse: delays\[1\] is 63; allowed are 0 to 62",
  ),
  "a negative delay": (
    lambda: Sparse.from_dense(TWO, [[0, -1], [0, 0]]),
    r"Sparse: delays\[1\] is -1; allowed are 0 to 62",
  ),
  "delays of another shape": (
    lambda: Sparse.from_dense(TWO, [[0, 1]]),
    r"delays are \[1, 2\], weights \[2, 2\]; allowed are equal shapes",
  ),
  "a row outside": (
    lambda: Sparse.of((2, 3), [0, 2], [0, 1], [1, 1]),
    r"Sparse: rows\[1\] is 2; allowed are 0 to 1",
  ),
  "a column outside": (
    lambda: Sparse.of((2, 3), [0, 1], [0, 3], [1, 1]),
    r"Sparse: columns\[1\] is 3; allowed are 0 to 2",
  ),
  "twice": (
    lambda: Sparse.of((2, 3), [0, 0, 1], [1, 1, 1], [1, 2, 3]),
    "1 entries are given twice; allowed is one weight per pair",
  ),
  "unequal lists": (
    lambda: Sparse.of((2, 3), [0, 0, 1], [1, 1], [1, 2, 3]),
    r"rows, columns, weights, delays have \[3, 2, 3, 3\] entries",
  ),
  "all zero": (
    lambda: Sparse.from_dense([[0, 0]]),
    "Sparse: all weights are 0; allowed is at least one",
  ),
  "no shape": (
    lambda: Sparse.of(4, [0], [0], [1]),
    r"shape is 4; allowed is a pair \(out, in\)",
  ),
  "an empty shape": (
    lambda: Sparse.of((0, 4), [0], [0], [1]),
    r"shape\[0\] is 0; allowed are whole numbers from 1",
  ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
  make, message = REFUSED[name]
  with pytest.raises(UserError, match=message):
    make()


@pytest.mark.parametrize("kind", ["dense", "sparse", "delayed"])
@pytest.mark.parametrize(
  ("messages", "found"),
  [
    (np.zeros(8, np.int32), r"int32\[8\]"),
    (np.zeros((9, 1), np.int32), r"int32\[9, 1\]"),
    (np.zeros(9, np.int64), r"int64\[9\]"),
    (np.zeros(9, np.float32), r"float32\[9\]"),
    ([0] * 9, r"list\[9\]"),
  ],
)
def test_other_messages_are_refused(kind, messages, found):
  synapse, _, _ = sample(kind)
  match = rf"{type(synapse).__name__}: messages are {found}; allowed .*\[9\]"
  with pytest.raises(UserError, match=match):
    synapse.step(synapse.init(), messages)
