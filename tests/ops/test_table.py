"""Every op of docs/ops.md: its float meaning and its integers.

One row per op or case of it is in `rows`, by kind; here each row is run in its
three meanings.
"""

import re

import chex
import jax
import numpy as np
import pytest
from absl.testing import parameterized

from jaxnmc.errors import PlanError
from jaxnmc.numerics.fx import Fx
from jaxnmc.numerics.ternary import Ternary
from jaxnmc.numerics.weights import QDense, QMatrix
from jaxnmc.ops.alu import IntAlu
from jaxnmc.ops.alu_float import FloatAlu
from jaxnmc.ops.quantized import Quantized
from jaxnmc.ops.reference import Reference
from jaxnmc.ops.stores import FloatStore, IntStore
from tests.ops.rows import control, elementwise, float_only, norms, products
from tests.ops.rows.base import PLAN, N, T, ints, real

KINDS = (elementwise, products, norms, control)
TABLE_OF_OPS = {name: row for kind in KINDS for name, row in kind.ROWS.items()}


def to_real(p):
  """The float parameter behind an integer one."""
  if isinstance(p, QDense):
    return p.codes * 2.0**-p.frac
  return products.TERNARY if isinstance(p, QMatrix) else real(p)


def operand(spec, seed, shape):
  """Codes with both ends of the range, zero and ties among them."""
  frac, low, high, *site = spec
  rng = np.random.default_rng(seed)
  q = rng.integers(low, high, shape, endpoint=True)
  q[0, :2] = low, high
  q[1, :2] = min(high, 4), max(low, -4)
  q[2, :2] = min(max(0, low), high), min(high, 1)
  return q.astype(np.int32), {
    "frac": frac,
    "low": low,
    "high": high,
    "site": site[0] if site else None,
  }


def operands(row):
  shapes = row.shapes or [(T, N)] * len(row.args)
  made = [operand(a, i, s) for i, (a, s) in enumerate(zip(row.args, shapes))]
  return [q for q, _ in made], [facts for _, facts in made]


def run_quantized(row, alu, store, params, qs, facts):
  ops = Quantized(PLAN, alu, store)
  values = [Fx(q, **f) for q, f in zip(qs, facts)]
  return row.call(ops, values, params)


class OpTable(chex.TestCase):
  """Each row in its three meanings, with and without jit."""

  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.named_parameters((name, name) for name in TABLE_OF_OPS)
  def test_fixed(self, name):
    row = TABLE_OF_OPS[name]
    qs, facts = operands(row)

    @self.variant
    def run(params, qs):
      return run_quantized(row, IntAlu(), IntStore(), params, qs, facts)

    out = run(row.params, qs)
    want = row.codes(*map(ints, qs))
    chex.assert_trees_all_equal(
      np.asarray(out.q), np.asarray(want, np.int64).astype(np.int32)
    )
    assert out.q.dtype == np.int32
    assert out.frac == row.frac
    assert out.mult is None
    if row.bound:
      assert (out.low, out.high) == row.bound
    assert out.low <= int(out.q.min())
    assert int(out.q.max()) <= out.high

  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.named_parameters((name, name) for name in TABLE_OF_OPS)
  def test_fake_quant(self, name):
    row = TABLE_OF_OPS[name]
    qs, facts = operands(row)
    with jax.enable_x64(True):
      dtype = np.dtype(np.float64)

      @self.variant
      def run(params, qs):
        return run_quantized(
          row, FloatAlu(dtype), FloatStore(dtype), params, qs, facts
        )

      params = tuple(to_real(p) for p in row.params)
      out = run(params, [q.astype(dtype) for q in qs])
      want = np.asarray(row.codes(*map(ints, qs)), np.float64)
      assert out.q.dtype == dtype
      chex.assert_trees_all_equal(np.asarray(out.q), want)
      assert out.frac == row.frac

  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.named_parameters((name, name) for name in TABLE_OF_OPS)
  def test_reference(self, name):
    row = TABLE_OF_OPS[name]
    qs, facts = operands(row)
    xs = [q * 2.0 ** -f["frac"] for q, f in zip(qs, facts)]

    @self.variant
    def run(params, xs):
      return row.call(Reference(), xs, params)

    single = lambda x: np.asarray(x, np.float32)
    params = tuple(
      Ternary(p.codes, single(p.scale)) if isinstance(p, Ternary) else single(p)
      for p in map(to_real, row.params)
    )
    out = run(params, [single(x) for x in xs])
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, row.real(*xs), rtol=2e-5, atol=1e-6)


class FloatOnly(chex.TestCase):
  """Rows without integers: floats, floats with formats, and a refusal."""

  @parameterized.named_parameters((name, name) for name in float_only.ROWS)
  def test_reference(self, name):
    row = float_only.ROWS[name]
    with jax.enable_x64(True):
      out = jax.jit(lambda xs: row.call(Reference(), xs))(row.args)
    assert out.dtype == np.float64
    np.testing.assert_allclose(out, row.real(*row.args), rtol=0, atol=1e-12)

  @parameterized.named_parameters((name, name) for name in float_only.ROWS)
  def test_fake_quant_rounds_what_comes_out(self, name):
    row, plan = float_only.ROWS[name], float_only.PLAN
    with jax.enable_x64(True):
      dtype = np.dtype(np.float64)

      @jax.jit
      def run(xs):
        ops = Quantized(plan, FloatAlu(dtype), FloatStore(dtype))
        return row.call(ops, list(map(float_only.coded, xs)))

      out = run(row.args)
      assert out.q.dtype == dtype
    want = row.real(*row.args)
    if row.site:
      fmt = plan.format(row.site)
      want = np.clip(np.floor(want * 2.0**fmt.frac + 0.5), fmt.low, fmt.high)
      assert out.site == row.site
      assert (np.abs(want) == fmt.high).any(), "the row should saturate"
    else:
      want = want * 2.0**float_only.FRAC
    chex.assert_trees_all_equal(np.asarray(out.q), want)

  @parameterized.named_parameters((name, name) for name in float_only.ROWS)
  def test_integers_are_refused(self, name):
    row = float_only.ROWS[name]
    ops = Quantized(float_only.PLAN, IntAlu(), IntStore())
    values = list(map(float_only.coded, row.args))
    with pytest.raises(PlanError, match=f"ops.{name} has no integer form"):
      row.call(ops, values)


def test_every_op_of_the_code_is_in_the_table_and_in_the_docs(repo_root):
  public = {
    name
    for name in dir(Quantized)
    if not name.startswith("_") and callable(getattr(Quantized, name))
  }
  machinery = {"absorb", "emit", "fresh", "guard", "path"}
  documented = set(
    re.findall(r"^\| `(\w+)`", (repo_root / "docs/ops.md").read_text(), re.M)
  )
  assert documented == public - machinery
  assert documented <= set(TABLE_OF_OPS) | set(float_only.ROWS)


def test_interpreters_have_the_same_ops():
  public = lambda kind: {n for n in dir(kind) if not n.startswith("_")}
  assert public(Reference) <= public(Quantized)
