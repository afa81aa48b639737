"""The MatMul-free language model as spikes, under plans of many kinds."""

import jax
import numpy as np
import pytest

import jaxnmc as nmc
from jaxnmc.numerics.formats import Format
from jaxnmc.spike import traffic
from tests.spike.sent import check_rows, same
from tools import golden

CASES = {
  "double, W8A16": ("double", nmc.quantize.W8A16, None),
  "fused, W8A8": ("fused", nmc.quantize.W8A8, None),
  "double, any bits": ("double", nmc.quantize.W8A16, 5),
  "fused, any bits": ("fused", nmc.quantize.W8A16, 6),
}


def some_bits(plan, seed):
  """Other bits at every site that drives a product."""
  rng = np.random.default_rng(seed)
  ends = (".i", ".f", ".g", ".gate", ".head", "o.norm", "down.norm")
  change = {}
  for path, fmt in plan.formats.items():
    if path.endswith(ends) and "norm" in path:
      bits = int(rng.integers(3, 17))
      change[path] = Format(bits, fmt.frac - fmt.bits + bits)
  return plan.with_formats(change)


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=[pytest.mark.slow] * ("any" not in name))
    for name in CASES
  ],
)
def test_language_models_as_spikes(name):
  """Every site, logits and states, padding among the inputs."""
  norm, preset, seed = CASES[name]
  case = golden.tiny(norm, num_layers=1 if seed else 2)
  stats = nmc.calibrate(case.fn)(case.params, [case.inputs])
  plan = nmc.plan(stats, preset)
  plan = plan if seed is None else some_bits(plan, seed)
  qparams = nmc.quantize_params(case.params, plan)
  inputs = {k: v[:3] for k, v in case.inputs.items()}

  @jax.jit
  def both(qparams, inputs):
    fixed = nmc.fixed(case.fn, plan, taps=True)(qparams, inputs)
    return fixed, nmc.spiking(case.fn, plan, taps=True)(qparams, inputs)

  fixed, found = both(qparams, inputs)
  same(fixed, (*found[:2], found[3]))
  rows = traffic.rows_of(found[2])
  assert len(rows) == 6 * case.config.num_layers + 1
  assert {row.site for row in rows} <= set(fixed[2])
  # Of the one sequence without padding.
  alone = jax.tree.map(lambda x: x[:1], found[2])
  taps = jax.tree.map(lambda x: x[:1], fixed[2])
  weights = {
    row.product: np.asarray(_at(qparams.tree, row.product).codes)
    for row in rows
  }
  check_rows("bitwise", traffic.rows_of(alone), taps, weights)
  assert all(path in fixed[2] for path in found[2].graded)
  left = {path.rsplit(".", 1)[1] for path in found[2].graded}
  assert left == {"square_low", "square_high", "root"}


def _at(tree, path):
  for key in path.split("."):
    tree = tree[int(key) if key.isdigit() else key]
  return tree
