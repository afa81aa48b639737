"""quantize_params: integers, fingerprints and refusals."""

import jax
import numpy as np
import pytest

from jaxnmc import quantize
from jaxnmc.errors import PlanError, UserError
from jaxnmc.numerics.ternary import Ternary
from jaxnmc.numerics.weights import QMatrix, QVector
from jaxnmc.ops import transform
from jaxnmc.ops.record import record
from jaxnmc.quantize import params as params_lib


def replaced(tree, key, value):
  return {**tree, key: value}


def test_types_and_values(small):
  tree = small.qparams.tree
  embed = tree["embed"]
  assert isinstance(embed, QVector)
  assert np.asarray(embed.q).dtype == np.int16
  fmt = small.plan.format("embed")
  exact = [
    [int(np.floor(float(x) * 2.0**fmt.frac + 0.5)) for x in row]
    for row in small.params["embed"]
  ]
  np.testing.assert_array_equal(embed.q, exact)
  gain = tree["norms"]["u"]
  assert np.asarray(gain.q).dtype == np.int8
  assert (gain.low, gain.high) == (-127, 127)
  assert abs(np.asarray(gain.q, int)).max() > 63  # the range is used
  bound = tree["bound"]
  assert np.asarray(bound.q).dtype == np.int32
  raw = small.params["bound"].astype(np.float64)
  share = np.exp(raw) / np.exp(raw).sum(0)
  want = np.floor(np.stack([0 * share[0], share[1]]) * 2**15 + 0.5)
  np.testing.assert_array_equal(bound.q, want)


def test_matrix_codes_and_scale(small):
  w = small.params["mix"].astype(np.float64)
  scale = np.abs(w).mean()
  q = small.qparams.tree["mix"]
  assert isinstance(q, QMatrix)
  codes = np.asarray(q.codes, int)
  np.testing.assert_array_equal(codes, np.clip(np.round(w / scale), -1, 1))
  assert np.asarray(q.codes).dtype == np.int8
  assert 2**15 <= int(q.mult) < 2**16
  assert int(q.mult) * 2.0**-q.exp == pytest.approx(scale, rel=2**-16)
  assert q.l1 == abs(codes).sum(1).max()


def test_ternary_is_used_as_it_is(small):
  codes = np.array([[1, 0, -1], [0, 0, 0]], np.int8)
  q = params_lib.matrix(Ternary(codes, np.float32(0.375)))
  np.testing.assert_array_equal(q.codes, codes)
  assert int(q.mult) * 2.0**-q.exp == 0.375
  assert q.l1 == 2


@pytest.mark.parametrize("scale", [2.0**-16 * 0.999999, 1.0, 0.99999999, 3e4])
def test_scale_mantissa_at_the_ends(scale):
  q = params_lib.matrix(Ternary(np.ones((1, 1), np.int8), np.float64(scale)))
  assert 2**15 <= int(q.mult) < 2**16
  assert int(q.mult) * 2.0**-q.exp == pytest.approx(scale, rel=2**-16)


def test_float32_weights_ternarise_in_float64():
  # In float32 the scale 1 - 2^-25 is 1 and the first entry a tie, which rounds
  # to zero; in float64 it lies above the threshold.
  w = np.array([[0.5, 1.5, 1.0, 1.0 - 2.0**-23]], np.float32)
  np.testing.assert_array_equal(params_lib.matrix(w).codes, [[1, 1, 1, 1]])


def test_missing_parameter_is_named(small):
  params = {k: v for k, v in small.params.items() if k != "head"}
  with pytest.raises(PlanError, match="needs 1 parameters .* first head"):
    quantize.quantize_params(params, small.plan)


def test_unknown_parameter_is_named(small):
  params = replaced(small.params, "extra", np.ones(3, np.float32))
  with pytest.raises(PlanError, match="parameter extra is unknown to plan"):
    quantize.quantize_params(params, small.plan)


def test_wrong_shape_is_named(small):
  params = replaced(small.params, "mix", np.ones((4, 7), np.float32))
  with pytest.raises(
    PlanError, match=r"parameter mix has shape \[4, 7\].*\[4, 6\]"
  ):
    quantize.quantize_params(params, small.plan)
  params = replaced(
    small.params, "mix", Ternary(np.ones((5, 6), np.int8), np.float32(1))
  )
  with pytest.raises(PlanError, match=r"parameter mix has shape \[5, 6\]"):
    quantize.quantize_params(params, small.plan)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["mix", "embed", "out_norm", "bound"])
def test_not_finite_is_named(small, name, bad):
  leaf = small.params[name].copy()
  leaf.reshape(-1)[1] = bad
  params = replaced(small.params, name, leaf)
  with pytest.raises(UserError, match=f"parameter {name} .*not finite"):
    quantize.quantize_params(params, small.plan)


def _flip(tree, path):
  """The tree with one code changed by one."""

  def change(key, x):
    if jax.tree_util.keystr(key, simple=True, separator=".") != path:
      return x
    x = np.array(x)
    x.reshape(-1)[-1] += -1 if x.reshape(-1)[-1] > 0 else 1
    return x

  return jax.tree_util.tree_map_with_path(change, tree)


def test_fingerprint_sees_one_flipped_code(small):
  tree = small.qparams.tree
  paths = [
    jax.tree_util.keystr(key, simple=True, separator=".")
    for key, _ in jax.tree_util.tree_leaves_with_path(tree)
  ]
  assert len(paths) == 8
  prints = {params_lib._digest(_flip(tree, path)) for path in paths}
  assert small.qparams.weights == params_lib._digest(tree)
  assert len({*prints, small.qparams.weights}) == 1 + len(paths)


def test_fingerprint_sees_the_exponent(small):
  tree = dict(small.qparams.tree)
  tree["mix"] = tree["mix"].replace(exp=tree["mix"].exp + 1)
  assert params_lib._digest(tree) != small.qparams.weights


def test_fingerprint_is_of_the_integers(small):
  again = quantize.quantize_params(small.params, small.plan)
  assert again.weights == small.qparams.weights
  # Weights that round to the same integers are the same.
  nudged = replaced(small.params, "embed", small.params["embed"] * (1 + 1e-7))
  nudged = quantize.quantize_params(nudged, small.plan)
  assert nudged.weights == small.qparams.weights
  doubled = replaced(small.params, "mix", small.params["mix"] * 2)
  doubled = quantize.quantize_params(doubled, small.plan)
  assert doubled.weights != small.qparams.weights


def test_qparams_of_another_plan_are_refused(small):
  other = quantize.plan(small.stats, quantize.W8A8)
  run = transform.fixed(small.fn, other)
  with pytest.raises(PlanError, match="qparams were made with plan .*'W8A8'"):
    run(small.qparams, {"ids": small.ids})


def test_float_params_are_refused(small):
  run = transform.fixed(small.fn, small.plan)
  with pytest.raises(PlanError, match="expected the result of quantize_params"):
    run(small.params, {"ids": small.ids})
  with pytest.raises(PlanError, match="expected the result of quantize_params"):
    record(small.fn, small.plan, small.params)
  run = transform.fake_quant(small.fn, small.plan)
  with pytest.raises(PlanError, match="float params"):
    run({"mix": np.ones((2, 2), np.int8)}, {"ids": small.ids})


def test_x64_flag_changes_no_integer(small):
  with jax.enable_x64(True):
    wide = quantize.quantize_params(small.params, small.plan)
  assert wide.weights == small.qparams.weights


def test_qparams_are_a_pytree(small):
  leaves, tree = jax.tree.flatten(small.qparams)
  assert all(np.issubdtype(np.asarray(x).dtype, np.integer) for x in leaves)
  again = jax.tree.unflatten(tree, leaves)
  assert (again.plan, again.weights) == (
    small.qparams.plan,
    small.qparams.weights,
  )


def test_memory(small):
  bytes_ = quantize.memory_bytes(small.qparams)
  # mix [4, 6] packs to 2 bytes a row, head [9, 4] to 1.
  assert bytes_["ternary_packed"] == 4 * 2 + 9 * 1
  assert bytes_["other"] == 9 * 6 * 2 + 6 + 4 + 2 * 4 * 4


def test_bytes_under_any_plan(small):
  """Two ternary matrices [4, 6] and [9, 4], rows of 2 and 1 bytes."""
  ternary = 4 * 2 + 9 * 1
  gains, table, bound = 6 + 4, 9 * 6, 2 * 4
  assert (
    quantize.plan_bytes(small.plan) == ternary + gains + 2 * table + 2 * bound
  )
  made = lambda preset: quantize.plan(small.stats, preset)
  rest = gains + table + bound
  assert quantize.plan_bytes(made(quantize.PT)) == ternary + 4 * rest
  assert quantize.plan_bytes(made(quantize.FP16)) == ternary + 2 * rest
  three = quantize.Rule("embed", bits=3)
  saved = quantize.plan_bytes(made([three]))
  assert saved == -(-(8 * (ternary + 4 * (gains + bound)) + 3 * table) // 8)
