"""Equal layers of a graph as one scan: same integers, one program size."""

import functools

import chex
import jax
import numpy as np
import pytest

import jaxnmc as nmc
from jaxnmc import _compat
from jaxnmc.kernels import native, program
from jaxnmc.models import matmulfree
from jaxnmc.ops import layout, one_token
from tests.chip.tiny import TINY

IDS = np.array([3, 0, 17, 5, 30, 1], np.int32)


@functools.cache
def deep(layers: int, norm: str):
  """A model of some depth with different numbers in every layer."""
  config = matmulfree.Config(
    **{**TINY.__dict__, "num_layers": layers, "norm": norm}
  )
  draw = np.random.default_rng(layers)
  shapes = jax.eval_shape(
    lambda: matmulfree.init_params(config, jax.random.key(0))
  )

  def fill(path, like):
    size = 4.0 ** draw.uniform(-1, 1)
    noise = draw.normal(size=like.shape).astype(np.float32)
    return 1 + 0.3 * noise if len(like.shape) == 1 else size * noise

  params = jax.tree_util.tree_map_with_path(fill, shapes)
  fn = matmulfree.make(config)
  stats = nmc.calibrate(fn)(params, [IDS[None]])
  plan = nmc.plan(stats, nmc.quantize.W8A16)
  qparams = nmc.quantize_params(params, plan)
  graph = nmc.record(fn, plan, qparams)
  placement = nmc.place(graph, nmc.chip.loihi2(chips=layers + 1), head="chip")
  return fn, plan, qparams, graph, nmc.loihi(fn, plan, placement)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["double", "fused"])
def test_layers_with_other_formats_are_one_run(norm):
  fn, plan, qparams, graph, engine = deep(3, norm)
  found = layout.runs(graph)
  # The first layer has no lower bound, the last run is norm and head.
  assert [len(run.layers) for run in found] == [1, 2, 1]
  scalars = np.array([layer.scalars for layer in found[1].layers])
  assert (scalars != scalars[0]).any(), "the layers should differ"
  out = engine(qparams, {"ids": IDS})
  want = jax.jit(nmc.fixed(fn, plan))(qparams, {"ids": IDS}, None)
  chex.assert_trees_all_equal(out[:2], want)
  counts = engine.rows(engine.traced(qparams, {"ids": IDS})[2], IDS.shape)
  by_interpreter = engine._interpreted(qparams, {"ids": IDS}, None)[2]
  np.testing.assert_array_equal(counts, by_interpreter)


@pytest.mark.skipif(
  not native.available(),
  reason="without native kernels every product has a branch per layer",
)
def test_program_does_not_grow_with_depth():
  def size(layers: int) -> int:
    _, _, qparams, _, engine = deep(layers, "double")
    jaxpr = jax.make_jaxpr(engine.traced)(qparams, {"ids": IDS})
    return sum(len(j.eqns) for j in _compat.all_jaxprs(jaxpr))

  # Only moving data in and out of the scan is written per layer.
  assert size(6) < 1.25 * size(3)


def test_a_mask_takes_the_interpreter_and_keeps_the_integers():
  fn, plan, qparams, _, engine = deep(1, "double")
  mask = np.array([0, 0, 1, 1, 1, 1], np.int32)
  out = engine(qparams, {"ids": IDS, "mask": mask})
  want = engine(qparams, {"ids": IDS[2:]})
  np.testing.assert_array_equal(out[0].logits.q[2:], want[0].logits.q)
  chex.assert_trees_all_equal(out[1], want[1])


@pytest.mark.parametrize(
  "norm", [pytest.param("double", marks=pytest.mark.slow), "fused"]
)
@pytest.mark.parametrize(
  "path", [0, pytest.param(1, marks=pytest.mark.slow), 2]
)
def test_a_single_token_by_the_native_interpreter(norm, path, monkeypatch):
  """Its values, states and counts, on every instruction set."""
  if not native.available():
    pytest.skip("the native kernels cannot be built here (see doctor)")
  _, _, qparams, _, engine = deep(3, norm)
  numbers = engine._load()[0]
  assert one_token.possible(engine._exe, numbers)
  used = []
  run = program.run
  watched = lambda *args, **more: (
    used.append(path) or run(*args, **{**more, "path": path})
  )
  monkeypatch.setattr(program, "run", watched)
  state = None
  for token in IDS:
    given = ({"ids": IDS[:1] * 0 + token}, state)
    alone = engine.traced(qparams, *given)
    assert len(used) == 3, "every run of layers takes it"
    monkeypatch.setattr(one_token, "possible", lambda *args: False)
    want = engine.traced(qparams, *given)
    monkeypatch.undo()
    monkeypatch.setattr(program, "run", watched)
    assert len(used) == 3
    used.clear()
    chex.assert_trees_all_equal(alone, want)
    state = alone[1]


def test_what_the_interpreter_does_not_know_takes_xla(monkeypatch):
  _, _, _, _, engine = deep(1, "double")
  numbers = engine._load()[0]
  if native.available():
    known = dict(native.instructions())
    known.pop("sigmoid")
    monkeypatch.setattr(native, "instructions", lambda: known)
  assert not one_token.possible(engine._exe, numbers)
  monkeypatch.setattr(native, "available", lambda: False)
  assert not one_token.possible(engine._exe, numbers)
