"""Training of some parameters only, and towards hidden states."""

import math
import re

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from jaxnmc.errors import ConfigError
from jaxnmc.models.model import Out
from jaxnmc.ops.observe import path_name
from jaxnmc.ops.reference import Reference
from jaxnmc.train import schedules
from jaxnmc.train import step as step_lib

IDS = np.random.default_rng(1).integers(0, 7, (6, 4), np.int32)


def fn(ops, params, inputs, state=None):
  """A language model that is compiled in a moment."""
  x = ops.embed("embed", params["embed"]["weight"], inputs["ids"])
  x = ops.norm("norm", x, params["norm"]["gain"], 1e-3)
  return Out(ops.dense("head", params["head"]["weight"], x)), state


def nameless(ops, params, inputs, state=None):
  """One whose hidden states have another name."""
  with ops.at("last"):
    return fn(ops, params, inputs, state)


def _params(seed=0):
  draw = np.random.default_rng(seed)
  weight = lambda: {"weight": draw.normal(size=(7, 5)).astype(np.float32)}
  gain = 1 + 0.1 * draw.normal(size=5).astype(np.float32)
  return {"embed": weight(), "norm": {"gain": gain}, "head": weight()}


def _steps(only=None, count=2, model=fn, **more):
  """Parameters and the metrics of every step."""
  schedule = schedules.cosine(1e-2, 10)
  optimizer = step_lib.adamw(schedule, weight_decay=0.1, only=only)
  step = step_lib.make_step(
    model, optimizer, schedule, step_lib.make_mesh(1), batch=4, **more
  )
  # A step overwrites the state that it is given.
  state = step_lib.init(jax.tree.map(jnp.array, _params()), optimizer)
  found = []
  for _ in range(count):
    state, metrics = step(state, IDS)
    found.append(metrics)
  return jax.device_get(state.params), found


@pytest.mark.parametrize("only", ["norm", "^head|gain$", r"embed\.weight"])
def test_only_what_matches_is_trained(only):
  """By part of a path; neither gradient nor decay moves the rest."""
  after, _ = _steps(only)
  pairs = zip(
    jax.tree_util.tree_leaves_with_path(_params()),
    jax.tree.leaves(after),
    strict=True,
  )
  moved = set()
  for (path, before), now in pairs:
    trained = re.search(only, path_name(path)) is not None
    assert (before != now).any() == trained, path_name(path)
    moved.add(trained)
  assert moved == {True, False}


def test_everything_that_matches_is_everything():
  some, _ = _steps(".", count=1)
  every, _ = _steps(None, count=1)
  jax.tree.map(np.testing.assert_array_equal, some, every)


def test_the_norm_that_is_clipped_is_that_of_what_is_trained():
  """Large gradients elsewhere do not make these steps small."""
  adam = lambda only: step_lib.adamw(lambda t: 1.0, 0.0, clip=1.0, only=only)
  grads = {"a": jnp.full(1, 0.5), "b": jnp.full(1, 1e8)}
  for only, rate in (("a", 0.5), (None, 0.5e-8)):
    optimizer = adam(only)
    _, state = optimizer.update(grads, optimizer.init(grads), grads)
    first = [
      float(x.mu["a"][0])
      for x in jax.tree.leaves(state, is_leaf=lambda x: hasattr(x, "mu"))
      if hasattr(x, "mu")
    ]
    assert first == [pytest.approx(0.1 * rate)]


def test_what_trains_nothing_is_refused():
  for only, message in (
    ("attn", "only: 'attn' matches no parameter.* there are embed.weight"),
    ("(head", r"only: '\(head' is no regular expression \(.*position 0"),
  ):
    optimizer = step_lib.adamw(lambda t: 1.0, only=only)
    with pytest.raises(ConfigError, match=message):
      step_lib.init(_params(), optimizer)


# --- hidden states


def test_similarity_is_the_mean_cosine():
  a, b = np.random.default_rng(0).normal(size=(2, 3, 4, 6))
  cosines = (a * b).sum(-1) / np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
  found = step_lib.similarity(jnp.float32(a), jnp.float32(b))
  assert float(found) == pytest.approx(cosines.mean(), abs=1e-6)
  mask = np.random.default_rng(1).random((3, 4)) < 0.5
  found = step_lib.similarity(jnp.float32(a), jnp.float32(b), jnp.array(mask))
  assert float(found) == pytest.approx(cosines[mask].mean(), abs=1e-6)
  none = step_lib.similarity(a, b, jnp.zeros((3, 4)))
  assert float(none) == 0
  half = step_lib.similarity(jnp.bfloat16(a), jnp.bfloat16(7 * a))
  assert half.dtype == jnp.float32
  assert float(half) == pytest.approx(1, abs=1e-4)


def test_similarity_has_no_slope_to_the_teacher_and_none_that_breaks():
  a, b = np.random.default_rng(0).normal(size=(2, 3, 6)).astype(np.float32)
  mine, theirs = jax.grad(step_lib.similarity, (0, 1))(a, b)
  assert np.abs(mine).max() > 0.01
  assert not theirs.any()
  # The cosine does not change with the length.
  np.testing.assert_allclose((mine * a).sum(-1), 0, atol=1e-6)
  slope = jax.grad(step_lib.similarity)(jnp.zeros((3, 6)), b)
  assert np.isfinite(slope).all()


def test_the_angle_is_part_of_the_loss():
  teacher = (fn, _params(5))
  hidden = []
  for params in (_params(), _params(5)):
    ops = Reference(taps=True)
    fn(ops, params, {"ids": IDS[:-1]})
    hidden.append(ops.tape.values["norm"])
  angle = float(step_lib.similarity(*hidden))
  _, (metrics,) = _steps(count=1, teacher=teacher, cosine=3.0)
  assert float(metrics.loss) == pytest.approx(
    float(metrics.nats) + 3 * (1 - angle), rel=1e-5
  )
  _, (metrics,) = _steps(count=1, teacher=(fn, _params()), cosine=3.0)
  assert float(metrics.loss) == pytest.approx(float(metrics.nats), rel=1e-5)


def test_angles_to_nothing_are_refused():
  with pytest.raises(ConfigError, match="cosine: found 1.*0 without a teacher"):
    _steps(cosine=1.0)
  with pytest.raises(ConfigError, match="cosine: found -1"):
    _steps(cosine=-1.0, teacher=(fn, _params()))
  for model, teach, name in (
    (nameless, fn, "the model"),
    (fn, nameless, "the teacher"),
  ):
    with pytest.raises(ConfigError, match=f"cosine: {name} has no site 'norm'"):
      _steps(model=model, teacher=(teach, _params()), cosine=1.0)


def test_cosine_is_the_formula():
  schedule = schedules.make("cosine", 4e-3, 100, 10)
  for t in (0, 4, 9, 10, 50, 75, 100):
    warm = min(1, (t + 1) / 10)
    want = 4e-3 * 0.5 * (1 + math.cos(math.pi * t / 100)) * warm
    assert float(schedule(t)) == pytest.approx(want, abs=1e-9)
  assert float(schedules.cosine(1.0, 8)(0)) == 1
