"""Fixed-point values and integer parameters as pytrees."""

import chex
import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.numerics.fx import Fx
from jaxnmc.numerics.weights import QMatrix, QVector


class ValueTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  def test_to_float(self):
    run = self.variant(lambda x: x.to_float())
    plain = Fx(jnp.array([3, -5]), frac=2, low=-9, high=7)
    assert run(plain).tolist() == [0.75, -1.25]
    assert run(plain.replace(frac=-1)).tolist() == [6.0, -10.0]
    scaled = plain.replace(mult=jnp.int32(2**15), exp=16)
    assert run(scaled).tolist() == [0.375, -0.625]
    chex.assert_type(run(plain), jnp.float32)
    chex.assert_type(plain.to_float(jnp.bfloat16), jnp.bfloat16)


def test_bounds_and_shapes():
  x = Fx(jnp.zeros((2, 3)), low=-9, high=7)
  assert (x.bound, x.replace(low=-2).bound, x.shape) == (9, 7, (2, 3))
  gain = QVector(np.zeros(4), frac=3, low=-9, high=7)
  assert (gain.bound, gain.replace(low=0).bound, gain.shape) == (9, 7, (4,))
  matrix = QMatrix(np.zeros((5, 4)), np.int32(2**15), exp=3, l1=4)
  assert matrix.shape == (5, 4)


def test_only_codes_are_leaves():
  x = Fx(jnp.zeros(3), frac=2, low=-1, high=1, site="a.b")
  gain = QVector(np.zeros(4), frac=3, low=-9, high=7)
  matrix = QMatrix(np.zeros((5, 4)), np.int32(1), exp=3, l1=4)
  assert [len(jax.tree.leaves(v)) for v in (x, gain, matrix)] == [1, 1, 2]
  again = jax.tree.map(lambda v: v + 1, x)
  assert (again.frac, again.site, again.q.tolist()) == (2, "a.b", [1, 1, 1])
