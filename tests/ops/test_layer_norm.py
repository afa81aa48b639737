"""LayerNorm in integers: docs/numerics.md, 6.3, in Python's own integers."""

import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnmc.errors import FormatError, PlanError
from jaxnmc.numerics.formats import Format, NormFormat
from jaxnmc.numerics.fx import Fx
from jaxnmc.numerics.weights import QVector
from jaxnmc.ops.alu import IntAlu
from jaxnmc.ops.alu_float import FloatAlu
from jaxnmc.ops.observe import Notes, Observe, label_leaves
from jaxnmc.ops.quantized import Quantized
from jaxnmc.ops.reference import Reference, layer_norm
from jaxnmc.ops.stores import FloatStore, IntStore
from jaxnmc.quantize import Plan, SigmoidTable
from tests import oracle

EPS = 1e-3
INNER = ("l.sum", "l.centred", "l.root", "l.scaled", "l")


def plan_of(inner, middle, out, bias):
  formats = {
    "l.centred": inner,
    "l.scaled": middle,
    "l": out,
    "l.bias": bias,
    "l.gain": Format(8, 6),
  }
  norms = {"l": NormFormat()}
  return Plan("by hand", formats, norms, {}, SigmoidTable(), EPS)


def value(q, frac, bound=32639):
  return Fx(q, frac=frac, low=-bound, high=bound, site="x")


def vector(q, fmt, dtype=np.int32):
  q = np.asarray(q, dtype)
  return QVector(q, frac=fmt.frac, low=fmt.low, high=fmt.high)


def run(plan, x, gain, bias, **options):
  """Result and sites in integers, without jit: shapes are few."""
  ops = Quantized(plan, IntAlu(), IntStore(), taps=True, **options)
  out = ops.layer_norm("l", x, gain, bias, EPS)
  return out, ops.tape.values


def by_the_page(plan, row, frac, gain, bias):
  """Sites of one token; `row`, `gain` and `bias` are lists of codes."""
  fmt = lambda path: oracle.Fmt(*_fields(plan.format(path)))
  put = lambda v, s, f: oracle.clip(oracle.rounded(v, s), f.low, f.high)
  inner, middle, out = fmt("l.centred"), fmt("l.scaled"), fmt("l")
  n, total = len(row), oracle.word(sum(row))
  mu, e = oracle.mantissa(oracle.Fraction(1, n))
  gaps = [oracle.word(n * q - total) * mu for q in row]
  centred = [put(v, frac + e - inner.frac, inner) for v in gaps]
  square = sum(c * c for c in centred) * mu
  mean = min(oracle.rounded(square, e + 2 * inner.frac - 12), 2**24 - 1)
  root = oracle.inv_sqrt(min(mean + 4, 2**24 - 1))
  shift = inner.frac + fmt("l.gain").frac + 12 - middle.frac
  scaled = [
    put(c * g * root, shift, middle) for c, g in zip(centred, gain, strict=True)
  ]
  added = [
    oracle.word(v + oracle.rounded(b, fmt("l.bias").frac - middle.frac))
    for v, b in zip(scaled, bias, strict=True)
  ]
  result = [put(v, middle.frac - out.frac, out) for v in added]
  return dict(zip(INNER, ([total], centred, [root], scaled, result)))


def _fields(fmt):
  return fmt.bits, fmt.frac, fmt.unit


# Of a centred value: section 6 refuses 16 bits that are all in front of the
# point, where a mean square has no shift to spend.
CENTRED = st.sampled_from([Format(8, 2), Format(8, 6), Format(12, 5)]) | (
  st.builds(Format, st.just(16), st.integers(8, 13))
)
SITES = st.builds(Format, st.sampled_from([8, 12, 16]), st.integers(3, 13))
BIASES = st.integers(0, 20)


@st.composite
def cases(draw):
  n = draw(st.sampled_from([1, 3, 5, 12]))
  bound = draw(st.sampled_from([3, 127, 32639]))
  codes = st.integers(-bound, bound)
  row = st.lists(codes, min_size=n, max_size=n)
  gains = st.lists(st.integers(-127, 127), min_size=n, max_size=n)
  frac = draw(st.integers(9, 12))
  # As a plan has it: all of what is centred, and no bit to spare.
  centred = Format(16, frac + int(math.log2(32639 / (2 * bound))))
  if not draw(st.booleans()):
    frac, centred = draw(st.integers(2, 12)), draw(CENTRED)
  return {
    "rows": [draw(row), draw(row)],
    "frac": frac,
    "bound": bound,
    "gain": draw(gains),
    "bias": draw(row),
    "plan": plan_of(
      centred, draw(SITES), draw(SITES), Format(16, draw(BIASES))
    ),
  }


@given(cases())
@settings(max_examples=35)
def test_every_site_is_that_of_the_page(case):
  plan, rows = case["plan"], np.array(case["rows"], np.int32)
  gain = vector(case["gain"], plan.format("l.gain"), np.int8)
  bias = vector(case["bias"], plan.format("l.bias"))
  x = value(rows, case["frac"], case["bound"])
  out, sites = run(plan, x, gain, bias)
  for t, row in enumerate(case["rows"]):
    want = by_the_page(plan, row, case["frac"], case["gain"], case["bias"])
    for path in INNER:
      assert np.asarray(sites[path].q)[t].tolist() == want[path], path
  assert (out.frac, out.low, out.high) == (
    *(plan.format("l").frac, plan.format("l").low, plan.format("l").high),
  )
  # Floats that hold the integers: the same at every site.
  with jax.enable_x64(True):
    wide = np.dtype(np.float64)
    ops = Quantized(plan, FloatAlu(wide), FloatStore(wide), taps=True)
    real = lambda v: np.float64(v.q) * 2.0**-v.frac
    codes = value(rows.astype(wide), case["frac"], case["bound"])
    ops.layer_norm("l", codes, real(gain), real(bias), EPS)
    for path in INNER:
      found = ops.tape.values[path].q
      np.testing.assert_array_equal(found, sites[path].q, path)


def fine(width, frac=10):
  """A plan fine enough that the inverse root is what is left of the error."""
  gain = vector([64] * width, Format(8, 6), np.int8)
  bias = vector([0] * width, Format(16, 12))
  plan = plan_of(*(Format(16, f) for f in (frac, 12, 12)), Format(16, 12))
  return plan, gain, bias


@pytest.mark.parametrize("width", [7, 64, 768])
def test_it_is_close_to_the_float_function(width):
  plan, gain, bias = fine(width)
  # Far from zero: a mean of 20, of which nothing is left.
  draw = np.random.default_rng(width).normal(20, 1, (4, width))
  q = np.floor(draw * 2.0**10 + 0.5).astype(np.int32)
  out, _ = run(plan, value(q, 10), gain, bias)
  with jax.enable_x64(True):
    want = layer_norm(q * 2.0**-10, np.ones(width), np.zeros(width), EPS)
    want = np.asarray(want)
  gap = np.abs(np.asarray(out.to_float()) - want)
  # 0.3 % of the inverse root at mean squares near 1, and a few codes.
  assert gap.max() < 0.003 * np.abs(want).max() + 2**-9


def test_a_constant_row_is_its_bias():
  """x - mean is exactly 0: the mean is not rounded, whatever n."""
  plan, gain, _ = fine(7)
  bias = vector(range(-3, 4), Format(16, 12))
  q = np.full((1, 7), -31111, np.int32)
  out, sites = run(plan, value(q, 10), gain, bias)
  assert not np.asarray(sites["l.centred"].q).any()
  assert np.asarray(out.q).tolist() == [list(range(-3, 4))]


def test_clipped_codes_are_counted_where_they_are_clipped():
  plan, gain, bias = fine(4, frac=14)  # reaches 2
  q = np.array([[0, 0, 0, 12 << 10]], np.int32)  # -3, -3, -3, 9
  _, sites = run(plan, value(q, 10), gain, bias, saturation=True)
  assert int(sites["l.centred.saturated"]) == 4
  assert int(sites["l.scaled.saturated"]) == 0


def test_floats_are_measured_inside_and_not_changed():
  draw = np.random.default_rng(3)
  x = np.float32(draw.normal(2, 3, (5, 6)))
  tree = {
    "gain": np.float32(draw.normal(size=6)),
    "bias": np.float32(draw.normal(size=6)),
  }
  ops = Reference(taps=True)
  found = ops.layer_norm("l", x, tree["gain"], tree["bias"], EPS)
  np.testing.assert_array_equal(
    found, layer_norm(x, tree["gain"], tree["bias"], EPS)
  )
  watch = Observe(notes := Notes())
  given = label_leaves(tree)
  watch.layer_norm("l", x, given["gain"], given["bias"], EPS)
  seen = {k: float(v) for k, v in watch.tape.values.items()}
  middle = x - x.mean(-1, keepdims=True)
  assert set(seen) == {
    *("l.gain", "l.bias", "l.mean_square", "l.centred", "l.scaled", "l"),
  }
  assert seen["l.centred"] == pytest.approx(np.abs(middle).max())
  assert seen["l.mean_square"] == pytest.approx(
    np.square(middle).mean(-1).max(), rel=1e-6
  )
  without = np.abs(found - tree["bias"]).max()
  assert seen["l.scaled"] == pytest.approx(float(without), rel=1e-5)
  assert {k: r.kind for k, r in notes.roles.items()} == {
    "gain": "gain",
    "bias": "const",
  }


@pytest.mark.parametrize(
  ("change", "error", "says"),
  [
    ({"site": None}, FormatError, "l: a norm takes a site of at most 16 bits"),
    ({"high": 40000}, FormatError, "l: a norm takes a site .* bound 40000"),
    ({"frac": -40}, FormatError, r"l.centred: .* one multiply-shift"),
    ({"width": 32900}, FormatError, r"l \(32900 times x .*\): a value of 10"),
    ({"biases": 3}, PlanError, r"l.bias: a bias of shape \[3\] .* 4 features"),
    ({"gains": 5}, PlanError, r"l.scaled: a gain of 5 entries .* 4 features"),
    ({"bias": 16}, FormatError, r"l.bias .*may reach"),
  ],
)
def test_what_has_no_integers_is_refused(change, error, says):
  width = change.get("width", 4)
  plan, _, _ = fine(width)
  gain = vector([1] * change.get("gains", width), Format(8, 6), np.int8)
  coarse = Format(16, -change.get("bias", -12))
  plan = plan.with_formats({"l.bias": coarse})
  bias = vector([1] * change.get("biases", width), coarse)
  own = {k: v for k, v in change.items() if k in ("site", "high", "frac")}
  x = value(np.zeros((1, width), np.int32), 10).replace(**own)
  with pytest.raises(error, match=says):
    run(plan, x, gain, bias)


def test_the_mantissa_of_the_page_is_that_of_one_over_n():
  """The scale of what is centred is off by 2^-16 at most."""
  for n in (1, 3, 5, 12, 768, 1600):
    mu, e = oracle.mantissa(oracle.Fraction(1, n))
    assert abs(mu * 2.0**-e * n - 1) <= 2.0**-16
    assert math.frexp(mu)[1] == 16
