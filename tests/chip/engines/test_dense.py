"""A network of dense products: one truth from `fake_quant` to both engines."""

import dataclasses
import functools

import chex
import jax
import numpy as np
import pytest
from flax import struct
from jax import numpy as jnp

import jaxnmc as nmc
from jaxnmc import _compat
from jaxnmc.kernels import native
from jaxnmc.models.inputs import token_check
from jaxnmc.numerics.fx import Fx
from jaxnmc.numerics.weights import QDense
from jaxnmc.ops import one_token
from tests import oracle

VOCAB, WIDTH, HIDDEN = 9, 6, 11
IDS = np.array([3, 0, 8, 5, 5, 1, 7, 2], np.int32)


@struct.dataclass
class Out:
  y: jax.Array


def cell(ops, carry, now):
  keep, u = now
  h = ops.site("h", ops.add(ops.mul(keep, carry), u), align="u")
  return h, h


def make(tied: bool):
  """Dense with bias, ReLU, dense, a recurrence with a ternary gate, dense."""

  def fn(ops, params, inputs, state=None):
    table = params["embed"]["weight"]
    x = ops.embed("embed", table, inputs["ids"])
    ends = []
    for k, p in enumerate(params["layers"]):
      with ops.layer(k):
        up = ops.dense("up", p["up"]["weight"], x, p["up"]["bias"])
        up = ops.site("relu", ops.max(up, ops.zeros(up)))
        u = ops.dense("u", p["u"]["weight"], up)
        f = ops.site("f", ops.linear("gate", p["gate"]["weight"], up))
        keep = ops.site("keep", ops.sigmoid(f))
        init = ops.zeros(u) if state is None else state[k]
        end, h = ops.scan("cell", cell, init, (keep, u))
        x = ops.site("out", ops.add(h, x))
      ends.append(end)
    if tied:
      return Out(ops.dense("head", table, x, tied=ops.path("embed"))), ends
    head = params["head"]
    return Out(ops.dense("head", head["weight"], x, head["bias"])), ends

  fn.check_inputs = token_check(VOCAB)
  return fn


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
  fn: object
  params: dict
  plan: object
  qparams: object
  placement: object
  taps: tuple  # (outputs, state, sites) of `fixed`

  def engine(self, **options):
    return nmc.loihi(self.fn, self.plan, self.placement, **options)


PRESETS = {
  "own head": nmc.quantize.W8A16,
  "tied head": nmc.quantize.W8A16.replace(table_bits=8),
  # Fewer bits, and messages of one digit.
  "W5A8": nmc.quantize.W8A8.replace(weight_bits=5),
}


@functools.cache
def build(name: str) -> Case:
  draw = np.random.default_rng(11)
  tied = name == "tied head"

  def matrix(out, inp):
    return np.float32(draw.normal(size=(out, inp)) / inp**0.5)

  def dense(out, inp):
    return {
      "weight": matrix(out, inp),
      "bias": np.float32(draw.normal(size=out)),
    }

  params = {
    "embed": {"weight": matrix(VOCAB, WIDTH)},
    "layers": [
      {
        "up": dense(HIDDEN, WIDTH),
        "u": {"weight": matrix(WIDTH, HIDDEN)},
        "gate": {"weight": matrix(WIDTH, HIDDEN)},
      }
      for _ in range(2)
    ],
  }
  if not tied:
    params["head"] = dense(VOCAB, WIDTH)
  fn = make(tied)
  stats = nmc.calibrate(fn)(params, [IDS])
  plan = nmc.plan(stats, PRESETS[name])
  qparams = nmc.quantize_params(params, plan)
  graph = nmc.record(fn, plan, qparams)
  hardware = nmc.chip.loihi2(chips=2, cores_per_chip=6)
  placement = nmc.place(graph, hardware, head="chip")
  taps = jax.jit(nmc.fixed(fn, plan, taps=True))(qparams, {"ids": IDS})
  return Case(fn, params, plan, qparams, placement, taps)


@pytest.fixture(scope="module", params=PRESETS)
def case(request):
  return build(request.param)


def codes(x):
  return np.asarray(x.q if isinstance(x, Fx) else x)


def test_fake_quant_in_float64_equals_fixed_at_every_site(case):
  sites = case.taps[2]
  with jax.enable_x64(True):
    params = jax.tree.map(np.float64, case.params)
    run = jax.jit(nmc.fake_quant(case.fn, case.plan, taps=True))
    fake = run(params, {"ids": IDS})[2]
  assert list(fake) == list(sites)
  for path, value in sites.items():
    assert codes(fake[path]).dtype == np.float64
    np.testing.assert_array_equal(codes(fake[path]), codes(value), path)


def test_every_site_equals_pythons_integers(case):
  """The equations of the page, token by token, from float parameters."""
  formats = {
    path: oracle.Fmt(f.bits, f.frac, f.unit)
    for path, f in case.plan.formats.items()
  }
  table = oracle.Table(*dataclasses.astuple(case.plan.table))
  truth = oracle.Oracle(formats, 1e-3, table=table)
  rows = lambda x: x.tolist()
  dense = lambda at, p: oracle.dense(rows(p["weight"]), formats[at + ".weight"])

  def bias(at, p):
    return oracle.quantise(rows(p["bias"]), formats[at + ".bias"])

  params = case.params
  embed = oracle.dense(rows(params["embed"]["weight"]), formats["embed"])
  states = [[0] * WIDTH for _ in params["layers"]]
  for token in IDS:
    x = oracle.Vector(embed.codes[token], embed.frac)
    for k, p in enumerate(params["layers"]):
      at = f"layers.{k}."
      up = truth.dense(
        at + "up", dense(at + "up", p["up"]), x, bias(at + "up", p["up"])
      )
      positive = [max(v, 0) for v in up.q]
      up = truth.site(at + "relu", positive, up.frac)
      u = truth.dense(at + "u", dense(at + "u", p["u"]), up)
      f = truth.product(at + "f", oracle.ternary(rows(p["gate"]["weight"])), up)
      keep = truth.site(at + "keep", truth.table_sigmoid(f), table.out_frac)
      h = oracle.Vector(states[k], formats[at + "cell.h"].frac)
      kept = [a * b for a, b in zip(keep.q, h.q)]
      kept = oracle.Vector(kept, keep.frac + h.frac)
      h = truth.plus(at + "cell.h", kept, u)
      states[k] = h.q
      x = truth.plus(at + "out", h, x)
    if "head" in params:
      p = params["head"]
      truth.dense("head", dense("head", p), x, bias("head", p))
    else:
      truth.dense("head", embed, x)
  for path, value in truth.taps.items():
    np.testing.assert_array_equal(codes(case.taps[2][path]), value, path)
  assert set(case.taps[2]) == {*truth.taps, "embed"}


def test_both_engines_give_the_integers_of_fixed(case):
  """The functional one evaluates the recorded graph (`ops.execute`)."""
  want, last, _ = case.taps
  counts = []
  for options in ({}, {"engine": "stepped"}):
    engine = case.engine(**options)
    out, state, counted = engine(case.qparams, {"ids": IDS})
    chex.assert_trees_all_equal((out, state), (want, last))
    counts.append(counted)
    # A prompt, then a token alone, from the state between.
    _, state, _ = engine(case.qparams, {"ids": IDS[:7]})
    out, state, _ = engine(case.qparams, {"ids": IDS[7:]}, state)
    np.testing.assert_array_equal(codes(out.y), codes(want.y)[7:])
    chex.assert_trees_all_equal(state, last)
  # With waits between tokens.
  late = [0, 3, 4, 9, 30, 31, 50, 51]
  out, state, _ = engine(case.qparams, {"ids": IDS}, inject=late)
  chex.assert_trees_all_equal((out, state), (want, last))
  for name in ("synops", "messages_in", "messages_out"):
    one, two = (c.total(name) for c in counts)
    np.testing.assert_array_equal(one, two)
    assert np.sum(one) > 0


def test_saturations_are_counted_and_change_nothing():
  """The interpreter of `fixed` counts for the functional engine."""
  case = build("own head")
  out = case.engine(saturation=True)(case.qparams, {"ids": IDS})
  chex.assert_trees_all_equal(out[:2], case.taps[:2])


def test_what_is_stored_is_8_bits(case):
  """Codes of the parameters are those of the synapses, and use their bits."""
  net = case.placement.network
  is_dense = lambda x: isinstance(x, QDense)
  leaves = jax.tree.leaves(case.qparams.tree, is_leaf=is_dense)
  mine = [np.asarray(x.codes) for x in leaves if is_dense(x)]
  assert len(mine) == (4 if "head" not in case.params else 5)
  high = case.plan.format("layers.0.up.weight").high
  wide = [s for s in net.synapses if s.kind == "dense" and s.span[1] > 1]
  assert len(wide) == 5
  for synapse in wide:
    assert synapse.weights.dtype == np.int8
    assert high // 2 <= max(map(abs, synapse.span)) <= max(high, 127)
    bits = case.placement.encodings[synapse.index].bits
    assert bits in (8, 8 + case.placement.hardware.sparse_index_bits)
  for codes_ in mine:
    assert any(np.array_equal(codes_, s.weights) for s in wide)


def test_a_token_with_8_bit_weights_takes_xla():
  """The native interpreter has ternary products only."""
  engine = build("own head").engine()
  numbers = engine._load()[0]
  stacks = [w for data in numbers for w in data.matrices]
  packed = [w.packed is not None for w in stacks]
  assert packed.count(False) == 3  # up and u of both layers, and the head
  assert packed.count(True) == (1 if native.available() else 0)
  assert not one_token.possible(engine._exe, numbers)
  assert len(engine._exe.runs[0].layers) == 2, "equal layers are one run"


def test_no_float():
  case = build("own head")
  traced = [
    jax.make_jaxpr(nmc.fixed(case.fn, case.plan))(case.qparams, {"ids": IDS}),
    jax.make_jaxpr(case.engine().traced)(case.qparams, {"ids": IDS}),
  ]
  for jaxpr in traced:
    kinds = {
      v.aval.dtype
      for inner in _compat.all_jaxprs(jaxpr.jaxpr)
      for eqn in inner.eqns
      for v in eqn.outvars
    }
    assert kinds
    assert not [k for k in kinds if jnp.issubdtype(k, jnp.floating)]
