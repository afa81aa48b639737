"""Neurons in integers against Python's, in floats against the integers."""

import math

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import numpy as jnp

from jaxnmc.chip import neurons as on_chip
from jaxnmc.errors import ConfigError, FormatError
from jaxnmc.spike.cuba import CubaLIF, CubaState
from jaxnmc.spike.delayed import DelayedLIF
from jaxnmc.spike.neurons import IF, LIF, State, constant, run, trace
from jaxnmc.spike.signed import STBIF
from jaxnmc.spike.surrogates import surrogate
from tests.spike import rules

N = 40
WIDE = 1 << 30


def _drives(seed, ticks=9, most=50):
  rng = np.random.default_rng(seed)
  x = rng.integers(-most, most + 1, (ticks, N)).astype(np.int32)
  return x, rng.integers(1, most, N).astype(np.int32), rng


SEED = st.integers(0, 2**31)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(("reset", "rest"), [("soft", 0), ("hard", -3)])
@given(seed=SEED)
def test_if_in_integers(reset, rest, strict, seed):
  x, theta, rng = _drives(seed)
  start = rng.integers(-60, 60, N).astype(np.int32)
  neuron = IF(reset=reset, v_reset=rest, strict=strict)
  _, spikes, states = rules.compiled(
    neuron, x, State(jnp.asarray(start)), theta, charge=WIDE
  )
  rule = lambda x, th, v: rules.integrate(x, th, v, reset, rest, strict)
  wanted = rules.columns(rule, x, theta.tolist(), start.tolist())
  np.testing.assert_array_equal(spikes, wanted[0])
  np.testing.assert_array_equal(states.v, wanted[1])
  assert spikes.dtype == states.v.dtype == jnp.int32


# tau 3: 4096 / 3 is no whole number, and the leak is cut toward zero.
@pytest.mark.parametrize("tau", [1.0, 2.0, 3.0, 64.0])
@pytest.mark.parametrize("decay_input", [False, True])
@given(seed=SEED)
def test_lif_in_integers(tau, decay_input, seed):
  x, theta, rng = _drives(seed, most=20_000)
  reset, rest = ("hard", 7) if seed % 2 else ("soft", 0)
  neuron = LIF(tau=tau, decay_input=decay_input, reset=reset, v_reset=rest)
  start = rng.integers(-60_000, 60_000, N).astype(np.int32)
  _, spikes, states = rules.compiled(
    neuron, x, State(jnp.asarray(start)), theta, charge=WIDE
  )
  d = round(4096 / tau)
  rule = lambda x, th, v: rules.leak(x, th, v, d, decay_input, reset, rest)
  wanted = rules.columns(rule, x, theta.tolist(), start.tolist())
  np.testing.assert_array_equal(spikes, wanted[0])
  np.testing.assert_array_equal(states.v, wanted[1])


@given(seed=SEED)
def test_cuba_in_integers(seed):
  x, theta, _ = _drives(seed, most=4000)
  theta = theta * 1024
  neuron = CubaLIF(du=1025, dv=129)
  _, spikes, states = rules.compiled(neuron, x, None, theta, charge=10**6)
  rule = lambda x, th: rules.cuba(x, th, 1025, 129)
  wanted = rules.columns(rule, x, theta.tolist())
  for got, want in zip((spikes, states.u, states.v), wanted):
    np.testing.assert_array_equal(got, want)


def test_cuba_in_floats_cuts_nothing():
  # Decays of 1/2 and 1/4, exact in float32 for a few ticks.
  x, _, _ = _drives(10, ticks=6, most=4)
  neuron = CubaLIF(du=2048, dv=1024, threshold=200.0)
  _, spikes, states = trace(neuron, x.astype(np.float32))
  u, v = np.zeros(N), np.zeros(N)
  for t, row in enumerate(x):
    u = u / 2 + 64 * row
    v = 0.75 * v + u
    fired = v >= 200
    v = np.where(fired, 0, v)
    np.testing.assert_array_equal(spikes[t], fired)
    np.testing.assert_array_equal(states.u[t], u)
    np.testing.assert_array_equal(states.v[t], v)
  assert 0 < np.mean(spikes) < 1


def test_cut_toward_zero_is_not_the_floor():
  neuron = LIF(tau=2.0, decay_input=False)
  state, _ = neuron.step(State(jnp.int32(-3)), jnp.int32(0))
  assert int(state.v) == -1
  assert -3 >> 1 == -2
  cuba = CubaLIF(du=2048, dv=4096)
  state, _ = cuba.step(CubaState(jnp.int32(-3), jnp.int32(0)), jnp.int32(0))
  assert int(state.u) == -1


@pytest.mark.parametrize("tau", [2.0, 5.0])
def test_the_chips_neuron_has_the_same_integers(tau):
  x, _, _ = _drives(3, ticks=40)
  d = round(4096 / tau)
  chip = on_chip.LIF(du=4095, dv=d, vth=30)
  ours = LIF(tau=tau, decay_input=False, reset="hard", strict=True)
  state, wanted = chip.init(N), []
  for row in x:
    state, s = chip.step(state, (jnp.asarray(row),))
    wanted.append(s)
  _, spikes = run(ours, x << 6, threshold=30 << 6)
  np.testing.assert_array_equal(spikes, wanted)
  assert 0.05 < np.mean(wanted) < 0.95


@pytest.mark.parametrize("decay_input", [False, True])
@pytest.mark.parametrize("reset", ["soft", "hard"])
def test_integers_are_the_floats_with_enough_fraction_bits(decay_input, reset):
  # A tick with tau = 2 needs one more bit; 9 ticks need 9.
  x, theta, _ = _drives(11)
  neuron = LIF(decay_input=decay_input, reset=reset)
  _, exact, states = trace(neuron, x.astype(np.float32), None, theta)
  _, spikes, codes = trace(neuron, x << 9, None, theta << 9)
  np.testing.assert_array_equal(spikes, exact)
  np.testing.assert_array_equal(codes.v / 512, states.v)
  assert 0 < np.mean(exact) < 1


INTEGER = [
  IF(half=True),
  LIF(),
  LIF(tau=3.0, decay_input=False, reset="hard"),
  STBIF(low=-3, high=4),
  CubaLIF(du=100, dv=7),
]


@pytest.mark.parametrize("neuron", INTEGER, ids=lambda n: type(n).__name__)
def test_the_x64_flag_changes_nothing(neuron):
  x, theta, _ = _drives(1)
  results = []
  for wide in (False, True):
    with jax.enable_x64(wide):
      results.append(jax.tree.leaves(trace(neuron, x, None, theta)))
  for a, b in zip(*results):
    assert a.dtype == b.dtype == jnp.int32
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("neuron", INTEGER, ids=lambda n: type(n).__name__)
def test_no_float_in_integers(neuron):
  x = jnp.ones((3, 2), jnp.int32)
  f = lambda x: trace(neuron, x, None, jnp.int32(5), charge=1000)
  program = str(jax.make_jaxpr(f)(x))
  assert "i32[3,2]" in program
  assert "f32" not in program
  assert "f64" not in program


def test_beta_form():
  x, _, _ = _drives(2)
  x = x.astype(np.float32) / 16
  _, _, states = trace(LIF.of_beta(0.75), x)
  v, wanted = np.zeros(N), []
  for row in x:
    v = 0.75 * v + row
    v = v - (v >= 1)
    wanted.append(v)
  np.testing.assert_array_equal(states.v, wanted)


def test_half_starts_between_silence_and_a_spike():
  assert float(IF(half=True).init((), threshold=3.0).v) == 1.5
  assert int(IF(half=True).init((), jnp.int32, 5).v) == 2
  hard = IF(half=True, reset="hard", v_reset=-1.0)
  assert float(hard.init((), threshold=4.0).v) == 1.0


@given(seed=SEED)
def test_charge_is_conserved(seed):
  # theta N + v(T) = v0 + sum x, whatever the drive.
  x, theta, rng = _drives(seed)
  start = rng.integers(-60, 60, N).astype(np.int32)
  state, spikes, _ = rules.compiled(
    IF(), x, State(jnp.asarray(start)), theta, charge=WIDE
  )
  left = theta * np.asarray(spikes).sum(0) + np.asarray(state.v)
  np.testing.assert_array_equal(left, start + x.sum(0))


def test_ties_fire_only_where_equality_does():
  x = jnp.full((2, 1), 0.5)
  _, spikes = run(IF(), x)
  np.testing.assert_array_equal(spikes[:, 0], [0, 1])
  _, spikes = run(IF(strict=True), x)
  np.testing.assert_array_equal(spikes[:, 0], [0, 0])


def test_a_run_goes_on_from_a_state():
  x, theta, _ = _drives(5, ticks=10)
  for neuron in (IF(half=True), LIF(tau=3.0), STBIF(low=-2, high=3)):
    whole, spikes = run(neuron, x, None, theta)
    state, first = run(neuron, x[:4], None, theta)
    state, last = run(neuron, x[4:], state, theta)
    np.testing.assert_array_equal(np.concatenate([first, last]), spikes)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(whole)):
      np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("beta", [0.5, 1.0])
@pytest.mark.parametrize("delay", [False, True])
@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_delayed_by_hand(reset, delay, beta):
  # On multiples of 1/8, where ties are, and exact.
  x = np.random.default_rng(6).integers(-8, 17, (7, N)) / 8
  neuron = DelayedLIF(beta=beta, reset=reset, delay=delay)
  _, spikes, states = trace(neuron, x.astype(np.float32))
  for i in range(N):
    v, wanted = 0.0, []
    for drive in x[:, i]:
      before = v > 1
      if reset == "subtract":
        h = beta * v + drive - before
      else:
        h = beta * (0 if before else v) + drive
      s = h > 1
      if not delay:
        h -= (int(s) - int(before)) * (1 if reset == "subtract" else h)
      v = h
      wanted.append((s, v))
    fired, potentials = zip(*wanted)
    np.testing.assert_array_equal(spikes[:, i], fired)
    np.testing.assert_array_equal(states.v[:, i], potentials)


def test_no_gradient_through_a_delayed_reset():
  for reset, wanted in (("subtract", 0.5), ("zero", 0.0)):
    neuron = DelayedLIF(beta=0.5, reset=reset)
    slope = jax.grad(lambda v, n=neuron: n.step(State(v), 0 * v)[0].v)
    assert float(slope(1.5)) == wanted


SMOOTH = surrogate("sigmoid", k=3, smooth=True)


@pytest.mark.parametrize(
  "neuron",
  [
    IF(surrogate=SMOOTH, detach=False),
    IF(surrogate=SMOOTH, detach=False, reset="hard", v_reset=-0.5),
    LIF(surrogate=SMOOTH, detach=False),
    LIF(surrogate=SMOOTH, detach=False, decay_input=False, reset="hard"),
    CubaLIF(surrogate=SMOOTH, detach=False, du=500, dv=900, threshold=40.0),
  ],
  ids=["IF", "IF hard", "LIF", "LIF hard", "CubaLIF"],
)
def test_backpropagation_is_a_true_gradient_of_the_smooth_neuron(neuron):
  # Finite differences in x and in the threshold, of a neuron that is smooth.
  with jax.enable_x64(True):
    rng = np.random.default_rng(7)
    x = jnp.asarray(rng.normal(0.4, 0.6, (5, 3)))
    weights = jnp.asarray(rng.normal(size=(5, 3)))
    theta = jnp.full(3, float(neuron.threshold))

    @jax.jit
    def loss(x, theta):
      _, s = run(neuron, x, None, theta)
      return (s * weights).sum()

    dx, dtheta = jax.grad(loss, (0, 1))(x, theta)
    step = 1e-6
    for at in ((0, 0), (2, 1), (4, 2)):
      rise = loss(x.at[at].add(step), theta) - loss(x.at[at].add(-step), theta)
      assert float(rise / (2 * step)) == pytest.approx(float(dx[at]), rel=1e-6)
    rise = loss(x, theta.at[1].add(step)) - loss(x, theta.at[1].add(-step))
    assert float(rise / (2 * step)) == pytest.approx(float(dtheta[1]), rel=1e-6)
    assert np.abs(dx).min() > 0


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("reset", ["soft", "hard"])
def test_backpropagation_by_hand(reset, detach):
  # The recursion of the equations, run backwards by a plain loop.
  neuron = LIF(reset=reset, v_reset=0.25 * (reset == "hard"), detach=detach)
  rng = np.random.default_rng(4)
  x = rng.normal(0.8, 1.0, (6, 20)).astype(np.float32)
  upstream = rng.normal(size=(6, 20)).astype(np.float32)
  loss = lambda x: (run(neuron, x)[1] * upstream).sum()
  got = jax.grad(loss)(jnp.asarray(x))
  rest = neuron.v_reset
  v, hs = np.full(20, rest), []
  for row in x:
    h = v + (row - (v - rest)) / 2
    hs.append(h)
    s = h >= 1
    v = h - s if reset == "soft" else np.where(s, rest, h)
  gv, wanted = np.zeros(20), []
  for h, g in zip(hs[::-1], upstream[::-1]):
    s = h >= 1
    dh = gv if reset == "soft" else gv * (1 - s)
    through = -1.0 if reset == "soft" else rest - h
    gs = g + (0 if detach else through * gv)
    gh = dh + gs / (1 + (math.pi * (h - 1)) ** 2)
    wanted.append(gh / 2)
    gv = gh / 2
  np.testing.assert_allclose(got, wanted[::-1], 1e-4, 1e-6)


def test_unit_changes_the_gradient_as_a_normalised_drive_would():
  x = jnp.linspace(-3.0, 9.0, 12).reshape(4, 3)
  unit = jnp.asarray([1.0, 2.0, 4.0])
  scaled = lambda x: run(LIF(), x, None, unit, unit=unit)[1]
  normal = lambda x: run(LIF(), x / unit)[1]
  np.testing.assert_array_equal(scaled(x), normal(x))
  for a, b in zip(
    jax.grad(lambda x: scaled(x).sum())(x),
    jax.grad(lambda x: normal(x).sum())(x),
  ):
    np.testing.assert_allclose(a, b, 1e-6)


def test_signed_in_floats_is_signed_in_integers():
  x, theta, _ = _drives(8, ticks=20)
  neuron = STBIF(low=-3, high=2)
  theta = theta * 2
  state, spikes, _ = trace(neuron, x, None, theta)
  float_state, float_spikes, _ = trace(
    neuron, x.astype(np.float32), None, theta
  )
  np.testing.assert_array_equal(spikes, float_spikes)
  np.testing.assert_array_equal(state.v, float_state.v)
  assert set(np.unique(spikes)) == {-1, 0, 1}
  assert jax.grad(lambda x: run(neuron, x)[1].sum())(x / 7.0).any()


def test_counts_of_a_quantiser():
  bounds = lambda *a: (STBIF.levels(*a).low, STBIF.levels(*a).high)
  assert bounds(16) == (0, 15)
  assert bounds(5) == (0, 4)
  assert bounds(16, True) == (-8, 7)
  assert bounds(2, True) == (-1, 0)
  assert STBIF.levels(16, True).settle == 15


ones = jnp.ones((2, 3))
whole = jnp.ones((2, 3), jnp.int32)


@pytest.mark.parametrize(
  ("do", "words"),
  [
    (lambda: IF(threshold=0), "IF: threshold is 0"),
    (lambda: LIF(threshold=-1.0), "LIF: threshold is -1.0"),
    (lambda: STBIF(low=0, high=3, threshold=math.inf), "threshold is inf"),
    (lambda: CubaLIF(du=0, dv=0, threshold=math.nan), "threshold is nan"),
    (lambda: DelayedLIF(beta=0.5, threshold=0), "threshold is 0"),
    (lambda: run(IF(), ones, threshold=-2.0), "threshold is -2.0"),
    (lambda: run(IF(), ones, threshold=np.array([1, 0, 1])), "threshold is 0"),
    (lambda: run(IF(), whole, threshold=0.5), "give whole thresholds"),
    (lambda: run(IF(), whole, threshold=2.0**31), "thresholds below 2.31"),
    (lambda: run(IF(threshold=1.5), whole), "is int32, the threshold 1.5"),
    (lambda: run(IF(), ones[:0]), "ticks is 0"),
    (lambda: run(IF(), jnp.float32(1)), "ticks is 0"),
    (lambda: constant(ones, 0), "ticks is 0; allowed are whole numbers from 1"),
    (lambda: constant(ones, 2.5), "ticks is 2.5"),
    (lambda: run(IF(), ones > 0), "the drive is bool"),
    (lambda: run(IF(), np.ones(2, np.uint32)), "the drive is uint32"),
    (lambda: IF(reset="zero"), "reset is 'zero'"),
    (lambda: IF(v_reset=1.0), "v_reset is 1.0 with reset='soft'"),
    (lambda: IF(reset="hard", v_reset=math.inf), "v_reset is inf"),
    (
      lambda: run(IF(reset="hard", v_reset=0.5), whole, threshold=2),
      "v_reset is 0.5, the potentials are int32",
    ),
    (lambda: LIF(tau=0.5), "tau is 0.5"),
    (lambda: LIF(tau=math.inf), "tau is inf"),
    (lambda: LIF.of_beta(1.0), "beta is 1.0"),
    (lambda: STBIF(low=1, high=2), "counts are 1 to 2"),
    (lambda: STBIF(low=0, high=0), "counts are 0 to 0"),
    (lambda: STBIF(low=-0.5, high=2), "low is -0.5"),
    (lambda: STBIF(low=0, high=2.0), "high is 2.0"),
    (lambda: STBIF.levels(3, symmetric=True), "level is 3; allowed are even"),
    (lambda: STBIF.levels(1), "level is 1; allowed are whole numbers from 2"),
    (lambda: STBIF.levels(2.5), "level is 2.5"),
    (lambda: CubaLIF(du=4097, dv=0), "du is 4097; .* from 0 to 4096"),
    (lambda: CubaLIF(du=0, dv=True), "dv is True"),
    (lambda: DelayedLIF(beta=1.5), "beta is 1.5"),
    (lambda: DelayedLIF(beta=0.5, reset="hard"), "reset is 'hard'"),
    (lambda: run(DelayedLIF(beta=0.5), whole), "the drive is int32"),
    (
      lambda: jax.jit(lambda x: run(IF(), x))(whole),
      "integer drives are traced and nothing bounds them",
    ),
  ],
)
def test_refused(do, words):
  with pytest.raises(ConfigError, match=words):
    do()


def test_refuses_drives_that_could_leave_32_bits():
  x = np.full((4, 2), 2**29, np.int32)
  run(IF(threshold=4), x[:3])
  jax.jit(lambda x: run(IF(), x, charge=2**31 - 1))(whole)
  run(IF(), whole, threshold=2**31 - 1)
  with pytest.raises(FormatError, match="4 ticks can charge .* to 2147483648"):
    run(IF(threshold=4), x)
  with pytest.raises(FormatError, match="5 ticks can charge"):
    jax.jit(lambda x: run(IF(), x, charge=2**31))(whole[:1].repeat(5, 0))
  # A state that is near the end counts, too.
  full = State(jnp.full(2, 2**31 - 2, jnp.int32))
  with pytest.raises(FormatError, match="2147483649"):
    run(IF(), np.full((3, 2), 1, np.int32), full)
  # A current is added to the potential for as long as it lasts.
  run(CubaLIF(du=4096, dv=0), np.full((3, 1), 2**22, np.int32))
  with pytest.raises(FormatError, match=f"to {64 * 3 * 3 * 2**22},"):
    run(CubaLIF(du=0, dv=0), np.full((3, 1), 2**22, np.int32))
