"""A model as spikes: the integers of `fixed`, and what is sent for them."""

import dataclasses
import functools
import itertools
import types

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import jaxnmc as nmc
from jaxnmc import _compat
from jaxnmc.errors import ConfigError, FormatError, PlanError
from jaxnmc.evaluate import trials
from jaxnmc.spike import codes as spike_codes
from jaxnmc.spike import energy, interpreter, traffic
from tests.spike.sent import check_rows, same, spikes_of

VOCAB, WIDTH, LENGTH = 9, 7, 6
# Inputs of the small model's products, in order.
SITES = ("embed", "cell.before", "h")


def fn(ops, params, inputs, state=None):
  """A split product, a product inside of a recurrence, a sum, a head."""
  x = ops.embed("embed", params["embed"], inputs["ids"])
  u, v = ops.linear_split("into", params["into"], x, 2)
  u, v = ops.site("u", u), ops.site("v", v)

  def body(ops, h, step):
    u, v = step
    back = ops.linear("back", params["back"], ops.site("before", h))
    h = ops.site("h", ops.add(ops.site("back", back), u), align="u")
    return h, ops.add(h, v)

  init = ops.zeros(u) if state is None else state
  state, h = ops.scan("cell", body, init, (u, v))
  h = ops.site("h", h)
  total = ops.broadcast(ops.site("total", ops.sum(h)), VOCAB)
  logits = ops.add(
    ops.site("head_out", ops.linear("head", params["head"], h)), total
  )
  return ops.site("logits", logits), state


def draw(seed):
  rng = np.random.default_rng(seed)
  some = lambda *shape: rng.normal(size=shape).astype(np.float32)
  return {
    "embed": some(VOCAB, WIDTH),
    "into": some(2 * WIDTH, WIDTH),
    "back": some(WIDTH, WIDTH) / 8,
    "head": some(VOCAB, WIDTH),
  }


@functools.cache
def compiled(run, plan, **options):
  """One program per plan and options; plans are compared by their numbers."""
  return jax.jit(run(fn, plan, taps=True, **options))


@pytest.fixture(scope="module")
def small():
  """The small model under 16 bits, and under 4 or 5 where spikes start."""
  params = draw(0)
  ids = np.random.default_rng(1).integers(0, VOCAB, (3, LENGTH), np.int32)
  stats = nmc.calibrate(fn, histograms=True)(params, [ids])
  wide = nmc.plan(stats, nmc.quantize.W8A16)
  few = trials.narrowed(wide, stats, dict(zip(SITES, (5, 4, 4), strict=True)))
  return types.SimpleNamespace(
    ids=ids,
    params=params,
    plans={"wide": wide, "few": few},
    qparams={
      name: nmc.quantize_params(params, plan)
      for name, plan in (("wide", wide), ("few", few))
    },
  )


def small_weights(qparams):
  names = {"into": "into", "cell.back": "back", "head": "head"}
  return {k: np.asarray(qparams.tree[v].codes) for k, v in names.items()}


# --- one product


@pytest.mark.parametrize("code", interpreter.CODES)
@pytest.mark.parametrize("spare", [0, 3])
def test_the_membrane_ends_at_the_product(code, spare):
  """Also at both ends of a code, and where the first ticks are silent."""
  rng = np.random.default_rng(4)
  for bits in (2, 5) if code == "unary" else (2, 16):
    high = 2 ** (bits - 1) - 1
    ticks = spare + spike_codes.ticks_for(interpreter.CODES[code], high)
    q = rng.integers(-high, high, (4, 9), np.int32, endpoint=True)
    q[0], q[1] = high, -high
    w = rng.integers(-1, 2, (5, 9)).astype(np.int8)
    trains = spike_codes.encode(interpreter.CODES[code], q, ticks)
    found = interpreter.integrate(code, trains, jnp.asarray(w))
    np.testing.assert_array_equal(found, q @ w.T.astype(np.int32))


@pytest.mark.parametrize("code", interpreter.CODES)
def test_no_potential_exceeds_that_of_the_whole_message(code):
  """The bound in the head of the file, tick by tick, in Python's integers."""
  high, gain = 31, 1 if code == "unary" else 2
  for spare in (0, 2):
    ticks = spare + spike_codes.ticks_for(interpreter.CODES[code], high)
    row = spike_codes.weights(interpreter.CODES[code], ticks)
    for q in range(-high, high + 1):
      s = spike_codes.encode(interpreter.CODES[code], np.int32(q), ticks)
      v = 0
      for spike, weight in zip(np.asarray(s), row, strict=True):
        v = gain * v + int(np.sign(weight)) * int(spike)
        assert abs(v) <= abs(q)
      assert v == q


# --- a small model


@pytest.mark.parametrize(
  ("name", "code", "ticks"),
  [
    *(("wide", "bitwise", None), ("wide", "twos", 18)),
    *(("few", "unary", None), ("few", "bitwise", 4)),
  ],
)
def test_spikes_compute_what_fixed_does(small, name, code, ticks):
  plan, qparams = small.plans[name], small.qparams[name]
  inputs = {"ids": small.ids}
  out, state, taps = compiled(nmc.fixed, plan)(qparams, inputs)
  run = compiled(nmc.spiking, plan, code=code, ticks=ticks)
  found = run(qparams, inputs)
  same((out, state, taps), (*found[:2], found[3]))
  rows = traffic.rows_of(found[2])
  assert [row.site for row in rows] == list(SITES)
  assert [row.product for row in rows] == ["into", "cell.back", "head"]
  check_rows(code, rows, taps, small_weights(qparams))
  needs = {
    "wide": {"bitwise": [15, 15, 15]},
    "few": {"unary": [15, 7, 7]},
  }
  assert [row.ticks for row in rows] == needs[name].get(code, [ticks] * 3)
  assert [row.bits for row in rows] == [plan.format(s).bits for s in SITES]
  assert found[2].graded == ("h", "total")
  np.testing.assert_array_equal(found[2].tokens, [LENGTH] * 3)


def test_token_by_token_is_all_at_once(small):
  """Integers, and the sums of what was sent; states are those of `fixed`."""
  plan, qparams = small.plans["wide"], small.qparams["wide"]
  run = compiled(nmc.spiking, plan, code="bitwise", ticks=None)
  whole = run(qparams, {"ids": small.ids})
  state, calls, logits = None, [], []
  for at in range(LENGTH):
    ids = small.ids[:, at : at + 1]
    out, state, spikes, _ = run(qparams, {"ids": ids}, state)
    logits.append(out.q)
    calls.append(spikes)
    if at == 2:
      # Half way a state changes hands.
      _, state, _ = compiled(nmc.fixed, plan)(
        qparams, {"ids": small.ids[:, : at + 1]}
      )
  np.testing.assert_array_equal(jnp.concatenate(logits, 1), whole[0].q)
  same(state, whole[1])
  assert traffic.rows_of(*calls) == traffic.rows_of(whole[2])


def test_padding_sends_what_is_not_counted(small):
  plan, qparams = small.plans["wide"], small.qparams["wide"]
  run = jax.jit(nmc.spiking(fn, plan))
  ids = small.ids[:2]
  mask = np.ones_like(ids)
  mask[1, :2] = 0
  # A row that is all there, and one that lacks its first two tokens.
  _, _, spikes = run(qparams, {"ids": ids, "mask": mask})
  np.testing.assert_array_equal(spikes.tokens, [LENGTH, LENGTH - 2])
  embedded = np.asarray(qparams.tree["embed"].q)[ids]
  each = spikes_of("bitwise", embedded, 15) * mask[..., None]
  np.testing.assert_array_equal(spikes.products["into"].spikes, each.sum(1))
  messages = ((embedded != 0) * mask[..., None]).sum(1)
  np.testing.assert_array_equal(spikes.products["into"].messages, messages)
  row = traffic.rows_of(spikes)[0]
  assert row.tokens == 2 * LENGTH - 2


def test_no_float_is_in_the_program(small):
  plan, qparams = small.plans["few"], small.qparams["few"]
  for code, x64 in itertools.product(interpreter.CODES, (False, True)):
    run = nmc.spiking(fn, plan, code=code)
    with jax.enable_x64(x64):
      jaxpr = jax.make_jaxpr(run)(qparams, {"ids": small.ids})
    arrays = {
      str(v.aval.dtype)
      for inner in _compat.all_jaxprs(jaxpr)
      for eqn in inner.eqns
      for v in eqn.outvars
      if v.aval.ndim
    }
    assert "int32" in arrays
    # Nor does anything grow to 64 bits under the flag.
    wrong = [k for k in arrays if "float" in k or k.endswith("64")]
    assert wrong == []


# --- energies


def test_energies_are_those_of_each_product_alone(small):
  plan, qparams = small.plans["few"], small.qparams["few"]
  run = compiled(nmc.spiking, plan, code="unary", ticks=None)
  rows = traffic.rows_of(run(qparams, {"ids": small.ids})[2])
  found = traffic.energy_of(rows)
  # By hand: 0.9 pJ an addition, 4.6 a multiply-accumulate, 20 pJ for 64 bits.
  macs = [row.tokens * row.values * row.targets for row in rows]
  ends = [row.tokens * (row.values + row.targets) for row in rows]
  adds = sum(row.stored_synops for row in rows)
  updates = sum(row.ticks * row.tokens * row.targets for row in rows)
  sent = sum(row.spikes for row in rows)
  near = functools.partial(pytest.approx, rel=1e-12)
  assert found.spiking == near(0.9 * adds)
  assert found.dense == near(4.6 * sum(macs))
  bits = 32 * adds + 64 * updates + 64 * sent
  assert found.spiking_memory == near(0.9 * adds + bits * 20 / 64)
  assert found.dense_memory == near(
    4.6 * sum(macs) + 32 * (sum(macs) + sum(ends)) * 20 / 64
  )
  assert found.spiking_int8 == near(0.03 * adds)
  matched = [0.23 * m * row.bits / 8 for m, row in zip(macs, rows, strict=True)]
  assert found.matched == near(sum(matched))
  moved = [
    8 * m + row.bits * e for m, e, row in zip(macs, ends, rows, strict=True)
  ]
  assert found.matched_memory == near(sum(matched) + sum(moved) * 20 / 64)
  assert found.label == "modelled"
  assert found.savings()["arithmetic"] == near(1 - found.spiking / found.dense)
  less = traffic.energy_of(rows, energy.INT8)
  assert less.spiking == found.spiking_int8
  assert less.spiking_memory == found.spiking_int8_memory


def test_calls_of_two_codes_are_not_summed_up(small):
  plan, qparams = small.plans["few"], small.qparams["few"]
  a, b = (
    compiled(nmc.spiking, plan, code=code, ticks=ticks)(
      qparams, {"ids": small.ids}
    )[2]
    for code, ticks in (("unary", None), ("bitwise", 4))
  )
  with pytest.raises(ConfigError, match="into is another product"):
    traffic.rows_of(a, b)
  with pytest.raises(ConfigError, match="no call"):
    traffic.rows_of()
  with pytest.raises(ConfigError, match="no token"):
    traffic.energy_of([])


# --- what is refused


def test_sites_that_do_not_fit_are_named(small):
  wide, few = small.plans["wide"], small.plans["few"]
  call = lambda plan, name, **options: nmc.spiking(fn, plan, **options)(
    small.qparams[name], {"ids": small.ids}
  )
  with pytest.raises(
    FormatError,
    match=r"^embed: codes of 16 bits, up to 32639, take 15 ticks as spike code"
    r" 'bitwise', but ticks is 14 \(2 more do not fit, either\); give more"
    r" ticks, or the site fewer bits",
  ):
    call(wide, "wide", ticks=14)
  with pytest.raises(FormatError, match=r"take 32639 ticks as .* at most 1024"):
    call(wide, "wide", code="unary")
  with pytest.raises(FormatError, match=r"embed: codes of 5 bits, up to 15"):
    call(few, "few", code="unary", ticks=14)
  # The two narrower sites fit these.
  with pytest.raises(FormatError, match=r"ticks is 4; give more ticks"):
    call(few, "few", code="twos", ticks=4)
  with pytest.raises(FormatError, match="ticks is 14"):
    jax.jit(nmc.spiking(fn, wide, ticks=14))(
      small.qparams["wide"], {"ids": small.ids}
    )


def test_what_is_no_ticks_or_code_is_refused(small):
  plan = small.plans["few"]
  for ticks in (0, -3, 2.0, True):
    with pytest.raises(ConfigError, match="allowed are whole numbers from 1"):
      nmc.spiking(fn, plan, ticks)
  with pytest.raises(ConfigError, match="allowed are bitwise, twos, unary"):
    nmc.spiking(fn, plan, code="morse")
  with pytest.raises(ConfigError, match="allowed are 1 to 31"):
    nmc.spiking(fn, plan, ticks=32)
  with pytest.raises(PlanError, match="quantize_params"):
    nmc.spiking(fn, plan)(small.params, {"ids": small.ids})
  floats = plan.replace(table=None)
  with pytest.raises(PlanError, match="spiking takes integers everywhere"):
    nmc.spiking(fn, floats)(small.qparams["few"], {"ids": small.ids})


def test_a_model_without_a_product_is_refused():
  def plain(ops, params, inputs, state=None):
    return ops.embed("embed", params["embed"], inputs["ids"]), state

  params = {"embed": draw(0)["embed"]}
  ids = np.zeros((1, 2), np.int32)
  plan = nmc.plan(nmc.calibrate(plain)(params, [ids]), nmc.quantize.W8A16)
  qparams = nmc.quantize_params(params, plan)
  with pytest.raises(ConfigError, match="no matrix product"):
    nmc.spiking(plain, plan)(qparams, {"ids": ids})


def test_rows_are_plain_numbers(small):
  plan, qparams = small.plans["few"], small.qparams["few"]
  run = compiled(nmc.spiking, plan, code="unary", ticks=None)
  for row in traffic.rows_of(run(qparams, {"ids": small.ids})[2]):
    kinds = {type(v) for v in dataclasses.asdict(row).values()}
    assert kinds == {int, str}
