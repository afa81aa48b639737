"""Whole models against Python's own integers, at every site.

The programs are compiled once per plan; Hypothesis varies all integers that
go in: weights, scales, gains, embeddings, bounds, tokens, masks and states.
"""

import dataclasses
import functools
from fractions import Fraction

import jax
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from jaxnmc import quantize
from jaxnmc.models import matmulfree
from jaxnmc.numerics.formats import Format, NormFormat
from jaxnmc.numerics.fx import Fx
from jaxnmc.numerics.sigmoid import SigmoidTable
from jaxnmc.numerics.weights import QMatrix, QVector
from jaxnmc.ops import transform
from tests import oracle

VOCAB = 7
# Compiling is most of this file's time.
QUICK = {
  "xla_backend_optimization_level": 0,
  "xla_llvm_disable_expensive_passes": True,
}
SMALL = SigmoidTable(in_frac=4, spacing=3, segments=20, out_frac=11)


@dataclasses.dataclass(frozen=True)
class Case:
  """One compiled program: model, plan and number of tokens."""

  norm: str
  layers: int
  width: int
  mlp: int
  tokens: int
  shift: int = 0  # added to the fraction bits of sites: > 0 saturates
  preset: quantize.Preset = quantize.W8A16


CASES = {
  "double": Case("double", layers=2, width=8, mlp=6, tokens=3),
  "double_saturating": Case("double", 1, 9, 10, tokens=1, shift=4),
  "fused": Case("fused", layers=1, width=12, mlp=7, tokens=2),
  "fused_coarse": Case(
    "fused",
    layers=1,
    width=8,
    mlp=6,
    tokens=4,
    shift=-3,
    preset=quantize.W8A8.replace(table=SMALL, norm=NormFormat(18, 22)),
  ),
}


def _is_leaf(x):
  return isinstance(x, QMatrix | QVector)


def _latent(case: Case):
  """Float parameters on a grid, so that means are exact in any order."""
  config = matmulfree.Config(
    vocab_size=VOCAB,
    hidden_size=case.width,
    num_layers=case.layers,
    intermediate_size=case.mlp,
    norm=case.norm,
  )
  rng = np.random.default_rng(case.width)
  grid = lambda x: (rng.integers(-64, 65, x.shape) / 64).astype(np.float32)
  params = matmulfree.init_params(config, jax.random.key(0))
  return matmulfree.make(config), jax.tree.map(grid, params)


@functools.cache
def _setup(name: str):
  """(case, plan, stats, params, real qparams, compiled run)."""
  case = CASES[name]
  fn, params = _latent(case)
  ids = np.arange(2 * VOCAB, dtype=np.int32) % VOCAB
  stats = quantize.calibrate(fn)(params, [ids])
  plan = quantize.plan(stats, case.preset)
  moved = {
    path: Format(f.bits, f.frac + case.shift)
    for path, f in plan.formats.items()
    if not f.unit and not path.endswith(".gain")
  }
  plan = plan.with_formats(moved)
  qparams = quantize.quantize_params(params, plan)
  traced = transform.fixed(fn, plan, taps=True, saturation=case.shift != 0)
  run = jax.jit(traced, compiler_options=QUICK)
  return case, plan, stats, params, qparams, run


def _plain(tree):
  """Quantised tree -> the oracle's leaves."""

  def leaf(x):
    if isinstance(x, QMatrix):
      return oracle.Matrix(np.asarray(x.codes).tolist(), int(x.mult), x.exp)
    return oracle.Vector(np.asarray(x.q).tolist(), x.frac)

  return jax.tree.map(leaf, tree, is_leaf=_is_leaf)


def _formats(plan):
  return {
    path: oracle.Fmt(f.bits, f.frac, f.unit) for path, f in plan.formats.items()
  }


def _check(name, tree, ids, mask, states):
  """Runs both and compares every integer."""
  case, plan, _, _, qparams, run = _setup(name)
  carries = []
  for n, q in enumerate(states):
    f = plan.format(f"layers.{n}.attn.mlgru.h")
    carries.append(Fx(q, frac=f.frac, low=f.low, high=f.high))
  inputs = {"ids": ids, "mask": mask}
  out, state, taps = run(
    qparams.replace(tree=tree), inputs, {"layers": carries}
  )
  table = oracle.Table(*dataclasses.astuple(plan.table))
  inner = (case.preset.norm.frac, case.preset.norm.bits)
  truth = oracle.Oracle(_formats(plan), plan.eps, inner, table)
  logits, last = truth.run(
    _plain(tree), ids.tolist(), mask.tolist(), [q.tolist() for q in states]
  )
  for path, value in truth.taps.items():
    found = taps[path].q if isinstance(taps[path], Fx) else taps[path]
    np.testing.assert_array_equal(np.asarray(found), value, err_msg=path)
  counts = {k: int(v) for k, v in taps.items() if k.endswith(".saturated")}
  expected = {k + ".saturated": v for k, v in truth.saturated.items()}
  assert counts == (expected if case.shift else {})
  assert set(taps) - set(counts) == set(truth.taps)
  np.testing.assert_array_equal(np.asarray(out.logits.q), logits)
  for found, value in zip(state["layers"], last):
    np.testing.assert_array_equal(np.asarray(found.q), value)
  return truth


STYLES = ("random", "ones", "zero_rows", "alternating", "extreme", "zeros")


def _matrix(rng, style, shape):
  if style == "ones":
    return np.ones(shape, np.int8)
  if style == "zeros":
    return np.zeros(shape, np.int8)
  codes = rng.integers(-1, 2, shape).astype(np.int8)
  if style == "zero_rows":
    codes[rng.random(shape[0]) < 0.5] = 0
  elif style == "alternating":
    codes[:] = (-1) ** np.arange(shape[1])
  elif style == "extreme":
    codes[:] = np.where(codes == 0, 1, codes)
  return codes


def _vector(rng, style, x):
  if style == "ones":
    return np.full(x.shape, x.high)
  if style == "zeros":
    return np.zeros(x.shape, np.int64)
  if style == "extreme":
    return np.where(rng.random(x.shape) < 0.5, x.low, x.high)
  return rng.integers(x.low, x.high + 1, x.shape)


def _drawn(tree, rng, styles):
  """The tree with other integers; what is static stays, so nothing compiles."""

  def leaf(x):
    style = styles[int(rng.integers(len(styles)))]
    if isinstance(x, QMatrix):
      mult = np.int32(rng.choice([1 << 15, (1 << 16) - 1, int(x.mult)]))
      return x.replace(codes=_matrix(rng, style, x.shape), mult=mult)
    values = _vector(rng, style, x)
    return x.replace(q=np.asarray(values).astype(x.q.dtype))

  return jax.tree.map(leaf, tree, is_leaf=_is_leaf)


@functools.cache
def _template(name: str):
  """The real integers, with the static bound of any ternary matrix."""
  tree = jax.tree.map(np.asarray, _setup(name)[4].tree)
  widest = lambda x: x.replace(l1=x.shape[1]) if isinstance(x, QMatrix) else x
  return jax.tree.map(widest, tree, is_leaf=_is_leaf)


@pytest.mark.parametrize("name", CASES)
def test_real_parameters(name):
  case = CASES[name]
  ids = np.arange(case.tokens, dtype=np.int32)
  zeros = [np.zeros(case.width, np.int32)] * case.layers
  truth = _check(name, _template(name), ids, np.ones_like(ids), zeros)
  clipped = sum(truth.saturated.values())
  assert (clipped > 0) == (case.shift > 0)


@pytest.mark.parametrize("name", CASES)
# Shrinking would take minutes and the seed says nothing anyway.
@settings(max_examples=20, phases=[Phase.explicit, Phase.generate])
@given(
  seed=st.integers(0, 2**32 - 1),
  styles=st.sets(st.sampled_from(STYLES), min_size=1).map(sorted),
  data=st.data(),
)
def test_any_integers(name, seed, styles, data):
  case, plan = _setup(name)[:2]
  rng = np.random.default_rng(seed)
  size = case.tokens
  ids = data.draw(
    st.lists(st.integers(0, VOCAB - 1), min_size=size, max_size=size)
  )
  mask = data.draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
  state = data.draw(st.sampled_from(["zeros", "random", "extreme"]))
  states = []
  for n in range(case.layers):
    f = plan.format(f"layers.{n}.attn.mlgru.h")
    like = QVector(np.zeros(case.width), frac=f.frac, low=f.low, high=f.high)
    states.append(_vector(rng, state, like).astype(np.int32))
  tree = _drawn(_template(name), rng, styles)
  _check(name, tree, np.int32(ids), np.int32(mask), states)


@pytest.mark.parametrize("name", CASES)
def test_parameters_become_the_integers_of_the_page(name):
  _, plan, _, params, qparams, _ = _setup(name)
  formats = _formats(plan)
  found = _plain(qparams.tree)
  rows = lambda x, fmt: [oracle.quantise(row, fmt).q for row in x]

  def expected(path, x):
    values = np.asarray(x, np.float64).tolist()
    role = plan.roles[jax.tree_util.keystr(path, simple=True, separator=".")]
    if role.kind == "matrix":
      return oracle.ternary(values)
    fmt = formats[role.site]
    if role.kind == "gain":
      return oracle.quantise(values, fmt)
    if role.kind == "const":
      values = oracle.lower_bounds(values)
    return oracle.Vector(rows(values, fmt), fmt.frac)

  assert found == jax.tree_util.tree_map_with_path(expected, params)
  for leaf in jax.tree.leaves(qparams.tree, is_leaf=_is_leaf):
    if isinstance(leaf, QMatrix):
      assert leaf.l1 == max(np.abs(np.asarray(leaf.codes)).sum(1))


@pytest.mark.parametrize("name", CASES)
def test_the_plan_follows_its_rules(name):
  case, _, stats, _, _, _ = _setup(name)
  preset = case.preset.replace(margin=0.25)
  plan = quantize.plan(stats, preset)
  seen = {
    k: v for k, v in stats.ranges.items() if not k.endswith("mean_square")
  }
  assert set(plan.formats) == set(seen)
  fracs = {}
  for path, limit in seen.items():
    bits = preset.weight_bits if path.endswith(".gain") else preset.act_bits
    bits = preset.table_bits if path == "embed" else bits
    unit = path.rsplit(".", 1)[-1] in ("rest", "lower_bounds")
    margin = Fraction(limit) * Fraction(5, 4)
    frac = bits - 1 if unit else oracle.frac_for(margin, bits)
    fracs[path] = (bits, frac, unit)
  for n in range(case.layers):
    h, u = f"layers.{n}.attn.mlgru.h", f"layers.{n}.attn.u"
    bits, frac, _ = fracs[h]
    fracs[h] = (bits, min(frac, fracs[u][1]), False)
  assert fracs == {k: dataclasses.astuple(f) for k, f in plan.formats.items()}
