"""Attention with its neuron: decoding, padding, bounds, rates by position."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import numpy as jnp

from jaxnmc.errors import ConfigError, FormatError, TokenError
from jaxnmc.spike import attention, sdsa
from jaxnmc.spike.neurons import IF, LIF, run
from jaxnmc.spike.signed import STBIF
from jaxnmc.spike.ssa import SSA, SSAState, attend, init_state
from tests.spike import rules

SEED = st.integers(0, 2**31)
quadratic = jax.jit(attention.quadratic)
jit_attend = jax.jit(attend, static_argnums=0)
jit_gate = jax.jit(sdsa.gate, static_argnums=0)


CONFIGS = {
  "position": SSA(head_size=4, context=12, frac=8),
  "constant": SSA(head_size=4, context=12, frac=8, scaling="constant"),
  "decayed": SSA(head_size=4, context=12, frac=8, scaling="none", decay=2),
  "IF": SSA(head_size=4, context=12, neuron=IF(half=True)),
}
# In units of 2^-frac.
THETA = {"position": 48, "constant": 48, "decayed": 512, "IF": 3}


@pytest.mark.parametrize("name", CONFIGS)
@given(seed=SEED)
def test_decoding_is_prefill(name, seed):
  config = CONFIGS[name]
  theta = THETA[name]
  q, k, v = rules.spikes(seed, 4, 2, 12, 4, rate=0.5)
  whole, end = jit_attend(config, q, k, v, theta)
  assert whole.dtype == jnp.int32
  assert 0 < np.mean(whole) < 1
  state, rows = init_state(config, 4, (2,)), []
  cuts = (0, 1, 2, 3, 8, 12)  # token by token, then in pieces
  for a, b in zip(cuts, cuts[1:]):
    piece = (x[..., a:b, :] for x in (q, k, v))
    out, state = jit_attend(config, *piece, theta, state)
    rows.append(out)
  np.testing.assert_array_equal(np.concatenate(rows, -2), whole)
  np.testing.assert_array_equal(state.memory, end.memory)
  assert int(state.seen) == int(end.seen) == 12


@pytest.mark.parametrize("name", CONFIGS)
def test_floats_give_the_same_spikes(name):
  config = CONFIGS[name]
  q, k, v = rules.spikes(9, 4, 2, 12, 4, rate=0.5)
  spikes, _ = jit_attend(config, q, k, v, THETA[name])
  floats = (x.astype(np.float32) for x in (q, k, v))
  real, _ = jit_attend(config, *floats, THETA[name] / 2**config.frac)
  np.testing.assert_array_equal(real, spikes)


@pytest.mark.parametrize("name", ["position", "decayed"])
def test_no_float_in_integers(name):
  q, k, v = rules.spikes(0, 4, 3, 4)
  state = init_state(CONFIGS[name], 4)
  f = lambda *a: attend(CONFIGS[name], *a)
  for step in (f, functools.partial(sdsa.gate, CONFIGS["position"])):
    memory = sdsa.init_state(CONFIGS["position"], 4) if step is not f else state
    program = str(jax.make_jaxpr(step)(q, k, v, jnp.int32(3), memory))
    assert "i32[" in program
    assert "f32" not in program


def test_thresholds_grow_by_one_adder():
  config = SSA(head_size=2, context=50)
  theta, wanted = 7, []
  for _ in range(50):
    wanted.append(theta + (wanted[-1] if wanted else 0))
  rank = jnp.arange(1, 51)
  np.testing.assert_array_equal(theta * config.units(rank), wanted)
  constant = SSA(head_size=2, context=50, scaling="constant")
  np.testing.assert_array_equal(constant.units(rank[:2]), [8, 8])
  none = SSA(head_size=2, context=50, scaling="none")
  np.testing.assert_array_equal(none.units(rank[:2]), [1, 1])


@given(seed=SEED, power=st.integers(-3, 3))
def test_scaling_the_drive_is_scaling_the_threshold(seed, power):
  rng = np.random.default_rng(seed)
  y = rng.integers(0, 60, (6, 30)).astype(np.float32)
  for neuron in (LIF(), LIF(decay_input=False), IF(half=True)):
    c = np.float32(2.0**power)
    scaled = rules.compiled(neuron, y * c, None, jnp.float32(3))[1]
    plain = rules.compiled(neuron, y, None, jnp.float32(3 / c))[1]
    np.testing.assert_array_equal(scaled, plain)


@pytest.mark.parametrize("name", ["position", "decayed"])
def test_the_x64_flag_changes_nothing(name):
  q, k, v = rules.spikes(4, 4, 6, 4, rate=0.5)
  forms = [functools.partial(jit_attend, CONFIGS[name])]
  if name != "decayed":
    forms.append(functools.partial(jit_gate, CONFIGS[name]))
  for form in forms:
    piece = lambda a, b: (x[:, a:b] for x in (q, k, v))
    results = []
    for wide in (False, True):
      with jax.enable_x64(wide):
        first, state = form(*piece(0, 4), THETA[name])
        last, state = form(*piece(4, 6), THETA[name], state)
        results.append(jax.tree.leaves((first, last, state)))
    for a, b in zip(*results):
      assert a.dtype == b.dtype == jnp.int32
      np.testing.assert_array_equal(a, b)


@functools.cache
def _rates(kind):
  """Mean rate at 64 positions of random spikes: rate 1/4, d = 16, T = 4."""
  rng = np.random.default_rng(0)
  q, k, v = rng.random((3, 4, 96, 64, 16)) < 0.25
  y = np.asarray(quadratic(q, k, v)).astype(np.float32)
  i = np.arange(1, 65)[:, None]
  theta = {
    "position": 0.25 * i,
    "constant": np.full((64, 1), 0.5 * 8),
    "stepwise": 0.5 * 2.0 ** np.floor(np.log2(i)),
  }[kind]
  if kind == "position":
    config = SSA(head_size=16, context=64, frac=6)
    spikes, _ = jit_attend(config, q, k, v, 16)
    real = run(LIF(), y, threshold=theta.astype(np.float32))[1]
    # Four ticks halve four times: six bits are more than enough.
    np.testing.assert_array_equal(real, spikes)
  else:
    spikes = run(LIF(), y, threshold=theta.astype(np.float32))[1]
  return np.mean(spikes, (0, 1, 3))


def _spread(rates):
  return rates.max() / max(rates.min(), 1e-9)


def test_position_scaled_thresholds_are_flat_and_stepwise_ones_are_not():
  assert _spread(_rates("position")) < 3
  assert _spread(_rates("stepwise")) > 30
  assert _spread(_rates("constant")) > 30
  # Down the saw-tooth: the rate jumps up where the power of two does.
  stepwise = _rates("stepwise")
  assert stepwise[62] > 30 * stepwise[63]


def test_contexts_up_to_the_bound():
  # |S| <= N in a word of 8 bits; T N d 2^frac in a potential of 32.
  SSA(head_size=4, context=127, state_bits=8)
  with pytest.raises(FormatError, match="its 8 bits allow 127 tokens"):
    SSA(head_size=4, context=128, state_bits=8)
  SSA(head_size=4, context=10**6, state_bits=8, decay=6)
  with pytest.raises(FormatError, match="32 bits allow 33554431 tokens"):
    SSA(head_size=64, context=2**25)
  config = SSA(head_size=64, context=2**15, frac=6)
  config.check(15)
  with pytest.raises(FormatError, match="in 16 ticks with 6 fraction bits"):
    config.check(16)
  q = np.zeros((16, 1, 64), np.int32)
  with pytest.raises(FormatError, match="in 16 ticks"):
    attend(config, q, q, q, 5)


def test_thresholds_beyond_32_bits_are_never_reached():
  config = SSA(head_size=2, context=4, neuron=IF())
  ones = np.ones((1, 4, 2), np.int32)
  spikes, _ = attend(config, ones, ones, ones, np.int32(2**30))
  assert not np.any(spikes)
  spikes, _ = attend(config, ones, ones, ones, np.int32(2))
  assert np.all(spikes)


def test_more_tokens_than_the_context():
  config = SSA(head_size=2, context=4)
  ones = np.ones((2, 3, 2), np.int32)
  _, state = attend(config, ones, ones, ones, 1)
  two = ones[:, :2]
  with pytest.raises(TokenError, match="5 tokens were given; .* context of 4"):
    attend(config, two, two, two, 1, state)
  attend(config, two[:, :1], two[:, :1], two[:, :1], 1, state)
  attend(config, two, two, two, 1, state, mask=[0, 1])
  with pytest.raises(TokenError, match="6 tokens"):
    sdsa.gate(config, ones, ones, ones, 1, SSAState(state.memory, state.seen))
  five = np.ones((2, 5, 2), np.int32)
  for before in (None, state):
    with pytest.raises(TokenError, match="[58] tokens were given"):
      jit_attend(config, five, five, five, 1, before)
  # Where nobody can know, they send nothing and are not remembered.
  spikes, after = jit_attend(config, ones, ones, ones, 1, state)
  assert np.all(spikes[:, 0])
  assert not np.any(spikes[:, 1:])
  assert int(after.seen) == 4
  assert int(after.memory.max()) == 4


@pytest.mark.parametrize("name", ["position", "decayed"])
def test_padding_is_as_if_it_were_not_there(name):
  config = CONFIGS[name]
  q, k, v = rules.spikes(12, 4, 2, 12, 4, rate=0.6)
  mask = np.array([0, 1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 0])
  forms = [functools.partial(jit_attend, config, theta=THETA[name])]
  if config.decay is None:
    forms.append(functools.partial(jit_gate, config, theta=THETA[name]))
  for form in forms:
    alone = (x[..., mask == 1, :] for x in (q, k, v))
    wanted, end = form(*alone)
    got, state = form(q, k, v, mask=mask)
    np.testing.assert_array_equal(got[..., mask == 1, :], wanted)
    assert not np.any(np.asarray(got)[..., mask == 0, :])
    np.testing.assert_array_equal(state.memory, end.memory)
    assert int(state.seen) == int(end.seen) == 7
    # The same with a state, from which the prefix form goes on.
    first = (x[..., :5, :] for x in (q, k, v))
    last = (x[..., 5:, :] for x in (q, k, v))
    _, state = form(*first, mask=mask[:5])
    rest, state = form(*last, state=state, mask=mask[5:])
    np.testing.assert_array_equal(rest, got[..., 5:, :])
    np.testing.assert_array_equal(state.memory, end.memory)


def test_a_batch_of_different_lengths():
  config = CONFIGS["position"]
  q, k, v = rules.spikes(13, 4, 3, 12, 4, rate=0.6)
  masks = np.arange(12) < np.array([[12], [5], [0]])
  many = jax.vmap(
    lambda q, k, v, mask: attend(config, q, k, v, 48, mask=mask),
    (1, 1, 1, 0),
    (1, SSAState(1, 0)),
  )
  spikes, state = many(q, k, v, masks)
  np.testing.assert_array_equal(state.seen, [12, 5, 0])
  for i, size in enumerate((12, 5)):
    alone = (x[:, i, :size] for x in (q, k, v))
    wanted, _ = jit_attend(config, *alone, 48)
    np.testing.assert_array_equal(spikes[:, i, :size], wanted)
  assert not np.any(spikes[:, 2])


@given(seed=SEED)
def test_gate_by_hand_and_decoded(seed):
  q, k, v = rules.spikes(seed, 3, 9, 4, rate=0.5)
  config = SSA(head_size=4, context=9, neuron=IF())
  got, end = jit_gate(config, q, k, v, 1)
  for c in range(4):
    for i in range(9):
      total, wanted = 0, []
      for t in range(3):
        total += int((k * v)[t, : i + 1, c].sum())
        fired = total >= i + 1
        total -= (i + 1) * fired
        wanted.append(int(q[t, i, c]) * fired)
      assert np.asarray(got)[:, i, c].tolist() == wanted
  state, rows = sdsa.init_state(config, 3), []
  for i in range(9):
    piece = (x[:, i : i + 1] for x in (q, k, v))
    out, state = jit_gate(config, *piece, 1, state)
    rows.append(out)
  np.testing.assert_array_equal(np.concatenate(rows, 1), got)
  np.testing.assert_array_equal(state.memory, end.memory)


def test_gate_of_all_tokens():
  q, k, v = rules.spikes(14, 3, 9, 4, rate=0.6)
  config = SSA(head_size=4, context=9, neuron=IF(), causal=False)
  got, state = sdsa.gate(config, q, k, v, 1)
  assert state is None
  # One gate per channel, at nine times the threshold.
  total = (k * v).sum(1)
  _, gates = run(IF(), total, threshold=9)
  np.testing.assert_array_equal(got, q * np.asarray(gates)[:, None])
  assert 0 < np.mean(gates) < 1


def test_gradients_reach_spikes_and_threshold():
  config = SSA(head_size=4, context=12)
  q, k, v = (x.astype(np.float32) for x in rules.spikes(3, 4, 12, 4, rate=0.5))
  loss = lambda q, k, v, theta: attend(config, q, k, v, theta)[0].sum()
  grads = jax.grad(loss, (0, 1, 2, 3))(q, k, v, 0.5)
  for g in grads:
    assert np.isfinite(g).all()
    assert np.any(g != 0)
  assert float(grads[3]) < 0  # a higher threshold, fewer spikes


z = np.zeros((2, 3, 4), np.int32)
small = SSA(head_size=4, context=8)
everyone = SSA(head_size=4, context=8, causal=False)


@pytest.mark.parametrize(
  ("do", "words"),
  [
    (lambda: SSA(head_size=0, context=4), "head_size is 0"),
    (lambda: SSA(head_size=4, context=0), "context is 0"),
    (lambda: SSA(head_size=4, context=4, scaling="sqrt"), "scaling is 'sqrt'"),
    (lambda: SSA(head_size=4, context=4, scale=0.3), "scale is 0.3"),
    (lambda: SSA(head_size=4, context=4, scale=2.0), "scale is 2.0"),
    (lambda: SSA(head_size=4, context=4, scale=2.0**-31), "scale is 4.6"),
    (
      lambda: SSA(
        head_size=4, context=4, neuron=IF(reset="hard", v_reset=-1.0)
      ),
      "v_reset is -1.0; allowed is 0",
    ),
    (lambda: SSA(head_size=4, context=4, decay=0), "decay is 0"),
    (lambda: SSA(head_size=4, context=4, state_bits=33), "state_bits is 33"),
    (lambda: SSA(head_size=4, context=4, frac=-1), "frac is -1"),
    (
      lambda: SSA(head_size=4, context=4, decay=2, causal=False),
      "decay is set with causal=False",
    ),
    (lambda: attend(small, z, z[:1], z, 1), r"k, v are \[2, 3, 4\], \[1, 3, 4"),
    (lambda: attend(small, z[..., :2], z[..., :2], z[..., :2], 1), "N, 4"),
    (lambda: attend(small, z, z, z, 0), "threshold is 0"),
    (lambda: attend(small, z, z, z, 0.5), "give whole thresholds"),
    (lambda: attend(small, z[:0], z[:0], z[:0], 1), "ticks is 0"),
    (lambda: init_state(small, 0), "ticks is 0"),
    (
      lambda: attend(small, z, z, z, 1, init_state(small, 3)),
      r"memory is int32\[3, 4, 4\]; these spikes need int32\[2, 4, 4\]",
    ),
    (
      lambda: attend(everyone, z, z, z, 1, init_state(small, 2)),
      "a state was given with causal=False",
    ),
    (lambda: sdsa.gate(small, z, z, z[:1], 1), "shapes of q, k, v"),
    (
      lambda: attend(small, z, z, z, 1, mask=np.ones(4)),
      r"shape of mask is \[4\]; allowed is \[3\]",
    ),
    (lambda: attend(small, z, z - 2, z, 1), "k holds -2; allowed are spikes"),
    (lambda: sdsa.gate(small, z, z, z + 3, 1), "v holds 3"),
    (
      lambda: SSA(head_size=4, context=8, neuron=STBIF(low=0, high=3)),
      "allowed are an IF or a LIF",
    ),
    (
      lambda: sdsa.gate(small, z, z, z, 1, sdsa.init_state(small, 3)),
      r"memory is int32\[3, 4\]; these spikes need int32\[2, 4\]",
    ),
    (
      lambda: sdsa.gate(SSA(head_size=4, context=4, decay=2), z, z, z, 1),
      "SDSA: decay is 2",
    ),
    (
      lambda: sdsa.gate(everyone, z, z, z, 1, sdsa.init_state(everyone, 2)),
      "a state was given with causal=False",
    ),
  ],
)
def test_refused(do, words):
  with pytest.raises(ConfigError, match=words):
    do()
