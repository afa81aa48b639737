"""Spiking transformers: attention as defined, decoding, integers, gradients."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest
from jax import numpy as jnp

import jaxnmc as nmc
from jaxnmc.errors import ConfigError, PlanError, TokenError
from jaxnmc.models import gpt, spiking
from jaxnmc.numerics.fx import codes
from jaxnmc.ops.reference import Reference
from jaxnmc.spike import qcfs, surrogates
from jaxnmc.spike.neurons import IF, LIF, run
from jaxnmc.spike.signed import STBIF
from jaxnmc.spike.ssa import SSA
from jaxnmc.spike.ssa import attend as attend_arrays

SIZES = {
  "vocab_size": 11,
  "hidden_size": 12,
  "num_layers": 1,
  "num_heads": 3,
  "intermediate_size": 10,
  "max_position_embeddings": 9,
  "attention": "ssa",
  "ticks": 2,
  "norm_eps": 1e-3,
}
GPT2 = {
  "norm": "layer",
  "mlp": "gelu_tanh",
  "mlp_ticks": 4,
  "positions": "learned",
  "bias": True,
  "tie_word_embeddings": False,
}
CONFIGS = {
  "llama": gpt.Config(**{**SIZES, "positions": "none"}),
  "llama if": gpt.Config(
    **SIZES, neuron="if", signed=True, mlp_ticks=3, tie_word_embeddings=False
  ),
  "gpt2": gpt.Config(**{**SIZES, "num_layers": 2}, **GPT2),
  "windows": gpt.Config(
    **SIZES, **{**GPT2, "signed": True}, windows=(2, None, 4)
  ),
}
IDS = np.random.default_rng(5).integers(0, 11, (2, 9)).astype(np.int32)


@functools.cache
def make_params(name):
  """Random float64 parameters with low thresholds, so that much spikes."""
  draw = np.random.default_rng(3)
  start = {"gain": 1.0, "threshold": -1.5}
  spread = {"gain": 0.2, "bias": 0.3, "threshold": 0.2}

  def fill(row):
    noise = draw.normal(size=row.shape)
    if row.kind == "table of thresholds":
      return np.sort(0.5 * abs(noise) + 0.05, 0)
    return start.get(row.kind, 0.0) + spread.get(row.kind, 0.6) * noise

  rows = gpt.parameters(CONFIGS[name])
  return gpt.build({row.path: fill(row) for row in rows})


@functools.cache
def runner(name):
  """`run(ids, state=None, **inputs)` in float64, jitted, with taps."""
  run = jax.jit(nmc.reference(gpt.make(CONFIGS[name]), taps=True))

  def call(ids, state=None, **inputs):
    with jax.enable_x64(True):
      out, state, taps = run(make_params(name), {"ids": ids, **inputs}, state)
      return np.asarray(out.logits), jax.device_get(state), jax.device_get(taps)

  return call


# --- attention


@pytest.mark.parametrize("kind", ["lif", "if"])
def test_attention_in_ops_is_that_on_arrays(kind):
  """`jaxnmc.spike.ssa` on the same drives: the same spikes, token by token."""
  ticks, heads, size, tokens = 4, 3, 4, 9
  config = gpt.Config(**{**SIZES, "ticks": ticks, "neuron": kind})
  draw = np.random.default_rng(8)
  drives = {
    name: draw.normal(0.4, 1.0, (tokens, heads * size)).astype(np.float32)
    for name in "qkv"
  }
  logs = {
    name: np.float32(draw.normal(-0.3, 0.2, heads * size))
    for name in ("q", "k", "v", "out")
  }
  # A power of two, so that no float is rounded.
  logs["out"] = np.full(heads * size, np.log(0.25), np.float32)
  theta = jnp.exp(jnp.asarray(logs["out"]))

  @jax.jit
  def run(drives):
    ops = Reference(taps=True)
    counts, state = spiking.attend(ops, config, logs, drives, None, None)
    return counts, state, ops.tape.values

  counts, state, taps = run(drives)
  by_head = lambda x: x.reshape(tokens, heads, size).swapaxes(0, 1)
  q, k, v = (
    np.stack([by_head(taps[f"{n}_spikes.{t}"]) for t in range(ticks)])
    for n in "qkv"
  )
  assert all(0.1 < x.mean() < 0.9 for x in (q, k, v))
  neuron = LIF() if kind == "lif" else IF()
  made = SSA(head_size=size, context=9, neuron=neuron)
  wide = theta.reshape(heads, 1, size)
  want, after = jax.jit(attend_arrays, static_argnums=0)(made, q, k, v, wide)
  found = counts.reshape(tokens, heads, size).swapaxes(0, 1)
  np.testing.assert_array_equal(found, want.sum(0))
  assert len(np.unique(found)) > 2
  for mine, wanted in zip(state["memory"], after.memory, strict=True):
    np.testing.assert_array_equal(mine, wanted.reshape(-1))
  np.testing.assert_array_equal(state["seen"], np.full(heads * size, tokens))


def by_hand(kind, signed, drives, theta):
  """Spikes of one neuron, Python floats that are exact."""
  v, spikes = 0.0, []
  for x in drives:
    h = (v + x) / 2 if kind == "lif" else v + x
    s = 1 if h >= theta else -1 if signed and -h >= theta else 0
    spikes.append(s)
    v = h - s * theta
  return spikes


@pytest.mark.parametrize("kind", spiking.NEURONS)
@pytest.mark.parametrize("signed", [False, True])
def test_neurons_are_their_equations(kind, signed):
  draw = np.random.default_rng(1)
  drives = np.float32(draw.integers(-24, 25, (6, 1, 200)) / 8)
  drives[:, 0, 0], theta = 1.0, np.float32(1.0)  # exactly at the threshold
  found = spiking.neuron(
    Reference(), kind, signed, list(drives), theta, surrogates.fire
  )
  for j in range(200):
    want = by_hand(kind, signed, drives[:, 0, j].tolist(), 1.0)
    assert [float(s[0, j]) for s in found] == want
  assert set(np.unique(found)) == {0, 1} | ({-1} if signed else set())


def test_counts_are_thresholds_passed():
  table = np.float32([[0.5, 1.0], [1.5, 2.0], [2.5, 8.0]])
  x = np.float32([[0.4, 1.0], [1.5, -2.5], [-9.0, 9.0]])
  count = lambda signed: spiking.counts(Reference(), x, table, 3, signed)
  np.testing.assert_array_equal(count(False), [[0, 1], [2, 0], [0, 3]])
  np.testing.assert_array_equal(count(True), [[0, 1], [2, -2], [-3, 3]])


def test_a_surrogate_changes_gradients_alone():
  params = jax.tree.map(np.float32, make_params("llama"))
  ids = IDS[:1]

  def both(kind):
    made = dataclasses.replace(CONFIGS["llama"], surrogate=kind)
    run = nmc.reference(gpt.make(made))
    loss = lambda p: jnp.sum(run(p, {"ids": ids})[0].logits ** 2)
    value, slope = jax.jit(jax.value_and_grad(loss))(params)
    return value, slope["layers"][0]["attn"]["q"]["weight"]

  (one, slope), (two, other) = both("atan"), both("boxcar")
  assert one == two
  assert np.abs(slope - other).max() > 1e-3 * np.abs(slope).max() > 0


# --- feed-forward blocks


@pytest.mark.parametrize("signed", [False, True])
def test_blocks_count_what_the_other_codes_count(signed):
  """A rate under an even drive; accumulate, then fire; ST-BIF at rest.

  The table has all of a drive at once.  The others get it tick by tick, evenly
  or not; a rate is another one where it comes unevenly.
  """
  ticks, unit = 8, np.float32([3, 5, 9])
  top = 2 * ticks * unit
  x = np.arange(-60, 61, dtype=np.float32)[:, None] * np.ones(3, np.float32)
  # Down, ST-BIF rounds a tie to the higher count, a table to the lower one.
  tie = (x < 0) & (np.abs(x) % (2 * unit) == unit)
  table = (np.arange(ticks)[:, None] + np.float32(0.5)) * top / ticks
  found = spiking.counts(Reference(), x, table, ticks, signed)
  even = np.broadcast_to(x, (ticks, *x.shape))
  noise = np.random.default_rng(0).integers(-40, 40, even.shape)
  uneven = even + noise - np.roll(noise, 1, 0)
  assert (uneven.sum(0) == ticks * x).all()
  low = -ticks if signed else 0
  quiet = np.zeros((ticks - low, *x.shape), np.float32)
  neuron = STBIF(low=low, high=ticks)
  for drive in (even, uneven):
    rest, _ = run(neuron, np.concatenate([drive, quiet]), threshold=top)
    same = np.asarray(rest.count == found)
    assert (same | (tie if signed else False)).all()
    if not signed:
      sent = qcfs.accumulate_then_fire(drive, top).sum(0)
      np.testing.assert_array_equal(sent, found)
  if not signed:
    rate = lambda drive: run(IF(half=True), drive, threshold=top)[1].sum(0)
    np.testing.assert_array_equal(rate(even), found)
    assert (rate(uneven) != found).mean() > 0.1
  assert len(np.unique(found)) == ticks - low + 1


# --- the whole model


def empty(config):
  """The first state of two sequences, in float64."""
  return jax.tree.map(
    lambda x: np.float64(x) if x.dtype == np.float32 else x,
    gpt.init_state(config, (2,)),
  )


@pytest.mark.parametrize("name", CONFIGS)
def test_decoding_is_prefill_and_padding_leaves_no_trace(name):
  run, config = runner(name), CONFIGS[name]
  whole, last, taps = run(IDS)
  sent = [x for path, x in taps.items() if "_spikes." in path]
  assert len(sent) == 3 * config.ticks * config.num_layers
  assert all(0 < np.mean(x != 0) < 1 for x in sent)
  assert {-1 in np.unique(x) for x in sent} == {config.signed}
  # From an empty state, token by token.
  state, rows = empty(config), []
  for t in range(9):
    found, state, _ = run(IDS[:, t : t + 1], state)
    rows.append(found)
  np.testing.assert_allclose(np.concatenate(rows, 1), whole, rtol=0, atol=1e-10)
  jax.tree.map(np.testing.assert_array_equal, state, last)
  # Padding on the left, between and on the right, different by sequence.
  ids, mask = np.full((2, 9), 7, np.int32), np.zeros((2, 9), np.int32)
  places = [[1, 3, 4, 5, 7], [0, 1, 6, 7, 8]]
  for b, slots in enumerate(places):
    ids[b, slots], mask[b, slots] = IDS[b, :5], 1
  found, state, _ = run(ids, mask=mask)
  for b, slots in enumerate(places):
    np.testing.assert_allclose(
      found[b, slots], whole[b, :5], rtol=0, atol=1e-10
    )
  for t in range(5, 9):
    found, state, _ = run(IDS[:, t : t + 1], state)
    np.testing.assert_allclose(found[:, 0], whole[:, t], rtol=0, atol=1e-10)
  jax.tree.map(np.testing.assert_array_equal, state, last)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_later_token_changes_nothing_before(name):
  run = runner(name)
  whole, _, _ = run(IDS)
  seen = 0
  for t in range(9):
    other = IDS.copy()
    other[:, t] = (other[:, t] + 5) % 11
    found, _, _ = run(other)
    np.testing.assert_array_equal(found[:, :t], whole[:, :t])
    seen += (found[:, t + 1 :] != whole[:, t + 1 :]).any()
  assert seen > 5, "what comes after should see it"


def test_a_window_forgets():
  """One head of window 2 in one layer: a token sees itself and one before."""
  config = dataclasses.replace(
    CONFIGS["windows"], num_layers=1, windows=(2, 2, 2)
  )
  params = make_params("windows")
  params = {**params, "layers": params["layers"][:1]}
  run = jax.jit(nmc.reference(gpt.make(config)))
  with jax.enable_x64(True):
    logits = lambda ids: np.asarray(run(params, {"ids": ids})[0].logits)
    whole = logits(IDS)
    other = IDS.copy()
    other[:, 3] = (other[:, 3] + 5) % 11
    found = logits(other)
  apart = (found != whole).any((0, 2))
  assert apart.tolist() == [False] * 3 + [True, True] + [False] * 4


@pytest.mark.slow  # the quick form is in tests/chip/engines/test_memory.py
@pytest.mark.parametrize("name", ["llama if", "windows"])
def test_fake_quant_in_float64_equals_fixed_at_every_site(name):
  """A Llama (without rotary positions, which have no integers) and a GPT-2."""
  config = dataclasses.replace(
    CONFIGS[name], ticks=1 + (name == "llama if"), mlp_ticks=2
  )
  if name == "llama if":
    config = dataclasses.replace(config, positions="none")
  params = jax.tree.map(np.float32, make_params(name))
  layer = dict(params["layers"][0])
  layer["mlp"] = {**layer["mlp"], "fire": layer["mlp"]["fire"][:2]}
  params = {**params, "layers": [layer]}
  fn = gpt.make(config)
  stats = nmc.calibrate(fn)(params, [IDS])
  plan = nmc.plan(stats, nmc.quantize.W8A16)
  qparams = nmc.quantize_params(params, plan)
  whole = jax.jit(nmc.fixed(fn, plan, taps=True))
  out, state, sites = whole(qparams, {"ids": IDS})
  with jax.enable_x64(True):
    wide = jax.tree.map(np.float64, params)
    run = jax.jit(nmc.fake_quant(fn, plan, taps=True))
    fake, fake_state, found = run(wide, {"ids": IDS})
  assert list(found) == list(sites)
  for path, value in sites.items():
    np.testing.assert_array_equal(codes(found[path]), codes(value), path)
  np.testing.assert_array_equal(codes(fake.logits), codes(out.logits))
  one, two = jax.tree.leaves(fake_state), jax.tree.leaves(state)
  assert len(one) == len(two)
  for a, b in zip(one, two):
    np.testing.assert_array_equal(a, b)
  spikes = [codes(v) for k, v in sites.items() if "_spikes." in k]
  assert all(0 < np.mean(x != 0) < 1 for x in spikes)


@pytest.mark.parametrize(
  ("name", "padded"),
  [("llama", False), ("gpt2", False), ("llama if", True), ("windows", True)],
)
def test_gradients_reach_every_parameter(name, padded):
  """Through spikes by surrogates; padding in front of a text sends none."""
  config = CONFIGS[name]
  fn = gpt.make(config)
  ids, mask = IDS.T, None
  if padded:
    ids = np.concatenate([np.zeros((2, 2), np.int32), IDS[:, :7].T])
    mask = (np.arange(9)[:, None] >= [2, 2]).astype(np.int32)

  @jax.jit
  @jax.grad
  def slope(params):
    out, _ = fn(Reference(), params, {"ids": ids, "mask": mask}, None)
    nats = optax.softmax_cross_entropy_with_integer_labels(
      out.logits[2:-1], ids[3:]
    )
    return nats.mean()

  with jax.enable_x64(True):
    found = jax.device_get(slope(make_params(name)))
  for row in gpt.parameters(config):
    leaf = functools.reduce(
      lambda node, key: node[int(key) if key.isdigit() else key],
      row.path.split("."),
      found,
    )
    assert np.isfinite(leaf).all(), row.path
    assert np.abs(leaf).max() > 1e-9, row.path


# --- what is refused


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"ticks": 0}, "'ticks' must be a whole number from 1 to 64; found 0"),
    ({"ticks": -3}, "'ticks' must be .*; found -3"),
    ({"ticks": 65}, "'ticks' must be .*; found 65"),
    ({"ticks": 2.0}, "'ticks' must be .*; found 2.0"),
    ({"ticks": True}, "'ticks' must be .*; found True"),
    ({"ticks": None}, "'ticks' must be .*; found None"),
    ({"mlp_ticks": 0}, "'mlp_ticks' must be .* from 1 to 64; found 0"),
    ({"neuron": "izhikevich"}, "'neuron' must be one of lif, if; found 'izhi"),
    ({"attention": "linear"}, "'attention' must be one of softmax, ssa; found"),
    ({"signed": 1}, "'signed' must be true or false; found 1"),
    ({"windows": (2, 2)}, r"'windows' must be null or a list of 3 .*\(2, 2\)"),
    ({"windows": (2, 0, None)}, "'windows' must be .* numbers from 1 to 9"),
    ({"windows": (2, 10, None)}, "'windows' must be .* from 1 to 9.*10"),
    ({"windows": (2, 1.5, None)}, "'windows' must be .*1.5"),
    ({"windows": (2, True, None)}, "'windows' must be .*True"),
    ({"windows": 4}, "'windows' must be .*found 4"),
    (
      {"num_heads": 6, "num_kv_heads": 3},
      r"'num_kv_heads' \(3\) must be 'num_heads' \(6\) when 'attention' is",
    ),
  ],
)
def test_impossible_fields(changes, message):
  with pytest.raises(ConfigError, match=message) as error:
    gpt.Config(**{**SIZES, **changes})
  assert "\n" not in str(error.value)


def test_windows_that_are_none_are_left_out():
  assert gpt.Config(**SIZES, windows=(None,) * 3).windows is None
  assert gpt.Config(**SIZES, windows=[2, None, 9]).windows == (2, None, 9)


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_are_counted(name):
  config = CONFIGS[name]
  shapes = jax.eval_shape(lambda: gpt.init_params(config, jax.random.key(0)))
  found = sum(np.prod(x.shape) for x in jax.tree.leaves(shapes))
  assert found == config.num_params
  if name == "gpt2":
    made = jax.jit(gpt.init_params, static_argnums=0)(config, jax.random.key(0))
    first = made["layers"][1]
    fire = first["mlp"]["fire"]
    assert fire[:, 0].tolist() == [0.125, 0.375, 0.625, 0.875]
    assert not first["attn"]["ssa"]["out"].any(), "logarithms: thresholds of 1"


def test_other_states_and_too_many_tokens_are_refused():
  run, windows = runner("gpt2"), runner("windows")
  states = {n: empty(CONFIGS[n]) for n in ("gpt2", "windows", "llama if")}
  one = IDS[:, :1]
  # An ordinary memory has no tokens one by one.
  plain = {**states["gpt2"], "layers": states["gpt2"]["layers"][:1]}
  with pytest.raises(PlanError, match="attn.ssa.memory.0: .*last 4 tokens"):
    windows(one, plain)
  layers = states["windows"]["layers"] * 2
  with pytest.raises(PlanError, match="attn.ssa.memory.0: .*another model"):
    run(one, {**states["windows"], "layers": layers})
  with pytest.raises(TokenError, match="10 tokens, .* at most 9"):
    run(np.zeros((1, 10), np.int32))


def test_beyond_the_context_nothing_is_remembered():
  """Under jit the position is not known; what has no place sends no spike."""
  run = runner("gpt2")
  _, state, _ = run(IDS)
  _, after, taps = run(IDS[:, :1], state)
  jax.tree.map(np.testing.assert_array_equal, after["layers"], state["layers"])
  assert not taps["layers.0.attn.ssa.counts"].any()
