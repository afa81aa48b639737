"""Law 6: no silent overflow; what saturates by design is counted."""

import chex
import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st
from jax import numpy as jnp

from jaxnmc.errors import FormatError, PlanError
from jaxnmc.numerics.formats import Format, NormFormat
from jaxnmc.numerics.fx import Fx
from jaxnmc.numerics.weights import QMatrix, QVector
from jaxnmc.ops.alu import IntAlu
from jaxnmc.ops.quantized import Quantized
from jaxnmc.ops.stores import IntStore

TOP = 2**31 - 1


@pytest.fixture
def ops(make_plan):
  plan = make_plan(
    {
      "s": (16, 3),
      "n": (16, 11),
      "n.gain": (8, 6),
      "far": (16, 40),
      "d.v": (16, 5),
      "d.gain": (8, 6),
    },
    ["n", "d"],
  )
  return Quantized(plan, IntAlu(), IntStore(), saturation=True)


def value(high, low=None, frac=0, site=None, shape=(2, 3)):
  low = -high if low is None else low
  q = np.full(shape, high, np.int64).astype(np.int32)
  q[0] = low
  return Fx(jnp.asarray(q), frac=frac, low=low, high=high, site=site)


def matrix(l1, width=3):
  return QMatrix(
    jnp.ones((1, width), jnp.int8), jnp.int32(40000), exp=20, l1=l1
  )


# Each pair: the largest operands that fit, and one step more.
EDGES = {
  "add": (
    lambda o, n: o.add(value(2**30 - 1), value(n)),
    2**30,
    lambda n: 2**30 - 1 + n,
  ),
  "sub": (
    lambda o, n: o.sub(value(2**30 - 1), value(n)),
    2**30,
    lambda n: 2**30 - 1 + n,
  ),
  "align": (
    lambda o, n: o.max(value(n, frac=3), value(1, frac=19)),
    2**15 - 1,
    lambda n: n * 2**16,
  ),
  "mul": (
    lambda o, n: o.mul(value(n), value(1, -1)),
    TOP,
    lambda n: n,
  ),
  "mul_square": (
    lambda o, n: o.mul(value(n), value(46340)),
    46341,
    lambda n: 46340 * n,
  ),
  "outer": (
    lambda o, n: o.outer(value(n), value(46340)),
    46341,
    lambda n: 46340 * n,
  ),
  "matmul": (
    lambda o, n: o.matmul(value(n), value(1000, shape=(3, 2))),
    TOP // 3000,
    lambda n: 3000 * n,
  ),
  "one_minus": (
    lambda o, n: o.one_minus(value(5, -n, frac=8)),
    TOP - 256,
    lambda n: 256 + n,
  ),
  "sum": (lambda o, n: o.sum(value(n)), TOP // 3, lambda n: 3 * n),
  "linear": (
    lambda o, n: o.linear("w", matrix(n), value(127, site="x")),
    TOP // 127,
    lambda n: 127 * n,
  ),
}


@pytest.mark.parametrize("name", EDGES)
def test_exactly_at_the_limit_passes(ops, name):
  call, edge, reach = EDGES[name]
  out = call(ops, edge)
  assert max(-out.low, out.high) == reach(edge) <= TOP
  assert out.low <= int(out.q.min())
  assert int(out.q.max()) <= out.high


@pytest.mark.parametrize("name", EDGES)
def test_one_step_more_is_refused(ops, name):
  call, edge, reach = EDGES[name]
  with (
    pytest.raises(FormatError) as error,
    ops.at("layers", "3", "attn"),
  ):
    call(ops, edge + 1)
  text = str(error.value)
  assert text.startswith("layers.3.attn")
  assert reach(edge + 1) > TOP
  assert str(reach(edge + 1)) in text
  assert str(TOP) in text
  assert "put a site" in text


def test_corner_sums_are_exact(ops):
  # The codes at the edge of the accumulator, against Python.
  out = ops.add(value(2**30 - 1), value(2**30))
  chex.assert_trees_all_equal(
    np.asarray(out.q), np.repeat([[-TOP], [TOP]], 3, 1).astype(np.int32)
  )
  out = ops.mul(value(46340), value(46341))
  assert int(out.q[0, 0]) == 46340 * 46341


@pytest.mark.parametrize(
  ("call", "sign"),
  [("add", r"\+"), ("sub", "-"), ("mul", "x"), ("outer", "x"), ("matmul", "@")],
)
def test_message_names_both_operands_and_formats(ops, call, sign):
  a = value(2**30, frac=4, site="left")
  b = value(
    2**30, frac=4, site="right", shape=(3, 2) if sign == "@" else (2, 3)
  )
  pattern = (
    rf"mlp \(left \.4 in \[-{2**30}, {2**30}\] {sign}"
    rf" right \.4 in \[-{2**30}, {2**30}\]\)"
  )
  with ops.at("mlp"), pytest.raises(FormatError, match=pattern):
    getattr(ops, call)(a, b)


def test_message_of_a_product_names_site_and_rows(ops):
  with pytest.raises(FormatError, match=r"w \(x \.6 in .*L1 norm 70000"):
    ops.linear("w", matrix(70000), value(32639, frac=6, site="x"))


def test_error_comes_while_tracing(ops):
  f = lambda q: ops.mul(value(2**20), value(2**20)).q
  with pytest.raises(FormatError):
    jax.eval_shape(f, jnp.zeros(3))


# --- what may enter what


def test_only_sites_cross_a_synapse(ops):
  with pytest.raises(FormatError, match="w: only named sites cross"):
    ops.linear("w", matrix(3), value(9))


def test_synapse_takes_two_digits(ops):
  high = 127 * 257
  assert ops.linear("w", matrix(3), value(high, site="x")).high == 3 * high
  with pytest.raises(FormatError, match="w: .*two 8-bit digits.*x may reach"):
    ops.linear("w", matrix(3), value(high + 1, site="x"))


def test_matrix_of_another_width(ops):
  with pytest.raises(PlanError, match=r"w: a matrix \[1, 4\].*3 features"):
    ops.linear("w", matrix(3, width=4), value(9, site="x"))


def test_pending_scale_needs_a_site(ops):
  y = ops.linear("w", matrix(3), value(9, site="x"))
  for call in (ops.sigmoid, ops.sum, ops.one_minus):
    with pytest.raises(FormatError, match="pending scale"):
      call(y)
  for call in (ops.add, ops.mul, ops.max):
    with pytest.raises(FormatError, match="pending scale"):
      call(y, value(3))


@pytest.mark.parametrize("call", ["add", "sub", "mul", "min", "max", "compare"])
def test_raw_arrays_are_refused(ops, call):
  with pytest.raises(PlanError, match="expected a fixed-point value"):
    getattr(ops, call)(value(3), jnp.ones((2, 3)))
  with pytest.raises(PlanError, match="expected a fixed-point value"):
    ops.site("s", jnp.ones((2, 3)))


def test_float_parameters_are_refused(ops):
  with pytest.raises(PlanError, match="w: .*QMatrix.*quantize_params"):
    ops.linear("w", jnp.ones((3, 3)), value(9, site="x"))
  with pytest.raises(PlanError, match="n.gain: .*QVector"):
    ops.norm("n", value(9, site="x"), jnp.ones(3), 1e-3)


def test_unreachable_format_of_a_product(ops):
  y = ops.linear("w", matrix(3), value(9, site="x"))
  with pytest.raises(FormatError, match=r"far: .*s16\.40.*fewer fraction"):
    ops.site("far", y)


GAIN = QVector(jnp.full(3, 64, jnp.int8), frac=6, low=-127, high=127)


def test_norm_takes_sites_of_16_bits(ops):
  with pytest.raises(FormatError, match="n: a norm takes a site.*a value"):
    ops.norm("n", value(9), GAIN, 1e-3)
  with pytest.raises(FormatError, match="n: a norm takes .* bound 32769"):
    ops.norm("n", value(2**15 + 1, site="x"), GAIN, 1e-3)
  out = ops.norm("n", value(2**15, frac=12, site="x"), GAIN, 1e-3)
  # Every entry is +-1 times the root mean square.
  assert abs(float(abs(out.to_float()).max()) - 1) < 2e-3


def test_mean_square_out_of_reach_says_which_way(ops):
  with pytest.raises(FormatError, match="give the site x fewer fraction bits"):
    ops.norm("n", value(9, frac=30, site="x"), GAIN, 1e-3)
  wide = value(32639, frac=1, site="x")
  with pytest.raises(FormatError, match="give the site x more fraction bits"):
    ops.norm("n", wide, GAIN, 1e-3)


@pytest.mark.parametrize("frac", [1, 2, 3, 4, 6])
def test_norm_of_coarse_8_bit_values(ops, frac):
  # An 8-bit residual stream has few fraction bits; the norm lifts it.
  q = np.array([[100, -50, 25], [3, 0, 0]], np.int32)
  x = Fx(jnp.asarray(q), frac=frac, low=-127, high=127, site="x")
  out = ops.norm("n", x, GAIN, 1e-3).to_float()
  real = q * 2.0**-frac
  want = real / np.sqrt((real**2).mean(-1, keepdims=True) + 1e-3)
  # A large mean square leaves a root of about seven bits.
  np.testing.assert_allclose(out, want, rtol=2e-2, atol=2e-3)
  assert int(ops.tape.values["n.mean_square.saturated"]) == 0


def test_gain_of_another_width(ops):
  with pytest.raises(PlanError, match="n: a gain of 3 entries.*4 features"):
    ops.norm("n", value(9, site="x", shape=(2, 4)), GAIN, 1e-3)


def test_sum_of_squares_has_a_bound(make_plan):
  plan = make_plan({"n": (16, 11), "n.gain": (8, 6)}, ["n"])
  # 65535 low payloads of 15 bits fit the accumulator, 65540 do not.
  x = lambda q: Fx(q, frac=12, low=-32639, high=32639, site="x")
  gain = lambda n: QVector(jnp.ones(n, jnp.int8), frac=6, low=-127, high=127)

  def trace(n):
    def f(q):
      ops = Quantized(plan, IntAlu(), IntStore())
      return ops.norm("n", x(q), gain(n), 1e-3).q

    return jax.eval_shape(f, jax.ShapeDtypeStruct((1, n), jnp.int32))

  assert trace(65535).shape == (1, 65535)
  with pytest.raises(FormatError, match="n: .*may reach"):
    trace(65540)


def test_eps_that_underflows_is_refused(make_plan):
  plan = make_plan({"n": (16, 11), "n.gain": (8, 6)}, ["n"], eps=None)
  ops = Quantized(plan, IntAlu(), IntStore())
  with ops.at("layers", "0"), pytest.raises(PlanError, match="layers.0.n"):
    ops.norm("n", value(9, site="x"), GAIN, 1e-6)
  message = r"n: eps 1e-06 underflows at 12 fraction bits \(rounds to 0\)"
  with pytest.raises(FormatError, match=message):
    ops.norm("n", value(9, site="x"), GAIN, 1e-6)
  # 2^-13 is the smallest eps that rounds to a code.
  ops.norm("n", value(9, site="x"), GAIN, 2.0**-13)
  fine = plan.replace(norms={"n": NormFormat(20, 24)})
  Quantized(fine, IntAlu(), IntStore()).norm(
    "n", value(9, frac=8, site="x"), GAIN, 1e-6
  )


def test_unknown_site_is_named(ops):
  with ops.at("layers", "1"), pytest.raises(PlanError) as error:
    ops.site("h", value(3))
  assert "no format for site layers.1.h" in str(error.value)
  with pytest.raises(PlanError, match="has no norm other"):
    ops.norm("other", value(3, site="x"), GAIN, 1e-3)


# --- saturations


@hypothesis.given(
  st.lists(st.integers(-(2**30), 2**30), min_size=8, max_size=8),
  st.integers(-3, 20),
)
def test_saturations_of_a_site_are_counted(make_plan, values, frac):
  plan = make_plan({"s": (8, 4)})
  ops = Quantized(plan, IntAlu(), IntStore(), saturation=True)
  x = Fx(jnp.asarray([values], jnp.int32), frac=frac, low=-(2**30), high=2**30)
  out = ops.site("s", x)
  shift = frac - 4
  if shift <= 0:
    exact = [v << -shift for v in values]
  else:
    exact = [(v + (1 << (shift - 1))) >> shift for v in values]
  assert np.asarray(out.q)[0].tolist() == [
    max(-127, min(127, v)) for v in exact
  ]
  count = ops.tape.values["s.saturated"]
  assert int(count) == sum(abs(v) > 127 for v in exact)
  assert count.dtype == jnp.int32


def test_saturation_at_the_edge_is_not_counted_twice(make_plan):
  plan = make_plan({"s": (8, 0), "u": Format(8, 7, unit=True)})
  ops = Quantized(plan, IntAlu(), IntStore(), saturation=True)
  q = jnp.asarray([[-128, -127, 126, 127, 128]], jnp.int32)
  ops.site("s", Fx(q, frac=0, low=-200, high=200))
  assert int(ops.tape.values["s.saturated"]) == 2
  ops.site("u", Fx(q, frac=7, low=-200, high=200))
  assert int(ops.tape.values["u.saturated"]) == 2  # both negative ones


def test_saturation_of_products_and_norms_is_counted(make_plan):
  plan = make_plan({"n": (8, 9), "n.gain": (8, 6), "y": (8, 4)}, ["n"])
  ops = Quantized(plan, IntAlu(), IntStore(), saturation=True)
  x = Fx(
    jnp.asarray([[900, 0, 0], [5, 5, 5]], jnp.int32),
    frac=8,
    low=-32639,
    high=32639,
    site="x",
  )
  y = ops.norm("n", x, GAIN, 1e-3)
  # sqrt(3) and three times about 0.53 (eps counts) leave 127 / 512.
  assert int(ops.tape.values["n.saturated"]) == 4
  assert int(ops.tape.values["n.mean_square.saturated"]) == 0
  ops.site(
    "y",
    ops.linear(
      "w",
      QMatrix(
        jnp.asarray([[1, 1, 1], [1, 0, 0]], jnp.int8),
        jnp.int32(65535),
        exp=12,
        l1=3,
      ),
      y,
    ),
  )
  sums = np.asarray(y.q, np.int64) @ np.array([[1, 1], [1, 0], [1, 0]])
  codes = (sums * 65535 + (1 << 16)) >> 17
  want = int((abs(codes) > 127).sum())
  assert want
  assert int(ops.tape.values["y.saturated"]) == want


def test_saturation_of_the_mean_square_is_counted(make_plan):
  plan = make_plan({"n": (16, 11), "n.gain": (8, 6)}, ["n"])
  ops = Quantized(plan, IntAlu(), IntStore(), saturation=True)
  # A mean square of 2^12 leaves 24 bits with 12 fraction bits; 2^12 - 1 not.
  q = np.array([[16384] * 4, [16380] * 4, [32639] * 4], np.int32)
  x = Fx(jnp.asarray(q), frac=8, low=-32639, high=32639, site="x")
  gain = QVector(jnp.full(4, 64, jnp.int8), frac=6, low=-127, high=127)
  ops.norm("n", x, gain, 1e-3)
  assert int(ops.tape.values["n.mean_square.saturated"]) == 2


def test_the_largest_mean_square_is_not_counted(make_plan):
  plan = make_plan({"n": (16, 11), "n.gain": (8, 6)}, ["n"])
  # Four squares whose mean is 2^24 - 5; eps adds four codes.
  q = np.array([[32712, 1912, 104, 0]], np.int32)
  assert int((q.astype(np.int64) ** 2).sum()) == 64 * (2**24 - 5)
  gain = QVector(jnp.full(4, 64, jnp.int8), frac=6, low=-127, high=127)
  for eps, count in ((4 / 4096, 0), (5 / 4096, 1)):
    ops = Quantized(plan.replace(eps=eps), IntAlu(), IntStore(), False, True)
    x = Fx(jnp.asarray(q), frac=8, low=-32767, high=32767, site="x")
    ops.norm("n", x, gain, 1e-3)
    assert int(ops.tape.values["n.mean_square.saturated"]) == count


def test_no_counting_unless_asked(make_plan):
  ops = Quantized(make_plan({"s": (8, 4)}), IntAlu(), IntStore())
  ops.site("s", value(2**20))
  assert ops.tape.values == {}
