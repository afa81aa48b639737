"""Laws 3, 4 and 6 on the language model; fake_quant equals fixed."""

import re

import chex
import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st
from jax import numpy as jnp

from jaxnmc import _compat, quantize
from jaxnmc.errors import FormatError, PlanError
from jaxnmc.numerics.fx import Fx
from jaxnmc.numerics.ternary import Ternary
from jaxnmc.ops import transform
from jaxnmc.quantize import Format, NormFormat, SigmoidTable
from tools import golden


def codes(x):
  return np.asarray(x.q if isinstance(x, Fx) else x)


def as_float64(params):
  return jax.tree.map(
    lambda x: np.asarray(x, np.float64) if x.dtype != np.int8 else x, params
  )


def assert_same_taps(fixed, fake):
  assert list(fixed) == list(fake)
  for path, value in fixed.items():
    want, got = codes(value), codes(fake[path])
    assert want.dtype == np.int32, path
    assert got.dtype == np.float64, path
    np.testing.assert_array_equal(got, want.astype(np.float64), path)


# --- fake_quant in float64 equals fixed at every tap


def extreme(params):
  """Gains at both ends, a hot embedding, dead rows, lopsided codes."""

  def change(path, x):
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    x = np.array(x)
    if name.endswith("codes"):
      x[0], x[-1] = 1, 0
    elif name.endswith("scale"):
      x = x * np.float32(37.7)
    elif name.endswith("embed.weight"):
      x[::3] *= np.float32(1000.3)
      x[1::3] = 0
    elif name.endswith("lower_bounds"):
      x = x * 30
    else:
      x[::2] *= -1
      x[1::3] = np.float32(1e-7)
    return x

  return jax.tree_util.tree_map_with_path(change, params)


def latents(params):
  """Float matrices with ties at the ternary threshold instead of codes."""

  def change(x):
    if not isinstance(x, Ternary):
      return x
    w = np.where(x.codes == 0, 0.5, x.codes * 1.25).astype(np.float32)
    # Two steps around the threshold of a mean of about one.
    w[:, ::3] = np.float32(0.5) + np.float32(2.0**-24)
    return w * np.float32(x.scale)

  return jax.tree.map(change, params, is_leaf=lambda x: isinstance(x, Ternary))


VARIANTS = {
  "double": ("double-W8A16", None, {}),
  "fused W8A8": ("fused-W8A8", None, {}),
  "extreme weights": ("double-W8A16", extreme, {}),
  "latent weights": ("double-W8A16", latents, {}),
  "finer table": (
    "double-W8A16",
    None,
    {"table": SigmoidTable(in_frac=8, spacing=4, segments=128, out_frac=14)},
  ),
  "other norms": (
    "double-W8A16",
    None,
    {"norm": NormFormat(20, 24), "eps": 1e-5},
  ),
}


def with_changes(plan, norm=None, **changes):
  if norm is not None:
    changes["norms"] = dict.fromkeys(plan.norms, norm)
  return plan.replace(**changes)


_SLOW = ("double", "latent weights", "finer table")


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=pytest.mark.slow if name in _SLOW else ())
    for name in VARIANTS
  ],
)
def test_fake_quant_in_float64_equals_fixed_at_every_tap(golden_run, name):
  base, weights, changes = VARIANTS[name]
  run = golden_run(base)
  params, plan = run.case.params, with_changes(run.plan, **changes)
  fixed = run.taps
  if weights or changes:
    params = weights(params) if weights else params
    qparams = quantize.quantize_params(params, plan)
    fixed = transform.fixed(run.case.fn, plan, taps=True)(
      qparams, run.case.inputs
    )[2]
  with jax.enable_x64(True):
    _, state, fake = transform.fake_quant(run.case.fn, plan, taps=True)(
      as_float64(params), run.case.inputs
    )
  assert_same_taps(fixed, fake)
  for h in state["layers"]:
    assert h.q.dtype == np.float64
  # The variant does something.
  if weights or changes:
    same = [
      np.array_equal(codes(x), codes(run.taps[k])) for k, x in fixed.items()
    ]
    assert not all(same)


@pytest.mark.parametrize("seed", range(2))
def test_fake_quant_equals_fixed_whatever_bits_sites_have(golden_run, seed):
  """Every site and gain has bits and headroom of its own."""
  run, draw = golden_run("double-W8A16"), np.random.default_rng(seed)
  fn, params, inputs = run.case.fn, run.case.params, run.case.inputs
  stats = quantize.calibrate(fn)(params, [inputs])
  rules = [
    quantize.Rule(
      re.escape(path),
      bits=int(draw.integers(3, 16, endpoint=True)),
      margin=float(draw.integers(0, 4)),
    )
    for path, fmt in run.plan.formats.items()
    if isinstance(fmt, Format) and not fmt.unit
  ]
  plan = quantize.adjust(quantize.plan(stats, quantize.W8A16), stats, *rules)
  assert len({f.bits for f in plan.formats.values()}) > 8
  qparams = quantize.quantize_params(params, plan)
  fixed = transform.fixed(fn, plan, taps=True)(qparams, inputs)[2]
  with jax.enable_x64(True):
    fake = transform.fake_quant(fn, plan, taps=True)(
      as_float64(params), inputs
    )[2]
  assert_same_taps(fixed, fake)


def test_every_site_is_tapped(golden_run):
  run = golden_run("double-W8A16")
  sites = {
    path
    for path in run.plan.formats
    if not path.endswith(".gain") and path != "lower_bounds"
  }
  assert sites <= set(run.taps)
  extra = set(run.taps) - sites
  tails = {path.rsplit(".", 1)[-1] for path in extra}
  assert tails == {"square_low", "square_high", "mean_square", "root"}


# --- law 3


def floats_in(jaxpr):
  return sorted(
    {
      str(var.aval.dtype)
      for inner in _compat.all_jaxprs(jaxpr)
      for var in [
        *inner.invars,
        *inner.constvars,
        *(v for e in inner.eqns for v in (*e.outvars, *e.invars)),
      ]
      if jnp.issubdtype(getattr(var.aval, "dtype", np.int32), np.inexact)
    }
  )


def inputs_of(run, name="double-W8A16"):
  return {k: v[:2] for k, v in run(name).case.inputs.items()}


@pytest.mark.parametrize("name", list(golden.CASES))
@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("extras", [False, True])
def test_no_float_in_fixed(golden_run, name, x64, extras):
  run = golden_run(name)
  state = jax.tree.map(lambda x: x[:2], run.state)
  with jax.enable_x64(x64):
    fixed = transform.fixed(
      run.case.fn, run.plan, taps=extras, saturation=extras
    )
    jaxpr = jax.make_jaxpr(fixed)(
      run.qparams, inputs_of(golden_run, name), state
    )
    assert floats_in(jaxpr) == []
    # Nor does anything grow to 64 bits under the flag.
    wide = {
      str(v.aval)
      for inner in _compat.all_jaxprs(jaxpr)
      for e in inner.eqns
      for v in e.outvars
      if getattr(v.aval, "dtype", np.int32) == np.int64 and v.aval.ndim
    }
    assert wide == set()


def test_the_walk_sees_a_float(golden_run):
  run = golden_run("double-W8A16")
  inputs = inputs_of(golden_run)
  fake = transform.fake_quant(run.case.fn, run.plan)
  jaxpr = jax.make_jaxpr(fake)(run.case.params, inputs)
  assert floats_in(jaxpr) == ["float32"]

  def leak(fn):
    def wrapped(ops, params, inputs, state=None):
      out, state = fn(ops, params, inputs, state)

      def step(carry, q):
        # Hidden in a branch of a scan, and gone again at once.
        q = jax.lax.cond(
          q[0] > 0, lambda q: (q * 0.5).astype(jnp.int32), lambda q: q, q
        )
        return carry, q

      q = jax.lax.scan(step, 0, out.logits.q)[1]
      return out.replace(logits=out.logits.replace(q=q)), state

    return wrapped

  fixed = transform.fixed(leak(run.case.fn), run.plan)
  jaxpr = jax.make_jaxpr(fixed)(run.qparams, inputs)
  assert floats_in(jaxpr) == ["float32"]


# --- law 4


class Compilation(chex.TestCase):
  """Law 4 on the model: the same integers with and without jit."""

  @pytest.fixture(autouse=True)
  def _micro(self, micro):
    self.micro = micro
    self.ids = {"ids": micro.ids[:2, :3]}
    self.want = micro.run(micro.qparams, self.ids)

  @chex.variants(without_jit=True)
  @pytest.mark.slow
  def test_fixed_op_by_op(self):
    self.check_fixed()

  @chex.variants(with_jit=True)
  def test_fixed(self):
    self.check_fixed()

  def check_fixed(self):
    run = self.variant(transform.fixed(self.micro.fn, self.micro.plan))
    first = run(self.micro.qparams, {"ids": self.ids["ids"][:, :2]})
    out, state = run(
      self.micro.qparams, {"ids": self.ids["ids"][:, 2:]}, first[1]
    )
    chex.assert_trees_all_equal(state, self.want[1])
    both = np.concatenate([first[0].logits.q, out.logits.q], axis=1)
    chex.assert_trees_all_equal(both, np.asarray(self.want[0].logits.q))

  @chex.variants(with_jit=True, without_jit=True)
  def test_fake_quant(self):
    with jax.enable_x64(True):
      run = self.variant(transform.fake_quant(self.micro.fn, self.micro.plan))
      out, state = run(as_float64(self.micro.case.params), self.ids)
    got = [out.logits, *state["layers"]]
    want = [self.want[0].logits, *self.want[1]["layers"]]
    for a, b in zip(got, want, strict=True):
      chex.assert_trees_all_equal(codes(a), codes(b).astype(np.float64))

  @chex.variants(with_jit=True, without_jit=True)
  def test_reference(self):
    run = self.variant(transform.reference(self.micro.fn))
    out, _ = run(self.micro.case.params, self.ids)
    close = self.want[0].logits.to_float()
    assert np.abs(out.logits - close).max() < 0.1 * np.abs(close).max()

  @chex.variants(with_jit=True, without_jit=True)
  def test_overflow_is_refused_while_tracing(self):
    plan = self.micro.plan
    site = "layers.0.mlp.gate.out"
    plan = plan.with_formats({site: Format(24, plan.format(site).frac)})
    plan = plan.with_formats({"layers.0.mlp.gate.up": Format(16, 30)})
    qparams = quantize.quantize_params(self.micro.case.params, plan)
    with pytest.raises(FormatError, match="layers.0.mlp"):
      self.variant(transform.fixed(self.micro.fn, plan))(qparams, self.ids)


def test_batch_equals_single(micro):
  ids = micro.ids[:2]
  out, state = micro.run(micro.qparams, {"ids": ids})
  for i, row in enumerate(ids):
    one, last = micro.run(micro.qparams, {"ids": row})
    chex.assert_trees_all_equal(one.logits.q, out.logits.q[i])
    for h, both in zip(last["layers"], state["layers"]):
      chex.assert_trees_all_equal(h.q, both.q[i])


# Lengths 1 and 2 only: each new length is a compilation.
@hypothesis.settings(max_examples=12)
@hypothesis.given(st.data())
def test_any_split_into_chunks_gives_the_same(micro, data):
  row = data.draw(st.integers(0, 7))
  ids, left, chunks, state = micro.ids[row], 6, [], None
  while left:
    size = data.draw(st.integers(1, min(2, left)))
    start = 6 - left
    out, state = micro.run(
      micro.qparams, {"ids": ids[start : start + size]}, state
    )
    chunks.append(out.logits.q)
    left -= size
  want, last = micro.run(micro.qparams, {"ids": ids})
  chex.assert_trees_all_equal(np.concatenate(chunks), np.asarray(want.logits.q))
  chex.assert_trees_all_equal(state, last)


def test_left_padding_equals_no_padding(micro):
  ids, pad = micro.ids[0].copy(), 4
  mask = np.array([0] * pad + [1] * (len(ids) - pad), np.int32)
  padded, last = micro.run(micro.qparams, {"ids": ids, "mask": mask})
  plain, state = micro.run(micro.qparams, {"ids": ids[pad:]})
  chex.assert_trees_all_equal(
    np.asarray(padded.logits.q)[pad:], np.asarray(plain.logits.q)
  )
  chex.assert_trees_all_equal(last, state)
  # And what the padding holds does not matter.
  ids[:pad] = (ids[:pad] + 3) % 8
  other, _ = micro.run(micro.qparams, {"ids": ids, "mask": mask})
  chex.assert_trees_all_equal(
    np.asarray(other.logits.q)[pad:], np.asarray(plain.logits.q)
  )
  # A mask of ones is no mask.
  full = micro.run(micro.qparams, {"ids": ids, "mask": np.ones_like(ids)})
  chex.assert_trees_all_equal(full, micro.run(micro.qparams, {"ids": ids}))


def test_step_and_decode_trace_once(micro):
  fixed = transform.fixed(micro.fn, micro.plan)
  decode = jax.jit(chex.assert_max_traces(fixed, n=1))
  _, state = micro.run(micro.qparams, {"ids": micro.ids[0][:3]})
  structure = jax.tree.structure(state)
  token = micro.ids[0][3:4]
  for _ in range(10):
    out, state = decode(micro.qparams, {"ids": token}, state)
    assert jax.tree.structure(state) == structure
    token = np.asarray(jnp.argmax(out.logits.q, -1), np.int32)


def test_state_of_another_model_is_refused(micro, golden_run):
  _, state = micro.run(micro.qparams, {"ids": micro.ids[0]})
  run = transform.fixed(micro.fn, micro.plan)
  inputs = {"ids": micro.ids[0]}
  coarse = jax.tree.map(
    lambda h: h.replace(frac=h.frac - 1),
    state,
    is_leaf=lambda x: isinstance(x, Fx),
  )
  with pytest.raises(PlanError, match=r"layers\.0\.attn\.mlgru: the state has"):
    run(micro.qparams, inputs, coarse)
  narrow = jax.tree.map(lambda q: q[:5], state)
  with pytest.raises(PlanError, match=r"mlgru: a state of shape \[5\]"):
    run(micro.qparams, inputs, narrow)
  floats = {"layers": [np.ones(8, np.float32)]}
  with pytest.raises(PlanError, match="mlgru: expected a fixed-point state"):
    run(micro.qparams, inputs, floats)


def test_every_transform_starts_from_init_state(micro):
  start = {"layers": [np.zeros(8, np.float32)]}
  inputs = {"ids": micro.ids[0][:3]}
  runs = [
    (transform.reference(micro.fn), micro.case.params),
    (transform.fake_quant(micro.fn, micro.plan), micro.case.params),
    (transform.fixed(micro.fn, micro.plan), micro.qparams),
  ]
  for run, params in runs:
    chex.assert_trees_all_equal(run(params, inputs, start), run(params, inputs))


# --- law 6


def test_overflow_in_the_model_names_its_place(micro):
  changed = micro.plan.with_formats({"layers.0.mlp.gate.up": Format(16, 30)})
  wide = changed.format("layers.0.mlp.gate.out")
  changed = changed.with_formats(
    {"layers.0.mlp.gate.out": Format(24, wide.frac)}
  )
  qparams = quantize.quantize_params(micro.case.params, changed)
  with pytest.raises(FormatError) as error:
    transform.fixed(micro.fn, changed)(qparams, {"ids": micro.ids[0]})
  text = str(error.value)
  assert "layers.0.mlp" in text
  assert f"layers.0.mlp.gate.out .{wide.frac}" in text
  assert "put a site" in text


def test_saturations_are_the_clipped_values(golden_run):
  run = golden_run("double-W8A16")
  # Four bits fewer in front of the point of the residual stream.
  site = "layers.0.mid"
  fmt = run.plan.format(site)
  plan = run.plan.with_formats({site: Format(fmt.bits, fmt.frac + 4)})
  qparams = quantize.quantize_params(run.case.params, plan)
  fixed = transform.fixed(run.case.fn, plan, taps=True, saturation=True)
  _, _, tape = fixed(qparams, run.case.inputs)
  counts = {k: v for k, v in tape.items() if k.endswith(".saturated")}
  assert {k.removesuffix(".saturated") for k in counts} >= {site, "head.out"}
  a = tape["embed"]
  b = tape["layers.0.attn.o.out"]
  top = max(a.frac, b.frac)
  total = np.asarray(a.q, np.int64) * 2 ** (top - a.frac)
  total = total + np.asarray(b.q, np.int64) * 2 ** (top - b.frac)
  shift = top - (fmt.frac + 4)
  exact = (
    total * 2**-shift if shift <= 0 else (total + 2 ** (shift - 1)) >> shift
  )
  want = (abs(exact) > 32639).sum((1, 2))
  assert want.sum() > 0
  np.testing.assert_array_equal(counts[site + ".saturated"], want)
  assert counts[site + ".saturated"].dtype == np.int32
