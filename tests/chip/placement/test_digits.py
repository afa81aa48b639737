"""Wide weights and messages as sums of digits: every integer is kept."""

import dataclasses

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

import jaxnmc as nmc
from jaxnmc.chip import hardware, network
from jaxnmc.chip.placement import digits
from jaxnmc.errors import PlacementError, PlanError
from jaxnmc.ops.alu import IntAlu
from tests.chip.tiny import TINY, tiny_model

IDS = np.array([3, 1, 4, 1, 5, 9, 2, 6], np.int32)


@hypothesis.given(
  values=st.lists(st.integers(-(2**70), 2**70), min_size=1, max_size=9),
  bits=st.integers(2, 33),
)
def test_digits_add_up_and_are_legal(values, bits):
  found, shifts = digits.split(np.array(values, object), bits)
  for i, value in enumerate(values):
    each = [int(d[i]) for d in found]
    assert sum(d << s for d, s in zip(each, shifts)) == value
    assert all(-(1 << bits - 1) <= d < 1 << bits - 1 for d in each)
  # As few as hold the range: one less would not.
  n = len(found)
  ones = sum(1 << bits * k for k in range(n - 1))
  low, high = -(1 << bits - 1) * ones, ((1 << bits - 1) - 1) * ones
  assert n == 1 or min(values) < low or max(values) > high


@pytest.mark.parametrize(
  ("low", "high", "n"),
  [
    (0, 0, 1),
    (-128, 127, 1),
    (-129, 0, 2),
    (0, 128, 2),
    (-32896, 32639, 2),
    (0, 32640, 3),
    (-32897, 0, 3),
  ],
)
def test_how_many_digits_of_8_bits(low, high, n):
  assert digits.count(low, high, 8) == n
  assert len(digits.split([low, high], 8)[0]) == n


def test_what_cannot_be_split():
  with pytest.raises(PlacementError, match="need 2 digits of 8 bits, not 1"):
    digits.split([300], 8, digits=1)
  with pytest.raises(PlacementError, match="2 bits or more, not 1"):
    digits.split([3], 1)
  with pytest.raises(PlacementError, match="float64"):
    digits.split([0.5], 8)


@pytest.fixture(scope="module")
def model():
  fn, _, plan, qparams = tiny_model("fused")
  return fn, plan, qparams, nmc.record(fn, plan, qparams)


@pytest.mark.slow
def test_narrow_messages_keep_every_integer(model):
  """In both engines, which count the digits alike."""
  fn, plan, qparams, graph = model
  inputs = {"ids": IDS % TINY.vocab_size}
  want = nmc.fixed(fn, plan)(qparams, inputs)
  chip = hardware.loihi2(chips=4, message_bits=8)
  placed = nmc.place(graph, chip, head="chip")
  counters = []
  for engine in ("functional", "stepped"):
    out = nmc.loihi(fn, plan, placed, engine=engine)(qparams, inputs)
    for a, b in zip(jax.tree.leaves(want), jax.tree.leaves(out[:2])):
      np.testing.assert_array_equal(a, b)
    counters.append(out[2])
  one, two = counters
  for name in one.names:
    np.testing.assert_array_equal(one.total(name), two.total(name), name)


@pytest.mark.parametrize("bits", [2, 8, 13, 16, 24])
def test_every_message_is_narrow_and_takes_no_step(model, bits):
  graph = model[3]
  chip = hardware.loihi2(chips=4, message_bits=bits)
  one, many = (network.network(g) for g in (graph, digits.narrow(graph, chip)))
  assert one.steps_per_layer == many.steps_per_layer
  spans = digits.ranges(many.graph)
  for synapse in many.synapses:
    low, high = spans[synapse.source]
    source = many.graph.nodes[synapse.source]
    assert source.op == "input" or digits.count(low, high, bits) == 1
  assert (len(many.synapses) > len(one.synapses)) == (bits < 24)
  if bits < 24:
    with pytest.raises(PlacementError, match=f"has {bits} bits .message_bits"):
      nmc.place(one, chip)


def test_no_mask_and_no_saturations_with_digits(model):
  fn, plan, qparams, graph = model
  placed = nmc.place(graph, hardware.loihi2(chips=4, message_bits=8))
  run = nmc.loihi(fn, plan, placed, saturation=True)
  with pytest.raises(PlanError, match="several messages .message_bits"):
    run(qparams, {"ids": IDS % TINY.vocab_size})


def _widened(graph, factor):
  """The graph with dense weights times `factor`, and small messages."""
  nodes = [
    dataclasses.replace(n, data=n.data.astype(np.int32) * factor)
    if n.op == "dense"
    else n
    for n in graph.nodes
  ]
  return dataclasses.replace(graph, nodes=tuple(nodes))


def _evaluate(graph, row):
  """All nodes of one token, in Python's integers where it matters."""
  alu, values = IntAlu(), []
  for node in graph.nodes:
    args = [values[i] for i in node.args]
    if node.op == "input":
      value = row
    elif node.op == "const":
      value = node.data
    elif node.op == "prev":
      value = np.zeros(node.width, np.int32)
    elif node.op == "dense":
      sums = node.data.astype(object) @ np.asarray(args[0]).astype(object)
      value = ((sums + 2**31) % 2**32 - 2**31).astype(np.int32)
    elif node.op in ("sum", "broadcast"):
      value = getattr(alu, node.op)(args[0], **dict(node.static))
    else:
      value = getattr(alu, node.op)(*args, **dict(node.static))
    values.append(np.asarray(value))
  return values


@pytest.mark.parametrize("factor", [-1, 129, -32897])
def test_wide_weights_keep_every_integer(model, factor):
  _, _, _, graph = model
  wide = _widened(graph, factor)
  chip = hardware.loihi2(message_bits=15)
  narrow = digits.narrow(wide, chip)
  row = wide.inputs[0].data[7].astype(np.int32)
  a, b = _evaluate(wide, row), _evaluate(narrow, row)
  named = lambda g, v: {n.site: v[n.id] for n in g.nodes if n.site}
  before, after = named(wide, a), named(narrow, b)
  assert set(before) <= set(after)
  for site, value in before.items():
    np.testing.assert_array_equal(value, after[site], site)
  for node in narrow.nodes:
    if node.op == "dense":
      assert node.data.min() >= -128
      assert node.data.max() <= 127
  n = digits.count(-abs(factor), abs(factor), 8)
  stored = lambda g: sum(n.data.size for n in g.nodes if n.op == "dense")
  only_weights = digits.narrow(wide, hardware.loihi2())
  assert stored(only_weights) == n * stored(wide)


def test_nothing_is_rewritten_for_a_loihi_2(model):
  graph = model[3]
  assert digits.narrow(graph, hardware.loihi2()) is graph
