"""Checked mode: what does not fit the chip is refused, by core and step."""

import dataclasses
import functools

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st
from jax import numpy as jnp

import jaxnmc as nmc
from jaxnmc.chip.engines import checking
from jaxnmc.errors import ChipError
from tests.chip.mini import mini, recut

ENGINES = ("functional", "stepped")
IDS = np.array([3, 0, 7, 1, 2, 5, 5, 9], np.int32)


@functools.cache
def placed():
  net = mini(2, 5)
  hardware = nmc.chip.loihi2(chips=1, cores_per_chip=5)
  return net, recut(nmc.place(net.graph, hardware, head="chip"), 2)


@functools.cache
def checked(engine, **limits):
  """A checked engine; what the chip holds is put in by hand."""
  net, placement = placed()
  run = net.loihi(placement, engine=engine, checked=True)
  return net, run


def with_limits(run, monkeypatch, **limits):
  """The same engine, compiled once, on a chip with other limits."""
  hardware = dataclasses.replace(run.placement.hardware, **limits)
  placement = dataclasses.replace(run.placement, hardware=hardware)
  monkeypatch.setattr(run, "placement", placement)


def extremes_by_hand(net):
  """Largest magnitude (message, sum) of every synapse, from `fixed`."""
  run = nmc.fixed(net.fn, net.plan, taps=True)
  *_, taps = run(net.qparams, {"ids": IDS}, None)
  found = {}
  for synapse in placed()[1].network.synapses:
    value = taps[synapse.path]
    x = np.asarray(getattr(value, "q", value)).astype(np.int64)
    sums = x if synapse.weights is None else x @ synapse.weights.T.astype(int)
    found[synapse.path, synapse.index] = np.abs(x).max(), np.abs(sums).max()
  return found


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_changes_where_all_fits(engine):
  net, run = checked(engine)
  want = net.fixed(net.qparams, {"ids": IDS}, None)
  out, state, counters = run(net.qparams, {"ids": IDS})
  jax.tree.map(np.testing.assert_array_equal, (out, state), want)
  plain = net.loihi(placed()[1])(net.qparams, {"ids": IDS})[2]
  assert counters.to_json() == plain.to_json()


@pytest.mark.parametrize("engine", ENGINES)
def test_the_narrowest_chip_that_holds_it_all(engine, monkeypatch):
  """One bit less than the values of `fixed` need is one too few."""
  net, run = checked(engine)
  largest = extremes_by_hand(net).values()
  needs = {
    "message_bits": int(max(x for x, _ in largest)).bit_length() + 1,
    "accumulator_bits": int(max(s for _, s in largest)).bit_length() + 1,
  }
  for limit, bits in needs.items():
    with_limits(run, monkeypatch, **{limit: bits})
    run(net.qparams, {"ids": IDS})
    with_limits(run, monkeypatch, **{limit: bits - 1})
    with pytest.raises(ChipError, match=f"{limit}={bits - 1}"):
      run(net.qparams, {"ids": IDS})
    with_limits(run, monkeypatch, **{limit: 32})


LIMITS = {
  "accumulator_bits": (12, "accumulator of", "-2,048 to 2,047"),
  "message_bits": (8, "message ", "-128 to 127"),
  "inbox_messages": (10, "messages reach this core", "inbox_messages=10"),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_both_engines_name_the_same_core_population_and_step(
  limit, monkeypatch
):
  value, what, allowed = LIMITS[limit]
  said = []
  for engine in ENGINES:
    net, run = checked(engine)
    with_limits(run, monkeypatch, **{limit: value})
    with pytest.raises(ChipError) as caught:
      run(net.qparams, {"ids": IDS})
    said.append(str(caught.value))
  assert said[0] == said[1]
  where = r"population layers\.0\.out on core \d of chip 0 \(neurons"
  assert np.all([word in said[0] for word in (what, allowed, "Loihi 2 has")])
  with pytest.raises(ChipError, match=where + r".*, step \d"):
    raise ChipError(said[0])


@pytest.mark.parametrize("inject", [range(8), [7, 12, 13, 20, 21, 22, 40, 60]])
def test_the_first_step_is_named_with_its_token(inject, monkeypatch):
  """Of all sums that do not fit, worked out from `fixed`."""
  net, run = checked("stepped")
  bits, found = 14, []
  *_, taps = nmc.fixed(net.fn, net.plan, taps=True)(
    net.qparams, {"ids": IDS}, None
  )
  for synapse in placed()[1].network.synapses:
    value = taps[synapse.path]
    x = np.asarray(getattr(value, "q", value)).astype(np.int64)
    sums = x if synapse.weights is None else x @ synapse.weights.T.astype(int)
    high = (1 << bits - 1) - 1
    wrong = ((sums > high) | (sums < ~high)).any(-1)
    found += [
      (inject[n] + synapse.depth, int(n)) for n in np.flatnonzero(wrong)
    ]
  step, token = min(found)
  assert len({n for _, n in found}) > 2
  with_limits(run, monkeypatch, accumulator_bits=bits)
  with pytest.raises(ChipError, match=rf"step {step} \(token {token}\)"):
    run(net.qparams, {"ids": IDS}, None, list(inject))


def test_a_stream_counts_its_own_steps_and_tokens(monkeypatch):
  net, run = checked("stepped")
  with_limits(run, monkeypatch, inbox_messages=None)
  flow = run.stream(net.qparams)
  flow.send(np.zeros(3, np.int32))  # the empty token: small values
  flow.drain()
  before = flow.steps
  with_limits(run, monkeypatch, accumulator_bits=12)
  flow.send(IDS[:1])
  with pytest.raises(ChipError, match=rf"step {before} \(token 3\)"):
    flow.drain()


def test_a_wrapped_int32_is_seen(monkeypatch):
  """Weights that the recorder would refuse: the sum passes 2^31."""
  net = mini(1, 1200)
  placement = nmc.place(net.graph, nmc.chip.loihi2(chips=1), head="host")
  run = net.loihi(placement, engine="stepped", checked=True)
  full = [
    None if w is None else jnp.full_like(w, 127) for w in run.weights.weights
  ]
  run.weights = dataclasses.replace(run.weights, weights=tuple(full))
  with pytest.raises(ChipError, match="accumulator_bits=32") as caught:
    run(net.qparams, {"ids": IDS[:1]})
  number = str(caught.value).split(" is ")[1].split(";")[0]
  assert abs(int(number.replace(",", ""))) > 2**31


@hypothesis.given(
  seed=st.integers(0, 2**31),
  large=st.booleans(),
  width=st.sampled_from([1, 40]),
)
def test_wide_sums_are_exact(seed, large, width):
  """Against Python's integers, wrapped or not."""
  draw = np.random.default_rng(seed)
  pairs, tiles, size = 2, 2, 3
  top = 32639 if large else 3
  x = draw.integers(-top, top + 1, (pairs, width * 50)).astype(np.int32)
  x = np.where(draw.random(x.shape) < 0.9, top, x).astype(np.int32)
  w = draw.integers(-128, 128, (pairs, tiles, size, x.shape[1]))
  w = np.where(draw.random(w.shape) < 0.9, 127, w).astype(np.int8)
  want = np.einsum("pkns,ps->pkn", w.astype(np.int64), x.astype(np.int64))
  wrapped = jnp.asarray(want.astype(np.int32))
  high, low = checking.wide_sums("dense", x, wrapped, jnp.asarray(w))
  got = (np.asarray(high, np.int64) << 16) + np.asarray(low)
  np.testing.assert_array_equal(got, want)
  big = draw.integers(-(2**31), 2**31, x.shape).astype(np.int32)
  high, low = checking.wide_sums("reduce", jnp.asarray(big), wrapped, None)
  total = big.astype(np.int64).sum(-1)[:, None, None]
  got = (np.asarray(high, np.int64) << 16) + np.asarray(low)
  np.testing.assert_array_equal(got, np.broadcast_to(total, got.shape))
  real = draw.random(want.shape) < 0.7
  found = np.asarray(checking.of_sums((high, low), jnp.asarray(real)), np.int64)
  masked = np.where(real, total, 0)
  most, least = (found[..., i] * 65536 + found[..., i + 1] for i in (0, 2))
  np.testing.assert_array_equal(most, masked.max(-1))
  np.testing.assert_array_equal(least, masked.min(-1))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_state_out_of_its_format_is_refused(engine):
  net, run = checked(engine)
  _, state, _ = net.loihi(placed()[1])(net.qparams, {"ids": IDS})
  wrong = jax.tree.map(lambda q: q.at[1].set(1 << 20), state)
  with pytest.raises(ChipError, match=r"layers\.0\.cell.*holds 1,048,576"):
    run(net.qparams, {"ids": IDS}, wrong)
