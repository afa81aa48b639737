"""Operations of a step against a count by hand; the measured peak."""

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

from jaxnmc.models import matmulfree
from jaxnmc.train import products, schedules
from jaxnmc.train import step as step_lib

SIZES = {
  "vocab_size": 20,
  "hidden_size": 16,
  "num_layers": 2,
  "intermediate_size": 24,
}


def _counted(f, *args):
  return products.flops(jax.make_jaxpr(f)(*args))


@pytest.mark.parametrize(
  ("dtype", "taught"), [("float32", False), ("bfloat16", True)]
)
def test_a_step_is_the_count_by_hand(dtype, taught):
  config = matmulfree.Config(**SIZES)
  fn = matmulfree.make(config)
  schedule = schedules.wsd(1e-2, 10)
  optimizer = step_lib.adamw(schedule)
  params = matmulfree.init_params(config, jax.random.key(0))
  step = step_lib.make_step(
    fn,
    optimizer,
    schedule,
    step_lib.make_mesh(1),
    batch=4,
    dtype=dtype,
    teacher=(fn, params) if taught else None,
    alpha=0.5 if taught else 0.0,
  )
  state = step_lib.init(jax.tree.map(jnp.array, params), optimizer)
  step.prepare(state, np.zeros((13, 4), np.int32))
  v, d, layers, inner = SIZES.values()
  # i, f, g, o are d x d; gate and up d x inner, down inner x d; the head.
  weights = layers * (4 * d * d + 3 * d * inner) + v * d
  tokens, forward = 12 * 4, 2 * weights
  # The gradient has one product for the activations, one for the weights.
  times = 3 + taught
  assert step.compilations[0].flops == times * forward * tokens


def test_loops_and_branches():
  a = jnp.ones((3, 4))
  b = jnp.ones((4, 5))
  one = 2 * 3 * 4 * 5
  assert _counted(jnp.matmul, a, b) == one
  assert _counted(jax.jit(lambda a, b: jnp.sin(a) @ b), a, b) == one
  batch = lambda a, b: jnp.einsum("nij,njk->nik", a, b)
  assert _counted(batch, jnp.ones((7, 3, 4)), jnp.ones((7, 4, 5))) == 7 * one

  def scanned(a, b):
    return lax.scan(lambda c, _: (c + (a @ b).sum(), None), 0.0, None, 6)

  assert _counted(scanned, a, b) == 6 * one
  both = lambda p, a, b: lax.cond(p, lambda: a @ b, lambda: 2 * a @ b)
  assert _counted(both, True, a, b) == one
  # What depends on the data is not known.
  either = lambda p, a, b: lax.cond(p, lambda: a @ b, lambda: jnp.zeros((3, 5)))
  assert _counted(either, True, a, b) is None
  again = lambda a, b: lax.while_loop(
    lambda c: c < 9.0, lambda c: c + (a @ b).sum(), 0.0
  )
  assert _counted(again, a, b) is None
  count = lambda: lax.while_loop(lambda c: c < 9, lambda c: c + 1, 0)
  assert _counted(count) == 0


def test_peak_is_a_rate(monkeypatch):
  monkeypatch.setattr(products, "_SIZES", (64, 128))
  products.peak.cache_clear()
  seconds = iter([0.5, 0.25, 1.0, 0.5, 0.5, *[0.001] * 5])
  monkeypatch.setattr(products, "_clock", lambda run: next(seconds))
  # The best repetition; no larger size after one that took long.
  mesh = step_lib.make_mesh(1)
  assert products.peak("float32", mesh) == 2 * 64**3 / 0.25
  monkeypatch.undo()
  products.peak.cache_clear()
  monkeypatch.setattr(products, "_SIZES", (128,))
  assert 1e6 < products.peak("bfloat16", mesh) < 1e16
  products.peak.cache_clear()
