"""Operations of a model, counted by hand on a small one."""

import jax
import numpy as np
import pytest

import jaxnmc as nmc
from jaxnmc.numerics.weights import QMatrix
from jaxnmc.report import census
from tests.chip.tiny import tiny_model


@pytest.mark.parametrize("norm", ["double", "fused"])
def test_counts_are_those_of_the_matrices(norm):
  fn, _, plan, qparams = tiny_model(norm)
  graph = nmc.record(fn, plan, qparams)
  found = census.census(graph)
  is_matrix = lambda x: isinstance(x, QMatrix)
  leaves = jax.tree.leaves(qparams.tree, is_leaf=is_matrix)
  matrices = [np.asarray(x.codes) for x in leaves if is_matrix(x)]
  zeros = np.array([(m == 0).mean() for m in matrices])
  assert found.additions == sum(np.count_nonzero(m) for m in matrices)
  assert found.product_multiplications == 0
  assert found.zeros == pytest.approx(zeros.mean(), abs=0.02)
  assert 0 < found.neuron_multiplications < found.additions * 5
