"""The synapse walk against Python's integers, in both layouts."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import numpy as jnp

from jaxnmc.kernels import native, walk

LIMITS = {"int8": 127, "int16": 2**15 - 1, "int32": 2**20}


def entries(rng, out, source, fan_out, largest, step=1):
  """Random stored weights: (target, source, weight), shuffled."""
  target = np.concatenate(
    [rng.permutation(out)[:fan_out] for _ in range(source)]
  )
  origin = np.repeat(np.arange(source), fan_out)
  weight = step * rng.integers(
    -largest // step, largest // step + 1, len(origin)
  )
  order = rng.permutation(len(origin))
  return target[order], origin[order], weight[order]


def forms(stored):
  """Every way to walk a table here."""
  both = isinstance(stored, walk.Rows) and native.available()
  return [walk.xla_walk, walk.walk] + [walk.native_walk] * both


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32])
@pytest.mark.parametrize("shape", [(300, 255), (900, 257), (2000, 1030)])
def test_the_native_walk_in_strips_and_threads(kind, shape, kernel):
  rng = np.random.default_rng(0)
  most = min(np.iinfo(kind).max, 10**5)
  weights = rng.integers(-most, most + 1, shape, kind)
  stored = walk.Rows(jnp.asarray(weights), 0)
  for share in (0.0, 0.01, 0.5, 1.0):
    sent = (rng.random(shape[0]) < share) * rng.integers(-2, 3, shape[0])
    found = walk.native_walk(stored, jnp.asarray(sent, jnp.int32))
    exact = sent.astype(np.int64) @ weights.astype(np.int64)
    assert (np.asarray(found) == exact).all()


@pytest.mark.parametrize("weight", [-128, 127])
@pytest.mark.parametrize("senders", [254, 255, 256, 511, 1000])
def test_spikes_are_added_in_batches_that_fit(weight, senders, kernel):
  stored = walk.Rows(jnp.full((1000, 1100), weight, jnp.int8), 0)
  spikes = jnp.arange(1000) < senders
  found = walk.native_walk(stored, spikes.astype(jnp.int32))
  assert {*found.tolist()} == {weight * senders}
  # One of another size among them.
  mixed = spikes.astype(jnp.int32).at[3].set(-5)
  found = walk.native_walk(stored, mixed)
  assert {*found.tolist()} == {weight * (senders - 6)}


def test_which_walk_is_taken(monkeypatch):
  rows, lists = walk.of_matrix(np.ones((3, 3), int)), None
  lists = walk.table([0], [0], [1], (99, 3))
  assert isinstance(lists, walk.Lists)
  call = lambda t: str(
    jax.make_jaxpr(lambda m: walk.walk(t, m))(jnp.zeros(3, jnp.int32))
  )
  monkeypatch.setattr(native, "available", lambda: True)
  assert "ffi_call" in call(rows)
  assert "ffi_call" not in call(lists)
  monkeypatch.setattr(native, "available", lambda: False)
  assert "ffi_call" not in call(rows)


def by_hand(target, source, weight, shape, messages):
  sums = [0] * shape[0]
  for i, j, w in zip(target.tolist(), source.tolist(), weight.tolist()):
    sums[i] += w * messages[j]
  return sums


@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize(("out", "fan_out"), [(7, 7), (99, 3), (1, 1), (64, 7)])
@given(data=st.data())
def test_sums_are_those_of_python(kind, out, fan_out, data):
  rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
  step = data.draw(st.sampled_from([1, 2, 64]))
  found = entries(rng, out, 9, fan_out, LIMITS[kind], step)
  stored = walk.table(*found, (out, 9))
  assert isinstance(stored, walk.Lists) == (fan_out * walk.entry_cost() < out)
  largest = data.draw(st.sampled_from([1, 200]))
  messages = [
    data.draw(st.one_of(st.just(0), st.integers(-largest, largest)))
    for _ in range(9)
  ]
  want = by_hand(*found, (out, 9), messages)
  for form in forms(stored):
    sums = form(stored, jnp.array(messages, jnp.int32))
    assert sums.dtype == jnp.int32
    assert sums.tolist() == want


def test_the_smallest_type_and_the_common_power_are_taken():
  def kept(*weights):
    stored = walk.of_matrix(np.array([weights]))
    return stored.weight.dtype.name, stored.shift

  assert kept(127, -128) == ("int8", 0)
  assert kept(128, -1) == ("int16", 0)
  assert kept(254, -256) == ("int8", 1)
  assert kept(2**15, 1) == ("int32", 0)
  assert kept(0, 0) == ("int8", 0)
  assert kept(-(2**31), 0)[1] == 31
  with pytest.raises(ValueError, match="do not fit 32 bits"):
    walk.of_matrix(np.array([[2**40 + 1]]))


@pytest.mark.parametrize("fan_out", [2, 20])
def test_the_matrix_comes_back(fan_out):
  rng = np.random.default_rng(3)
  target, source, weight = entries(rng, 99, 11, fan_out, 100)
  matrix = np.zeros((99, 11), np.int32)
  matrix[target, source] = weight
  stored = walk.table(target, source, weight, (99, 11))
  assert stored.shape == (99, 11)
  assert (walk.matrix(stored) == matrix).all()
  assert (walk.matrix(walk.of_matrix(matrix)) == matrix).all()


def test_events_are_the_senders_in_order():
  index, count = walk.events(jnp.int32([0, 5, 0, -1, 2]))
  assert int(count) == 3
  assert index[:3].tolist() == [1, 3, 4]
  assert int(walk.events(jnp.zeros(4, jnp.int32))[1]) == 0


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("fan_out", [2, 20])
def test_a_batch_is_its_members_and_int32(fan_out, x64):
  rng = np.random.default_rng(4)
  found = entries(rng, 99, 11, fan_out, 100)
  stored = walk.table(*found, (99, 11))
  messages = rng.integers(-3, 4, (5, 11)).astype(np.int32)
  with jax.enable_x64(x64):
    sums = jax.jit(jax.vmap(lambda m: walk.walk(stored, m)))(messages)
  assert sums.dtype == jnp.int32
  want = [by_hand(*found, (99, 11), m) for m in messages.tolist()]
  assert sums.tolist() == want


def test_a_sum_out_of_range_wraps_like_int32():
  stored = walk.of_matrix(np.array([[2**20, 2**20]]))
  for form in forms(stored):
    assert form(stored, jnp.int32([2**10, 2**10])).tolist() == [-(2**31)]
