"""Memories of sums: windows against the recurrence, states, bounds, wholes."""

import functools

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st
from jax import numpy as jnp

import jaxnmc as nmc
from jaxnmc.errors import FormatError, PlanError, TokenError
from jaxnmc.numerics.formats import Format, symmetric_limit
from jaxnmc.numerics.fx import Fx
from jaxnmc.ops.alu import IntAlu
from jaxnmc.ops.quantized import Quantized
from jaxnmc.ops.reference import Reference
from jaxnmc.ops.stores import IntStore
from jaxnmc.quantize import presets

HEADS, D, T, BATCH = 2, 3, 7, 2
WIDTH = HEADS * D
WINDOWS = ((2, None), (6, 1))
PLAN = nmc.quantize.Plan("by hand", {"mem": Format(4, 0)}, {}, {}, None, 1e-3)
CUTS = ((7,), (3, 4))


# --- windows, cuts and padding


def by_recurrence(q, k, v, windows, mask):
  """Python integers of one sequence: (y, S, k and v of 1, 2, ... tokens ago).

  S_i = S_(i-1) + k_i v_i - k_(i-w) v_(i-w), where padding is no token.
  """
  tokens, rows = [], []
  sums = [[[0] * D for _ in range(D)] for _ in range(HEADS)]
  for t in range(T):
    if mask[t]:
      tokens.append(t)
      for h, window in enumerate(windows):
        leaves = None
        if window is not None and len(tokens) > window:
          leaves = tokens[-1 - window]
        for a in range(D):
          for b in range(D):
            i, j = h * D + a, h * D + b
            sums[h][a][b] += int(k[t, i]) * int(v[t, j])
            if leaves is not None:
              sums[h][a][b] -= int(k[leaves, i]) * int(v[leaves, j])
    rows.append(
      [
        sum(int(q[t, h * D + a]) * sums[h][a][b] for a in range(D))
        for h in range(HEADS)
        for b in range(D)
      ]
    )
  widest = max(w or 0 for w in windows)
  ages = [
    tokens[-1 - age] if age < len(tokens) else None for age in range(widest)
  ]
  past = [
    [[0] * WIDTH if t is None else x[t].tolist() for t in ages] for x in (k, v)
  ]
  return rows, np.array(sums).reshape(-1).tolist(), past


@functools.cache
def recaller(kind, windows):
  """One call of `ops.memory`, jitted: (q, k, v, mask, state) -> (y, state)."""

  @jax.jit
  def real(q, k, v, mask, state):
    ops = Reference()
    q, k, v = (x.astype(jnp.float32) for x in (q, k, v))
    return ops.memory("mem", state, q, k, v, HEADS, T, windows, mask)

  @jax.jit
  def whole(q, k, v, mask, state):
    ops = Quantized(PLAN, IntAlu(), IntStore())
    q, k, v = (
      Fx(x, frac=0, low=-1, high=1, site=n) for n, x in zip("qkv", (q, k, v))
    )
    return ops.memory("mem", state, q, k, v, HEADS, T, windows, mask)

  return {"reference": real, "fixed": whole}[kind]


codes = lambda x: np.asarray(x.q if isinstance(x, Fx) else x)


@pytest.mark.parametrize("kind", ["reference", "fixed"])
@hypothesis.given(
  seed=st.integers(0, 2**31),
  windows=st.sampled_from(WINDOWS),
  cuts=st.sampled_from(CUTS),
  padding=st.sampled_from([None, 0.3, 0.8]),
)
def test_windows_are_the_recurrence(kind, seed, windows, cuts, padding):
  """Tokens cut into calls anywhere, padding anywhere, two of a batch apart."""
  draw = np.random.default_rng(seed)
  q, k, v = draw.integers(-1, 2, (3, T, BATCH, WIDTH)).astype(np.int32)
  mask = None
  if padding is not None:
    mask = (draw.random((T, BATCH)) >= padding).astype(np.int32)
    k = k * mask[..., None]
  run, state, at, rows = recaller(kind, windows), None, 0, []
  for size in cuts:
    piece = slice(at, at + size)
    part = None if mask is None else mask[piece]
    y, state = run(q[piece], k[piece], v[piece], part, state)
    rows.append(codes(y))
    at += size
  found = np.concatenate(rows)
  real = np.ones((T, BATCH), int) if mask is None else mask
  for b in range(BATCH):
    one = (x[:, b] for x in (q, k, v))
    want, sums, past = by_recurrence(*one, windows, real[:, b])
    np.testing.assert_array_equal(found[:, b], want)
    np.testing.assert_array_equal(codes(state["sums"])[b], sums)
    for mine, wanted in zip(state["past"], past, strict=True):
      ages = [codes(x)[b] for x in mine]
      np.testing.assert_array_equal(ages, wanted)


# --- states and bounds


def spikes(shape, **facts):
  return Fx(
    jnp.ones(shape, jnp.int32),
    **{"frac": 0, "low": -1, "high": 1, "site": "s", **facts},
  )


def call(
  state=None, windows=None, plan=PLAN, shape=(2, WIDTH), size=T, **facts
):
  """A memory of spikes, in integers."""
  x = spikes(shape, **facts)
  ops = Quantized(plan, IntAlu(), IntStore())
  return ops.memory("mem", state, x, x, x, HEADS, size, windows)


def test_states_of_another_model_are_refused():
  zeros = lambda *shape: jnp.zeros(shape, jnp.float32)
  real = lambda state, windows=None: Reference().memory(
    *("mem", state, *[zeros(2, WIDTH)] * 3, HEADS, T, windows)
  )
  with pytest.raises(PlanError, match=r"mem: .*shape \[9\], .*\[18\].*another"):
    real(zeros(9))
  with pytest.raises(PlanError, match="mem: .*shape None, .*another model"):
    real({"sums": zeros(18)})
  ages = lambda count, n=WIDTH: [[zeros(n)] * count for _ in "kv"]
  good = {"sums": zeros(18), "past": ages(2)}
  real(good, (2, None))
  for bad in (
    zeros(18),
    {"sums": zeros(18)},
    {**good, "past": ages(3)},
    {**good, "past": ages(2, WIDTH + 1)},
    {**good, "past": ages(2)[:1]},
  ):
    with pytest.raises(PlanError, match=r"mem: .* last 2 tokens, \[6\] each"):
      real(bad, (2, None))
  with pytest.raises(PlanError, match=r"mem: .*shape \[9\], .*\[18\]"):
    real({**good, "sums": zeros(9)}, (2, None))


@pytest.mark.parametrize("windows", [None, (2, None)])
def test_states_of_another_plan_or_batch_are_refused(windows):
  _, state = call(windows=windows)
  call(state, windows)
  wide = PLAN.with_formats({"mem": Format(5, 0)})
  with pytest.raises(PlanError, match="mem: .*was made under another plan"):
    call(state, windows, wide)
  with pytest.raises(PlanError, match="mem: .*another model or batch"):
    call(state, windows, shape=(2, 5, WIDTH))
  floats = jax.tree.map(np.float32, state)
  floats = jax.tree.map(
    lambda x: x.q, floats, is_leaf=lambda x: isinstance(x, Fx)
  )
  with pytest.raises(PlanError, match="mem: expected a fixed-point state"):
    call(floats, windows)


def test_states_of_other_windows_or_spikes_are_refused():
  _, state = call(windows=(2, None))
  with pytest.raises(PlanError, match="mem: .*last 3 tokens"):
    call(state, (3, None))
  one_sided = {**state, "past": call(windows=(2, None), low=0)[1]["past"]}
  with pytest.raises(PlanError, match="mem: .*was made under another plan"):
    call(one_sided, (2, None))
  floats = {**state, "past": [[x.q for x in ages] for ages in state["past"]]}
  with pytest.raises(PlanError, match="mem: expected a fixed-point state"):
    call(floats, (2, None))


@pytest.mark.parametrize("windows", [None, (2, None)])
def test_bounds_are_refused_beforehand(windows):
  y, _ = call(windows=windows)
  assert (y.low, y.high) == (-T * D, T * D)
  with pytest.raises(FormatError, match="mem: 8 tokens may fill .* to 8"):
    call(windows=windows, size=T + 1)
  fine = PLAN.with_formats({"mem": Format(16, 3)})
  with pytest.raises(FormatError, match="mem: 7 tokens .* whole numbers"):
    call(windows=windows, plan=fine)
  for facts in ({"high": 2}, {"low": -2}, {"frac": 1}):
    with pytest.raises(FormatError, match="mem: a memory takes spikes"):
      call(windows=windows, **facts)
  # A head of 256 features and the most tokens just fill an accumulator.
  wide = PLAN.with_formats({"mem": Format(24, 0)})
  most = 2**23 - 1
  shaped = lambda d: jax.eval_shape(
    lambda: call(windows=windows, plan=wide, shape=(2, HEADS * d), size=most)[0]
  )
  assert shaped(256).high == most * 256 < 2**31
  with pytest.raises(FormatError, match=f"mem.* {most * 257}"):
    shaped(257)


@pytest.mark.parametrize("windows", [None, (2, None)])
def test_more_tokens_than_the_bound_are_refused(windows):
  """Known to be too many: without padding, in one call."""
  call(windows=windows, shape=(T, WIDTH))
  with pytest.raises(TokenError, match=f"mem: {T + 1} tokens .* {T}"):
    call(windows=windows, shape=(T + 1, WIDTH))
  x = jnp.ones((T + 1, WIDTH))
  with pytest.raises(TokenError, match=f"mem: {T + 1} tokens .* {T}"):
    Reference().memory("mem", None, x, x, x, HEADS, T, windows)
  mask = jnp.arange(T + 1) > 0
  y, _ = Reference().memory(
    "mem", None, x, x * mask[:, None], x, HEADS, T, windows, mask
  )
  assert y[-1].max() == T * D


# --- whole numbers


FEATURES = 200


@functools.cache
def counted(preset):
  """How many features of a token are above 0, by a plan of a few of them."""

  def fn(ops, params, inputs, state=None):
    x = ops.embed("embed", params["embed"], inputs["ids"])
    total = ops.sum(ops.compare(x, ops.zeros(x)))
    with ops.layer(0):
      return ops.site("total", total, whole=FEATURES), state

  draw = np.random.default_rng(0)
  size = draw.uniform(0.5, 1, (FEATURES + 1, FEATURES))
  sign = np.where(np.arange(FEATURES) < np.arange(FEATURES + 1)[:, None], 1, -1)
  params = {"embed": np.float32(sign * size)}
  # Three is the most that calibration sees.
  stats = nmc.calibrate(fn)(params, [np.arange(4, dtype=np.int32)])
  plan = nmc.plan(stats, presets.BY_NAME[preset])
  return plan, jax.jit(nmc.fake_quant(fn, plan)), params


@pytest.mark.parametrize("preset", presets.BY_NAME)
def test_whole_numbers_stay_exact_under_every_preset(preset):
  plan, run, params = counted(preset)
  ids = np.arange(FEATURES + 1, dtype=np.int32)
  out, _ = run(params, {"ids": ids})
  found = out.to_float() if isinstance(out, Fx) else out
  np.testing.assert_array_equal(np.asarray(found)[:, 0], ids)
  if preset in ("W8A8", "W8A16"):
    assert plan.format("layers.0.total") == Format(9, 0)


@pytest.mark.parametrize("most", [1, 2, 127, 128, 32639, 32640, 32767, 32768])
def test_whole_numbers_have_the_bits_they_need(most):
  """Sixteen bits hold less than 2^15 - 1."""

  def fn(ops, params, inputs, state=None):
    x = ops.embed("embed", params["embed"], inputs["ids"])
    return ops.site("total", ops.compare(x, x), whole=most), state

  params, ids = {"embed": np.ones((1, 1), np.float32)}, np.zeros(1, np.int32)
  plan = nmc.plan(nmc.calibrate(fn)(params, [ids]), nmc.quantize.W8A8)
  fmt = plan.format("total")
  assert fmt.frac == 0
  assert fmt.high >= most
  assert fmt.bits == 2 or symmetric_limit(fmt.bits - 1) < most
