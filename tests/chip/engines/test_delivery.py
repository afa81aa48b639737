"""Dense synapses where little is sent: every form, and what is left out."""

import dataclasses

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import jaxnmc as nmc
from jaxnmc.chip.engines import delivery
from jaxnmc.chip.engines.machine import build
from jaxnmc.chip.engines.step import awake
from jaxnmc.kernels import native, packed
from tests.chip.mini import mini

PATTERNS = {
  1: [(0,), (1,)],
  3: [(0, 0, 0), (0, 1, 0), (1, 0, 1), (1, 1, 1)],
}


@pytest.fixture(params=["packed", "planes"])
def form(request):
  if request.param == "packed" and not native.available():
    pytest.skip("no native kernel here")
  return request.param


@pytest.mark.parametrize("pairs", PATTERNS)
def test_sums_and_counts_of_every_pattern(form, pairs, monkeypatch):
  """Against NumPy; silent pairs run no product."""
  draw = np.random.default_rng(pairs)
  codes = draw.integers(-1, 2, (pairs, 2, 5, 70)).astype(np.int8)
  nonzero = (codes != 0).sum(2).transpose(0, 2, 1).astype(np.int8)
  small = jnp.asarray(packed.pack(codes)) if form == "packed" else None
  ran = []
  count = delivery.synops

  def counted(nz, dense):
    jax.debug.callback(lambda: ran.append(1))
    return count(nz, dense)

  monkeypatch.setattr(delivery, "synops", counted)
  dense = jax.jit(lambda x: delivery.dense(x, codes, small, nonzero))
  for pattern in PATTERNS[pairs]:
    x = draw.integers(-32639, 32640, (pairs, 70)).astype(np.int32)
    x[:, ::3] = 0
    x *= np.array(pattern, np.int32)[:, None]
    ran.clear()
    sums, each = jax.block_until_ready(dense(x))
    jax.effects_barrier()
    wide = codes.astype(np.int64)
    np.testing.assert_array_equal(sums, np.einsum("pknj,pj->pkn", wide, x))
    want = np.einsum("pjk,pj->pk", nonzero.astype(int), x != 0)
    np.testing.assert_array_equal(each, want)
    assert len(ran) == sum(pattern)


@pytest.mark.parametrize("pairs", PATTERNS)
def test_no_product_outside_of_a_branch_or_loop(pairs):
  """Also in what the compiler made of it: it may move code out of loops."""
  codes = jnp.ones((pairs, 2, 8, 64), jnp.int8)
  nonzero = jnp.full((pairs, 64, 2), 8, jnp.int8)
  dense = jax.jit(lambda x: delivery.dense(x, codes, None, nonzero))
  text = dense.lower(jnp.ones((pairs, 64), jnp.int32)).compile().as_text()
  entry = text[text.index("\nENTRY") :]
  assert "dot_general" in text
  assert "dot_general" not in entry
  assert "conditional(" in entry or "while(" in entry


def test_the_rule(monkeypatch):
  net = mini(2, 5)
  machine = build(nmc.place(net.graph, nmc.chip.loihi2(chips=1)))
  group = next(g for g in machine.groups if g.kind == "dense")
  other = next(g for g in machine.groups if g.kind != "dense")
  monkeypatch.setattr(native, "available", lambda: True)
  assert delivery.packs(group)
  assert not delivery.packs(other)
  wide = dataclasses.replace(group, weights=2 * group.weights)
  assert not delivery.packs(wide)
  monkeypatch.setattr(native, "available", lambda: False)
  assert not delivery.packs(group)


def test_one_form_of_the_weights_is_held(form, monkeypatch):
  """Both only where sums are checked; and the integers are those of fixed."""
  monkeypatch.setattr(native, "available", lambda: form == "packed")
  net = mini(1, 6)
  placed = nmc.place(net.graph, nmc.chip.loihi2(chips=1))
  run = net.loihi(placed, engine="stepped")
  held = [(w is not None, p is not None) for w, p in _tables(run)]
  assert {(form == "planes", form == "packed")} == set(held) - {(False, False)}
  checked = net.loihi(placed, engine="stepped", checked=True)
  held = [(w is not None, p is not None) for w, p in _tables(checked)]
  assert {(True, form == "packed")} == set(held) - {(False, False)}
  ids = np.array([3, 0, 7, 1], np.int32)
  want = net.fixed(net.qparams, {"ids": ids}, None)
  # A gap longer than the machine is deep: everything falls asleep in it.
  inject = np.array([0, 1, 3, 200])
  found = run(net.qparams, {"ids": ids}, inject=inject)
  jax.tree.map(np.testing.assert_array_equal, found[:2], want)


def _tables(run):
  return zip(run.weights.weights, run.weights.packed, strict=True)


def test_awake_from_the_first_operand_to_the_last_value():
  net = mini(2, 5)
  machine = build(nmc.place(net.graph, nmc.chip.loihi2(chips=1)))
  assert any(cls.program.waits for cls in machine.classes)
  for cls in machine.classes:
    spans = []
    for row in cls.depths:
      reads = [
        row[k] - age
        for k, i in enumerate(cls.program.instructions)
        for _, _, age in i.operands
      ]
      spans.append((min([*reads, *row]), max(row)))
    for at in range(machine.last + 1):
      valid = jnp.arange(machine.last + 1) == at
      want = any(low <= at <= high for low, high in spans)
      assert bool(awake(cls, valid, jnp.asarray(cls.depths))) == want
    assert not awake(cls, valid & False, jnp.asarray(cls.depths))
