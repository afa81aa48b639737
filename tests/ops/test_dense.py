"""Dense products in integers (docs/numerics.md, 4.1), against Python's own."""

import functools

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st
from jax import numpy as jnp

from jaxnmc import quantize
from jaxnmc.errors import FormatError, PlanError
from jaxnmc.numerics.formats import Format
from jaxnmc.numerics.fx import Fx
from jaxnmc.numerics.weights import QDense, QVector
from jaxnmc.ops import transform
from jaxnmc.ops.alu import IntAlu
from jaxnmc.ops.alu_float import FloatAlu
from jaxnmc.ops.quantized import Quantized
from jaxnmc.ops.stores import FloatStore, IntStore
from tests import oracle

TOP = 2**31 - 1


def fmt_of(form: Format) -> oracle.Fmt:
  return oracle.Fmt(form.bits, form.frac, form.unit)


def site(q, frac, bits=16):
  high = Format(bits, 0).high
  return Fx(jnp.asarray(q), frac=frac, low=-high, high=high, site="x")


def operand(x: np.ndarray, dtype, frac: int, bits: int) -> Fx:
  return site(x.astype(dtype), frac, bits)


@st.composite
def products(draw):
  """A product whose sums fit: shapes, formats, and codes with extremes."""
  # Few shapes, since each is compiled; of 520 weights the sizes have a limit.
  shapes = [(1, 1, 1), (4, 3, 2), (2, 60, 1), (3, 520, 2)]
  out, width, tokens = draw(st.sampled_from(shapes))
  bits = {
    "x": draw(st.sampled_from([2, 8, 16])),
    "w": draw(st.integers(2, 8)),
    "b": draw(st.sampled_from([8, 16, 20])),
    "y": draw(st.sampled_from([4, 8, 16])),
  }
  frac = {
    "x": draw(st.integers(-6, 20)),
    "w": draw(st.integers(-6, 12)),
    "y": draw(st.integers(-4, 20)),
  }
  point = frac["x"] + frac["w"]
  frac["b"] = point + draw(st.integers(-6, 9))
  frac["y"] = min(frac["y"], point + 20)
  rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

  def codes(name, *shape):
    high = Format(bits[name], 0).high
    style = draw(st.sampled_from(["any", "ends", "zeros", "alternating"]))
    if style == "ends":
      return rng.choice([-high, high], shape)
    if style == "alternating":
      return np.broadcast_to(high * (-1) ** np.arange(shape[-1]), shape)
    return rng.integers(-high, high + 1, shape) * (style != "zeros")

  return (
    {k: Format(bits[k], frac[k]) for k in bits},
    codes("x", tokens, width),
    codes("w", out, width),
    codes("b", out) if draw(st.booleans()) else None,
  )


@hypothesis.settings(max_examples=80)
@hypothesis.given(products())
def test_any_product_equals_pythons_integers(make_plan, case):
  """`fixed` and, in float64, `fake_quant`; refused only where it must be."""
  forms, x, w, b = case
  names = {"w": "y.weight", "b": "y.bias", "y": "y"}
  plan = make_plan({names[k]: forms[k] for k in names})
  point = forms["x"].frac + forms["w"].frac
  l1 = int(abs(w).sum(1).max())
  reach = forms["x"].high * l1
  if b is not None:
    reach += oracle.rounded(forms["b"].high, forms["b"].frac - point)

  def run(ops, dtype, matrix, bias):
    given = operand(x, dtype, forms["x"].frac, forms["x"].bits)
    return ops.dense("y", matrix, given, bias)

  matrix = QDense(w.astype(np.int8), frac=forms["w"].frac, l1=l1)
  fmt = forms["b"]
  bias = (
    b
    if b is None
    else QVector(b.astype(np.int32), frac=fmt.frac, low=fmt.low, high=fmt.high)
  )
  ints = Quantized(plan, IntAlu(), IntStore(), saturation=True)
  if reach > TOP:
    with pytest.raises(FormatError, match=r"^y"):
      run(ints, np.int32, matrix, bias)
    return
  out = run(ints, np.int32, matrix, bias)
  truth = oracle.Oracle({"y": fmt_of(forms["y"])}, 1e-3)
  plain = oracle.Dense(w.tolist(), forms["w"].frac)
  added = None if b is None else oracle.Vector(b.tolist(), fmt.frac)
  for row in x.tolist():
    truth.dense("y", plain, oracle.Vector(row, forms["x"].frac), added)
  assert out.q.dtype == np.int32
  assert np.asarray(out.q).tolist() == truth.taps["y"]
  assert (out.frac, out.site) == (forms["y"].frac, "y")
  counted = int(ints.tape.values["y.saturated"])
  assert counted == truth.saturated["y"]
  with jax.enable_x64(True):
    dtype = np.dtype(np.float64)
    floats = Quantized(plan, FloatAlu(dtype), FloatStore(dtype))
    real = lambda q, f: q if q is None else q * 2.0**-f.frac
    fake = run(floats, dtype, real(w, forms["w"]), real(b, forms["b"]))
    np.testing.assert_array_equal(np.asarray(fake.q), truth.taps["y"])


@hypothesis.given(
  st.integers(2, 8),
  st.integers(-3, 9),
  st.lists(st.floats(-9, 9, width=32), min_size=6, max_size=6),
)
def test_parameters_become_the_codes_of_the_page(bits, frac, values):
  weight = np.float32(values).reshape(2, 3)
  fmt = Format(bits, frac)
  role = quantize.params.Role("dense", "y.weight", (2, 3))
  plan = quantize.Plan(
    "one", {"y.weight": fmt}, {}, {"w": role}, quantize.SigmoidTable(), 1e-3
  )
  found = quantize.quantize_params({"w": weight}, plan).tree["w"]
  want = oracle.dense(weight.tolist(), fmt_of(fmt))
  assert np.asarray(found.codes).tolist() == want.codes
  assert found.codes.dtype == np.int8
  assert found.frac == want.frac
  assert found.l1 == max(sum(map(abs, row)) for row in want.codes)
  rounded = FloatStore(np.dtype(np.float32)).dense(
    "y", jnp.asarray(weight), fmt
  )
  assert np.asarray(rounded.codes).tolist() == want.codes


def test_long_rows_at_both_ends_of_every_digit():
  """Sums of each digit plane at their largest: no path of XLA saturates."""
  width = 518
  w = np.full((4, width), 127, np.int8)
  w[1:3] = -127
  w[2:, ::2] = 0
  plan = quantize.Plan(
    *("ends", {"y.weight": Format(8, 0), "y": Format(24, -8)}, {}, {}),
    *(quantize.SigmoidTable(), 1e-3),
  )
  # 32639 = 127 * 257; 32512 + 127 and 32384 - 128 are the digits' ends.
  for value in (32639, -32639, 127 * 256 - 128, -127 * 256 - 127, 128, -129):
    q = np.full((3, width), value, np.int32)
    ops = Quantized(plan, IntAlu(), IntStore())
    matrix = QDense(w, frac=0, l1=127 * width)
    out = ops.dense("y", matrix, site(q, 0))
    for row, codes in zip(np.asarray(out.q)[0], w.tolist()):
      exact = sum(c * value for c in codes)
      high = 2**23 - 1
      assert row == oracle.clip(oracle.rounded(exact, 8), -high, high)


# --- what is refused


@pytest.fixture
def ops(make_plan):
  formats = {
    "y.weight": (8, 6),
    "y.bias": (16, 9),
    "y": (16, 6),
    "far.weight": (8, 6),
    "far": (16, 40),
    "v.weight": (8, 6),
    "v.bias": (16, 10),
    "v": (16, 6),
    "z.weight": (8, 6),
    "z.bias": (16, -3),
    "z": (16, 6),
  }
  return Quantized(make_plan(formats), IntAlu(), IntStore())


def matrix(l1=3, width=3):
  return QDense(jnp.ones((2, width), jnp.int8), frac=6, l1=l1)


def bias(frac=9, n=2):
  return QVector(jnp.ones(n, jnp.int32), frac=frac, low=-32639, high=32639)


X = np.full((2, 3), 5, np.int32)


def test_exactly_at_the_limit_passes_and_one_step_more_is_refused(ops):
  edge = TOP // 127
  ops.dense("y", matrix(edge), site(X, 3, 8))
  text = r"^y \(x \.3 in \[-127, 127\], rows of L1 norm 16909321\).*may reach"
  with pytest.raises(FormatError, match=text):
    ops.dense("y", matrix(edge + 1), site(X, 3, 8))
  # The bias needs room, too: 127 * 16909320 + 32639 is over.
  with pytest.raises(FormatError, match="^y .*with its bias.*may reach 21475"):
    ops.dense("y", matrix(edge), site(X, 3, 8), bias())
  left = (TOP - 32639) // 127
  ops.dense("y", matrix(left), site(X, 3, 8), bias())
  with pytest.raises(FormatError, match="with its bias"):
    ops.dense("y", matrix(left + 1), site(X, 3, 8), bias())


def test_a_finer_bias_needs_the_room_of_its_rounded_code(ops):
  # 32639 of ten fraction bits are 16320 of nine.
  ops.dense("v", matrix(TOP - 16320), site(X // 5, 3, 2), bias(frac=10))
  with pytest.raises(FormatError, match="^v .*with its bias"):
    ops.dense("v", matrix(TOP - 16319), site(X // 5, 3, 2), bias(frac=10))


def test_a_bias_out_of_reach_names_itself(ops):
  # -3 fraction bits at 15 are a left shift by 18.
  with pytest.raises(FormatError, match=r"^z\.bias \(\.-3 at 15 fraction bits"):
    ops.dense("z", matrix(), site(X, 9), bias(frac=-3))


def test_a_site_too_fine_for_its_sums_is_named(ops):
  assert ops.dense("far", matrix(), site(X, 4)).frac == 40
  with pytest.raises(FormatError, match=r"far: .* format s16\.40.*left by 31"):
    ops.dense("far", matrix(), site(X, 3))
  with pytest.raises(FormatError, match=r"far: .* format s16\.40.*left by 37"):
    ops.site("far", site(X, 3))


def test_overflow_comes_while_tracing(ops):
  def trace(q):
    inner = Quantized(ops.plan, IntAlu(), IntStore())
    return inner.dense("y", matrix(TOP), site(q, 3)).q

  with pytest.raises(FormatError, match=r"^y \("):
    jax.eval_shape(trace, jnp.zeros((2, 3), jnp.int32))


def test_what_may_enter(ops):
  raw = site(X, 3).replace(site=None)
  with pytest.raises(FormatError, match="y: only named sites cross a synapse"):
    ops.dense("y", matrix(), raw)
  wide = site(X, 3).replace(high=32640)
  with pytest.raises(FormatError, match="y: .*two 8-bit digits.*may reach"):
    ops.dense("y", matrix(), wide)
  with pytest.raises(PlanError, match=r"y: a matrix \[2, 4\].*3 features"):
    ops.dense("y", matrix(width=4), site(X, 3))
  with pytest.raises(PlanError, match=r"y.bias: a bias of shape \[3\].*2 feat"):
    ops.dense("y", matrix(), site(X, 3), bias(n=3))
  with pytest.raises(PlanError, match=r"y.weight: .*QDense.*quantize_params"):
    ops.dense("y", jnp.ones((2, 3)), site(X, 3))
  # A ternary product does not take a dense matrix, which has no scale.
  with pytest.raises(PlanError, match=r"y: .*QMatrix.*found QDense"):
    ops.linear("y", matrix(), site(X, 3))


# --- as a model


def net(ops, params, inputs, state=None):
  x = ops.embed("embed", params["embed"], inputs["ids"])
  x = ops.dense("a", params["a"]["weight"], x, params["a"]["bias"])
  x = ops.site("relu", ops.max(x, ops.zeros(x)))
  return ops.dense("b", params["b"]["weight"], x), state


def tied(ops, params, inputs, state=None):
  x = ops.embed("embed", params["embed"], inputs["ids"])
  return ops.dense("head", params["embed"], x, tied=ops.path("embed")), state


IDS = np.arange(7, dtype=np.int32)


@functools.cache
def parameters():
  draw = np.random.default_rng(4)
  value = lambda *shape: np.float32(draw.normal(size=shape))
  return {
    "embed": value(7, 5),
    "a": {"weight": value(6, 5), "bias": value(6)},
    "b": {"weight": value(3, 6)},
  }


def test_gradients_reach_every_parameter():
  params = parameters()
  stats = quantize.calibrate(net)(params, [IDS])
  run = transform.fake_quant(net, quantize.plan(stats, quantize.W8A16))

  def loss(call, read):
    return lambda p: (read(call(p, {"ids": IDS})[0]) ** 2).sum()

  fake = jax.grad(loss(run, lambda out: out.to_float()))(params)
  real = jax.grad(loss(transform.reference(net), lambda out: out))(params)
  for got, want in zip(jax.tree.leaves(fake), jax.tree.leaves(real)):
    assert np.abs(want).max() > 1
    np.testing.assert_allclose(got, want, atol=0.03 * np.abs(want).max())


def test_more_than_8_bits_are_no_synapse():
  """Floats count the cost all the same; integers are refused."""
  params = parameters()
  stats = quantize.calibrate(net)(params, [IDS])
  plan = quantize.plan(stats, quantize.W8A16.replace(weight_bits=9))
  transform.fake_quant(net, plan)(params, {"ids": IDS})
  says = "parameter a.weight: .*a dense 9 bits, but a synapse has at most 8"
  with pytest.raises(PlanError, match=says):
    quantize.quantize_params(params, plan)


def test_a_tied_table_is_a_synapse_of_8_bits_or_none():
  params = {"embed": parameters()["embed"]}
  stats = quantize.calibrate(tied)(params, [IDS])
  plan = quantize.plan(stats, quantize.W8A16)
  qparams = quantize.quantize_params(params, plan)
  says = "head: its matrix is the table of embed, which has 16 bits, but a"
  with pytest.raises(PlanError, match=says + ".*table_bits=8"):
    transform.fixed(tied, plan)(qparams, {"ids": IDS})
  cost, _ = transform.fake_quant(tied, plan)(params, {"ids": IDS})
  assert cost.q.shape == (7, 7)
  plan = quantize.plan(stats, quantize.W8A16.replace(table_bits=8))
  qparams = quantize.quantize_params(params, plan)
  out, _ = jax.jit(transform.fixed(tied, plan))(qparams, {"ids": IDS})
  table = plan.format("embed")
  codes = oracle.dense(params["embed"].tolist(), fmt_of(table))
  truth = oracle.Oracle({"head": fmt_of(plan.format("head"))}, 1e-3)
  for row in codes.codes:
    truth.dense("head", codes, oracle.Vector(row, table.frac))
  assert np.asarray(out.q).tolist() == truth.taps["head"]


def test_memory_counts_a_byte_for_each_dense_weight():
  params = parameters()
  stats = quantize.calibrate(net)(params, [IDS])
  plan = quantize.plan(stats, quantize.W8A16)
  found = quantize.params.memory_bytes(quantize.quantize_params(params, plan))
  # Matrices a byte, the table two, the bias four.
  assert found == {"ternary_packed": 0, "other": 30 + 18 + 2 * 35 + 4 * 6}
