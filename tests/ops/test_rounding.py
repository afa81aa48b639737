"""fake_quant of plans that are not integers everywhere."""

import types

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from jaxnmc import quantize
from jaxnmc.errors import FormatError, PlanError
from jaxnmc.numerics.float_formats import rounded
from jaxnmc.numerics.ternary import Ternary
from jaxnmc.ops import rounding, transform
from jaxnmc.quantize import Float, Format, NormFormat, Rule, Scaled
from tools import golden


def made(norm):
  """One layer, 8 wide, and the calibration of its own ids."""
  sizes = {"num_layers": 1, "hidden_size": 8, "intermediate_size": 8}
  case = golden.tiny(norm, vocab_size=8, **sizes)
  stats = quantize.calibrate(case.fn, channels=True)(
    case.params, [case.inputs["ids"]]
  )
  return types.SimpleNamespace(
    fn=case.fn,
    params=case.params,
    inputs={"ids": case.inputs["ids"][:2]},
    stats=stats,
    float_=jax.jit(transform.reference(case.fn, taps=True))(
      case.params, {"ids": case.inputs["ids"][:2]}
    ),
  )


@pytest.fixture(scope="module")
def double():
  return made("double")


@pytest.fixture(scope="module")
def fused():
  return made("fused")


def run(case, plan, taps=True, **kw):
  fn = jax.jit(transform.fake_quant(case.fn, plan, taps=taps))
  return fn(case.params, case.inputs, **kw)


def on_grid(x, fmt):
  """Whether every value is one that the format has."""
  x = np.asarray(x, np.float64)
  if isinstance(fmt, Scaled):
    q = x / np.array(fmt.scales)
  else:
    q = x * 2.0**fmt.frac
  whole = np.abs(q - np.round(q)).max() < 2e-3
  return whole and q.min() >= fmt.low - 0.5 and q.max() <= fmt.high + 0.5


@pytest.mark.parametrize("norm", ["double", "fused"])
def test_a_plan_of_floats_is_the_reference(request, norm):
  case = request.getfixturevalue(norm)
  plan = quantize.plan(case.stats, quantize.PT.replace(eps=None))
  out, state, taps = run(case, plan)
  want, want_state, want_taps = case.float_
  same = np.testing.assert_array_equal if norm == "double" else None
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
  check = same or close
  check(out.logits, want.logits)
  jax.tree.map(check, state, want_state)
  for path in want_taps:
    check(taps[path], want_taps[path])


def test_one_site_alone_is_rounded(double):
  site = "layers.0.attn.i.out"
  rules = [Rule(r"layers\.0\.attn\.i\.out", bits=5)]
  plan = quantize.plan(double.stats, rules)
  *_, taps = run(double, plan)
  want, before = double.float_[2], "layers.0.attn.f.out"
  fmt = plan.site(site)
  given = np.asarray(want[site], np.float64) * 2.0**fmt.frac
  codes = np.clip(np.floor(given + 0.5), -15, 15)
  np.testing.assert_array_equal(taps[site], codes * 2.0**-fmt.frac)
  # What lies before it is untouched, what follows is not.
  np.testing.assert_array_equal(taps["layers.0.attn.f.out"], want[before])
  assert (np.asarray(taps["head.out"]) != np.asarray(want["head.out"])).any()


@pytest.mark.parametrize("norm", ["double", "fused"])
def test_every_site_with_a_format_is_on_its_grid(request, norm):
  case = request.getfixturevalue(norm)
  rules = (
    Rule(r".*\.(u|gated|v)", per="channel"),
    Rule(r".*\.out|embed", scale="free"),
  )
  preset = quantize.paper("W8A8").with_rules(*rules)
  plan = quantize.plan(case.stats, preset.replace(table_bits=6))
  *_, taps = run(case, plan)
  seen = 0
  for path, fmt in plan.formats.items():
    if not isinstance(fmt, Float) and path in taps:
      assert on_grid(taps[path], fmt), (path, fmt)
      seen += 1
  kinds = {type(f) for f in plan.formats.values()}
  assert kinds == {Format, Scaled, Float}
  assert seen > 15
  # Blocks only: the embedding is a table, the logits are no activation there.
  assert isinstance(plan.site("head.out"), Float)


def test_gains_are_rounded(double):
  preset = quantize.paper("W8").replace(weight_bits=3)
  plan = quantize.plan(double.stats, preset)
  fake = run(double, plan)
  params = jax.tree_util.tree_map_with_path(
    lambda key, x: (
      x
      if (role := plan.roles[key_name(key)]).kind != "gain"
      else np.asarray(rounded(jnp.asarray(x), plan.site(role.site), ""))
    ),
    double.params,
    is_leaf=lambda x: isinstance(x, Ternary),
  )
  free = quantize.plan(double.stats, quantize.PT)
  want = jax.jit(transform.fake_quant(double.fn, free))(params, double.inputs)
  np.testing.assert_allclose(fake[0].logits, want[0].logits, rtol=1e-5)
  assert (
    np.asarray(fake[0].logits) != np.asarray(double.float_[0].logits)
  ).any()


def key_name(key):
  return jax.tree_util.keystr(key, simple=True, separator=".")


@pytest.mark.parametrize("norm", ["double", "fused"])
def test_next_to_integers_it_computes_what_integers_do(request, norm):
  # All is as on the chip but for float logits, so each site is a few codes from
  # the integers; scales of matrices have 16 bits there.
  case = request.getfixturevalue(norm)
  chip = quantize.plan(case.stats, quantize.W8A16)
  mixed = chip.with_formats({"head.out": Float()})
  assert chip.integers
  assert not mixed.integers
  qparams = quantize.quantize_params(case.params, chip)
  *_, fixed = jax.jit(transform.fixed(case.fn, chip, taps=True))(
    qparams, case.inputs
  )
  *_, taps = run(case, mixed)
  seen = 0
  for path, value in fixed.items():
    if path not in chip.formats or path == "head.out":
      continue
    want = np.asarray(value.to_float())
    # Roots of the norms differ by what eps and bits make of the means.
    gap = np.abs(np.asarray(taps[path]) - want).max()
    assert gap <= 4e-3 * np.abs(want).max() + 8 * 2.0**-value.frac, path
    seen += 1
  assert seen > 15


def test_sigmoid_of_a_table_or_exact(double):
  plan = quantize.plan(double.stats, quantize.W8A16)
  x = np.linspace(-10, 10, 1001).astype(np.float32)
  exact = 1 / (1 + np.exp(-np.float64(x)))
  table = np.asarray(rounding.Rounding(plan).sigmoid(x))
  whole = table * 2.0**plan.table.out_frac
  np.testing.assert_array_equal(whole, np.round(whole))
  assert 0.01 < np.abs(table - exact).max() < 0.0129
  free = rounding.Rounding(plan.replace(table=None)).sigmoid(x)
  np.testing.assert_allclose(free, exact, atol=1e-6)


def test_roots_of_coarse_means(double):
  plan = quantize.plan(double.stats, quantize.PT.replace(eps=0.25))
  name = "layers.0.attn.norm"
  plan = plan.replace(norms={**plan.norms, name: NormFormat(4, 24)})
  *_, taps = run(double, plan)
  x = np.asarray(double.float_[2]["embed"], np.float64)
  code = np.floor((x**2).mean(-1, keepdims=True) * 16 + 0.5) + 4
  gain = np.asarray(double.params["layers"][0]["attn_norm"])
  want = x / np.sqrt(code / 16) * gain
  np.testing.assert_allclose(taps[name], want, rtol=5e-3)
  exact = np.asarray(double.float_[2][name])
  assert np.abs(want - exact).max() > 0.02 * np.abs(exact).max()


def test_an_eps_that_underflows_is_refused(double):
  preset = quantize.paper("W8A16").replace(norm=NormFormat())
  plan = quantize.plan(double.stats, preset)
  with pytest.raises(FormatError, match="eps 1e-06 underflows at 12"):
    run(double, plan)
  fine = quantize.plan(double.stats, preset.replace(norm=NormFormat(20, 24)))
  run(double, fine)


def test_the_dynamic_quantiser_stays_or_goes(double):
  kept = quantize.plan(double.stats, quantize.A16)
  static = kept.replace(dynamic=False)
  *_, taps = run(double, kept)
  assert "layers.0.attn.i.act.codes" in taps
  *_, taps = run(double, static)
  assert not any(path.endswith(".codes") for path in taps)


def test_chunks_give_what_a_whole_prompt_gives(double):
  plan = quantize.plan(double.stats, quantize.A8)
  fn = jax.jit(transform.fake_quant(double.fn, plan))
  ids = double.inputs["ids"]
  whole, last = fn(double.params, {"ids": ids})
  first, state = fn(double.params, {"ids": ids[:, :2]}, None)
  second, end = fn(double.params, {"ids": ids[:, 2:]}, state)
  both = np.concatenate([first.logits, second.logits], axis=1)
  np.testing.assert_allclose(both, whole.logits, rtol=1e-5, atol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    end,
    last,
  )
  # A state of integers is none of floats.
  chip = quantize.plan(double.stats, quantize.W8A16)
  integers = jax.jit(transform.fixed(double.fn, chip))
  qparams = quantize.quantize_params(double.params, chip)
  _, state = integers(qparams, {"ids": ids[:, :2]})
  with pytest.raises(PlanError, match="expected a float state, found int32"):
    fn(double.params, {"ids": ids[:, 2:]}, state)


# --- training


def test_gradients_go_straight_through_and_stop_at_clips():
  x = jnp.array([0.26, 3.0, -7.0, 1.5])
  for fmt in (Format(8, 6), Scaled(8, (2.0**-6,)), Scaled(8, (2.0**-6,) * 4)):
    grad = jax.grad(lambda x, f=fmt: rounded(x, f, "y").sum())(x)
    np.testing.assert_array_equal(grad, [1, 0, 0, 1])
  with pytest.raises(FormatError, match="y: the plan has scales for 3 ch"):
    rounded(x, Scaled(8, (1.0, 1.0, 1.0)), "y")


def test_training_under_a_mixed_plan():
  def fn(ops, params, inputs, state=None):
    x = ops.embed("embed", params["embed"], inputs["ids"])
    x = ops.norm("n", x, params["gain"], 1e-3)
    y = ops.site("y", ops.linear("w", params["w"], ops.act_quant("act", x)))
    return ops.silu("z", y), state

  draw = np.random.default_rng(4)
  params = {
    "embed": draw.normal(size=(4, 6)).astype(np.float32),
    "gain": np.ones(6, np.float32),
    "w": draw.normal(size=(5, 6)).astype(np.float32),
  }
  inputs = {"ids": np.arange(4, dtype=np.int32)}
  stats = quantize.calibrate(fn)(params, [inputs])
  real = lambda p: transform.reference(fn)(p, inputs)[0].sum()
  want = jax.jit(jax.grad(real))(params)
  preset = quantize.W8A16.replace(dynamic=True)  # mixed, table and norms
  for plan in (
    quantize.plan(stats, preset),
    quantize.plan(stats, [Rule(".*", bits=12, scale="free")]),
  ):
    fake = transform.fake_quant(fn, plan)
    grads = jax.jit(jax.grad(lambda p, f=fake: f(p, inputs)[0].sum()))(params)
    for key, grad in grads.items():
      a, b = np.ravel(grad), np.ravel(want[key])
      norms = np.linalg.norm(a) * np.linalg.norm(b)
      assert a @ b > 0.95 * norms > 0, key


# --- half precision


def test_half_precision_stores_every_value(double):
  plan = quantize.plan(double.stats, quantize.FP16.replace(eps=None))
  out, state, taps = run(double, plan)
  assert out.logits.dtype == jnp.float16
  assert {x.dtype for x in jax.tree.leaves(state)} == {jnp.dtype("float16")}
  want, _, want_taps = double.float_
  h = "layers.0.attn.mlgru.h"
  assert taps[h].dtype == jnp.float32  # within the scan
  assert taps["layers.0.attn.u"].dtype == jnp.float16
  close = np.abs(np.asarray(want_taps["layers.0.mid"])).max()
  gap = np.abs(taps["layers.0.mid"] - want_taps["layers.0.mid"]).max()
  assert 0 < gap < 0.02 * close


def test_ternary_values_in_half_precision():
  codes = np.array([[1, 0, -1]], np.int8)
  half = np.float16
  weight = Ternary(jnp.asarray(codes), jnp.asarray(0.3, jnp.float16))
  want = codes * (half(1) / (half(1) / half(0.3)))
  np.testing.assert_array_equal(rounding.half_ternary(weight), want)
  latent = np.array([[0.3, -0.1, 0.02, -0.5]], half)
  c = half(np.abs(latent.astype(np.float32)).mean())
  want = np.clip(np.round(latent * (half(1) / c)), -1, 1) / (half(1) / c)
  got = rounding.half_ternary(jnp.asarray(latent))
  np.testing.assert_array_equal(got, want.astype(half))
  assert got.dtype == jnp.float16


def test_bfloat16_is_coarser(double):
  errors = []
  for dtype in ("float16", "bfloat16"):
    preset = quantize.FP16.replace(eps=None, dtype=dtype)
    _, _, taps = run(double, quantize.plan(double.stats, preset))
    site = "layers.0.attn.i.out"
    errors.append(np.abs(taps[site] - double.float_[2][site]).mean())
  assert errors[0] < errors[1]


def test_half_precision_sums_up_in_float32(double):
  plan = quantize.plan(double.stats, quantize.FP16)
  ops = rounding.Rounding(plan)
  draw = np.random.default_rng(0)
  a = draw.normal(size=(3, 700)).astype(np.float16)
  b = draw.normal(size=(700, 2)).astype(np.float16)
  wide = lambda x: x.astype(np.float64)
  for got, want in (
    (ops.sum(a), wide(a).sum(-1, keepdims=True)),
    (ops.matmul(a, b), wide(a) @ wide(b)),
    (ops.silu("head.out", a), wide(a) / (1 + np.exp(-wide(a)))),
    (ops.sigmoid(a), 1 / (1 + np.exp(-wide(a)))),
  ):
    assert got.dtype == jnp.float16
    # One rounding at the end: half a unit in the last place, and a little.
    np.testing.assert_allclose(wide(np.asarray(got)), want, rtol=6e-4)
  kept = ops.act_quant("act", a)
  codes = np.round(wide(a) * 127 / np.abs(wide(a)).max(-1, keepdims=True))
  want = codes * np.abs(wide(a)).max(-1, keepdims=True) / 127
  np.testing.assert_allclose(wide(np.asarray(kept)), want, rtol=6e-4)
