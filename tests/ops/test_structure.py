"""Scan, vmap, the tape and the guard: how measurements leave a model."""

import chex
import jax
import numpy as np
import pytest
from absl.testing import parameterized
from jax import lax
from jax import numpy as jnp

from jaxnmc import quantize
from jaxnmc.errors import FormatError, PlanError, TransformError
from jaxnmc.numerics.fx import Fx
from jaxnmc.ops import transform
from jaxnmc.ops.alu import IntAlu
from jaxnmc.ops.quantized import Quantized
from jaxnmc.ops.record import record
from jaxnmc.ops.reference import Reference
from jaxnmc.ops.stores import IntStore
from jaxnmc.quantize import Plan

V, D, HEADS, T = 7, 8, 2, 5
RNG = np.random.default_rng(3)
PARAMS = {
  name: RNG.normal(size=shape).astype(np.float32)
  for name, shape in {
    "embed": (V, D),
    "q": (D, D),
    "k": (D, D),
    "v": (D, D),
  }.items()
}
IDS = RNG.integers(0, V, (3, T)).astype(np.int32)


@pytest.mark.parametrize("names", [(), ("norm",), ("layers",)])
def test_a_scope_called_layers_without_a_number_is_no_layer(names):
  def fn(ops, params, inputs, state=None):
    x = ops.embed("embed", params["embed"], inputs["ids"])
    with ops.at("layers", *names):
      y = ops.site("y", ops.add(x, x))
    with ops.layer(3):
      return ops.site("z", ops.add(y, y)), state

  params = {"embed": PARAMS["embed"]}
  plan = quantize.plan(quantize.calibrate(fn)(params, [IDS]), quantize.W8A16)
  graph = record(fn, plan, quantize.quantize_params(params, plan))
  layers = {node.site: node.layer for node in graph.nodes if node.site}
  assert layers.pop("layers.3.z") == 3
  assert set(layers.values()) == {None}


def split(x):
  """[T, H n] -> [H, T, n], for floats and fixed point."""

  def of(q):
    return jnp.moveaxis(q.reshape(*q.shape[:-1], HEADS, -1), -2, 0)

  return x.replace(q=of(x.q)) if isinstance(x, Fx) else of(x)


def transpose(x):
  if isinstance(x, Fx):
    return x.replace(q=jnp.swapaxes(x.q, -1, -2))
  return jnp.swapaxes(x, -1, -2)


def attention(ops, params, inputs, state=None):
  """Unnormalised attention over heads: sigmoid(q k^T) v, by ops.vmap."""
  x = ops.embed("embed", params["embed"], inputs["ids"])
  q, k, v = (
    split(ops.site(n, ops.linear(n, params[n], x))) for n in ("q", "k", "v")
  )

  def head(ops, q, k, v):
    score = ops.site("score", ops.matmul(q, transpose(k)))
    weight = ops.site("weight", ops.sigmoid(score), unit=True)
    return ops.site("out", ops.matmul(weight, v))

  return ops.vmap("heads", head, q, k, v), state


# Small formats keep the sums of products inside 32 bits.
PRESET = quantize.W8A16.replace(act_bits=12)


@pytest.fixture(scope="module")
def attended():
  stats = quantize.calibrate(attention)(PARAMS, [IDS])
  plan = quantize.plan(stats, PRESET)
  qparams = quantize.quantize_params(PARAMS, plan)
  run = jax.jit(transform.fixed(attention, plan, taps=True))
  return stats, plan, qparams, run(qparams, {"ids": IDS})


def test_heads_are_measured_over_all_heads(attended):
  stats, plan, _, _ = attended
  _, _, taps = transform.reference(attention, taps=True)(PARAMS, {"ids": IDS})
  for site in ("heads.score", "heads.out", "q", "embed"):
    if site == "embed":
      want = np.abs(PARAMS["embed"]).max()
    else:
      want = np.abs(taps[site]).max()
    assert stats.ranges[site] == pytest.approx(float(want), rel=1e-6)
  assert taps["heads.score"].shape == (3, HEADS, T, T)
  assert "heads.weight" in stats.notes.units
  assert plan.format("heads.weight").unit


def test_heads_in_integers_equal_numpy(attended):
  _, plan, qparams, (out, _, taps) = attended
  tree = qparams.tree
  x = np.asarray(tree["embed"].q, np.int64)[IDS]
  frac = plan.format("embed").frac

  def rounded(x, have, path):
    fmt = plan.format(path)
    shift = have - fmt.frac
    if shift <= 0:
      x = x << -shift
    else:
      x = (x + (1 << (shift - 1))) >> shift
    return np.clip(x, fmt.low, fmt.high)

  def heads(name):
    w = tree[name]
    y = (x @ np.asarray(w.codes, np.int64).T) * int(w.mult)
    y = rounded(y, frac + w.exp, name)
    return np.moveaxis(y.reshape(3, T, HEADS, -1), 2, 1)

  f = {n: plan.format(n).frac for n in "qkv"}
  q, k, v = map(heads, "qkv")
  score = rounded(q @ k.swapaxes(-1, -2), f["q"] + f["k"], "heads.score")
  np.testing.assert_array_equal(taps["heads.score"].q, score)
  weight = np.asarray(taps["heads.weight"].q, np.int64)
  have = plan.format("heads.weight").frac + f["v"]
  want = rounded(weight @ v, have, "heads.out")
  np.testing.assert_array_equal(out.q, want)


def test_heads_are_close_to_float(attended):
  _, _, _, (out, _, _) = attended
  # The reference's matrices are ternary too; only rounding and the table's
  # error (0.012 of a weight) are between them.
  want, _ = transform.reference(attention)(PARAMS, {"ids": IDS})
  v = np.abs(PARAMS["v"]).mean() * D * np.abs(PARAMS["embed"]).max()
  assert np.abs(out.to_float() - want).max() < 0.02 * T * v


def test_saturations_of_heads_add_up(attended):
  _, plan, _, _ = attended
  low = plan.format("heads.score")
  plan = plan.with_formats(
    {"heads.score": quantize.Format(low.bits, low.frac + 3)}
  )
  qparams = quantize.quantize_params(PARAMS, plan)
  run = transform.fixed(attention, plan, taps=True, saturation=True)
  _, _, taps = jax.jit(run)(qparams, {"ids": IDS})
  q, k = taps["q"], taps["k"]
  heads = lambda x: np.moveaxis(
    np.asarray(x.q, np.int64).reshape(3, T, HEADS, -1), 2, 1
  )
  score = heads(q) @ heads(k).swapaxes(-1, -2)
  shift = q.frac + k.frac - plan.format("heads.score").frac
  score = (score + (1 << (shift - 1))) >> shift
  beyond = np.abs(score) > plan.format("heads.score").high
  assert beyond.any()
  want = beyond.sum((1, 2, 3))
  np.testing.assert_array_equal(taps["heads.score.saturated"], want)


# --- raw JAX transforms inside a model


def raw_scan(ops, params, inputs, state=None):
  x = ops.embed("embed", params["embed"], inputs["ids"])

  def step(carry, row):
    del carry
    y = ops.site("y", row)
    return y, y

  return lax.scan(step, jax.tree.map(lambda a: a[0], x), x)[1], state


def raw_vmap(ops, params, inputs, state=None):
  x = ops.embed("embed", params["embed"], inputs["ids"])
  return jax.vmap(lambda row: ops.site("y", row))(x), state


def raw_jit(ops, params, inputs, state=None):
  x = ops.embed("embed", params["embed"], inputs["ids"])
  return jax.jit(lambda x: ops.linear("w", params["q"], x))(x), state


def raw_cond(ops, params, inputs, state=None):
  x = ops.embed("embed", params["embed"], inputs["ids"])
  site = lambda x: ops.site("y", x)
  return lax.cond(True, site, site, x), state


def raw_grad(ops, params, inputs, state=None):
  x = ops.embed("embed", params["embed"], inputs["ids"])
  return jax.grad(lambda x: jnp.sum(ops.site("y", x)))(x), state


def ops_scan(ops, params, inputs, state=None):
  x = ops.embed("embed", params["embed"], inputs["ids"])

  def step(ops, carry, row):
    y = ops.site("y", row)
    return y, y

  return ops.scan("loop", step, ops.zeros(x), x)[1], state


def leaked_ops(ops, params, inputs, state=None):
  """The body of ops.scan that uses the outer ops by mistake."""
  x = ops.embed("embed", params["embed"], inputs["ids"])

  def step(inner, carry, row):
    del inner
    y = ops.site("y", row)
    return y, y

  return ops.scan("loop", step, ops.zeros(x), x)[1], state


def transforms_of(fn):
  """The function under every interpreter that keeps measurements."""
  plan = Plan(
    "raw",
    {k: quantize.Format(16, 12) for k in ("embed", "y", "loop.y")},
    {},
    {},
    quantize.SigmoidTable(),
    None,
  )
  table = {"embed": PARAMS["embed"]}
  if fn is raw_jit:
    table["q"] = PARAMS["q"]
  roles = quantize.calibrate(ops_scan)(
    {"embed": PARAMS["embed"]}, [IDS[0]]
  ).roles
  q = quantize.params.matrix(PARAMS["q"])
  qparams = quantize.QParams({"q": q}, plan.fingerprint, "")
  embed = quantize.quantize_params(
    {"embed": PARAMS["embed"]}, plan.replace(roles=roles)
  ).tree["embed"]
  qparams.tree["embed"] = embed
  inputs = {"ids": IDS[0]}
  return {
    "observe": lambda: quantize.calibrate(fn)(table, [inputs]),
    "fixed": lambda: transform.fixed(fn, plan)(qparams, inputs),
    "taps": lambda: transform.fixed(fn, plan, taps=True)(qparams, inputs),
    "fake_quant": lambda: transform.fake_quant(fn, plan)(table, inputs),
    "reference taps": lambda: transform.reference(fn, taps=True)(table, inputs),
  }


KINDS = ("observe", "fixed", "taps", "fake_quant", "reference taps")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fn", [raw_scan, raw_vmap, raw_cond, leaked_ops])
def test_raw_transform_is_refused(fn, kind):
  with pytest.raises(TransformError, match=r"\by: used inside a raw JAX") as e:
    transforms_of(fn)[kind]()
  assert "ops.scan" in str(e.value)


@pytest.mark.parametrize("kind", KINDS)
def test_raw_jit_around_a_product_is_refused(kind):
  with pytest.raises(TransformError, match=r"w: used inside a raw JAX"):
    transforms_of(raw_jit)[kind]()


def test_raw_grad_is_refused():
  with pytest.raises(TransformError, match="grad"):
    transforms_of(raw_grad)["reference taps"]()


@pytest.mark.parametrize("kind", KINDS)
def test_ops_scan_is_accepted(kind):
  transforms_of(ops_scan)[kind]()


def test_transforms_around_the_whole_function_are_fine():
  run = transform.reference(ops_scan)
  table = {"embed": PARAMS["embed"]}
  loss = lambda p, ids: jnp.sum(run(p, {"ids": ids})[0] ** 2)
  mapped = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(table, IDS)
  one = jax.grad(loss)(table, IDS[0])
  np.testing.assert_allclose(mapped["embed"][0], one["embed"], rtol=1e-6)


# --- scan


class Scan(chex.TestCase):
  """The carry of a scan and its format."""

  PLAN = Plan(
    "scan",
    {"cell.h": quantize.Format(8, 3)},
    {},
    {},
    quantize.SigmoidTable(),
    0,
  )

  def run_scan(self, body, init, xs):
    ops = Quantized(self.PLAN, IntAlu(), IntStore())
    init = ops.zeros(xs) if init is None else init
    return ops.scan("cell", body, init, xs)

  @staticmethod
  def body(ops, h, x):
    h = ops.site("h", ops.add(h, x))
    return h, h

  def xs(self, q):
    return Fx(jnp.asarray(q, jnp.int32), frac=5, low=-99, high=99)

  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.parameters(1, 2, 6)
  def test_any_cut_gives_the_same_carry(self, cut):
    q = RNG.integers(-99, 100, (7, 3))
    run = self.variant(lambda init, xs: self.run_scan(self.body, init, xs))
    last, ys = run(None, self.xs(q))
    carry, first = run(None, self.xs(q[:cut]))
    carry, second = run(carry, self.xs(q[cut:]))
    both = np.concatenate([first.q, second.q])
    chex.assert_trees_all_equal(np.asarray(ys.q), both)
    chex.assert_trees_all_equal(carry, last)
    assert (carry.frac, carry.low, carry.high) == (3, -127, 127)

  def test_growing_carry_is_refused(self):
    def body(ops, h, x):
      h = ops.add(h, x)
      return h, h

    with pytest.raises(FormatError, match="cell.*ops.site"):
      self.run_scan(body, None, self.xs(np.ones((4, 3))))

  def test_state_of_another_plan_is_refused(self):
    other = Fx(jnp.zeros(3, jnp.int32), frac=4, low=-127, high=127)
    with pytest.raises(PlanError, match="cell: the state has 4 fraction bits"):
      self.run_scan(self.body, other, self.xs(np.ones((4, 3))))

  def test_float_state_is_refused(self):
    with pytest.raises(PlanError, match="cell: .*fixed-point state"):
      self.run_scan(self.body, jnp.zeros(3), self.xs(np.ones((4, 3))))

  def test_counts_of_steps_add_up(self):
    q = np.full((9, 3), 99)
    ops = Quantized(self.PLAN, IntAlu(), IntStore(), saturation=True)
    ops.scan("cell", self.body, ops.zeros(self.xs(q)), self.xs(q))
    h, count = 0, 0
    for _ in range(9):
      h = (4 * h + 99 + 2) >> 2
      count += 3 * (h > 127)
      h = min(h, 127)
    assert count
    assert int(ops.tape.values["cell.h.saturated"]) == count

  def test_taps_are_stacked_over_steps(self):
    q = RNG.integers(-99, 100, (7, 3))
    ops = Quantized(self.PLAN, IntAlu(), IntStore(), taps=True)
    _, ys = ops.scan("cell", self.body, ops.zeros(self.xs(q)), self.xs(q))
    chex.assert_trees_all_equal(ops.tape.values["cell.h"].q, ys.q)


def test_reference_measures_every_step_of_a_scan():
  ops = Reference(taps=True)
  xs = jnp.arange(6.0).reshape(3, 2)

  def body(ops, h, x):
    h = ops.site("h", ops.add(h, x))
    return h, h

  _, ys = ops.scan("cell", body, jnp.zeros(2), xs)
  np.testing.assert_array_equal(ops.tape.values["cell.h"], ys)
  np.testing.assert_array_equal(ys, np.cumsum(xs, axis=0))
