"""The recurrence in one launch equals `lax.scan`, integer for integer."""

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

import jaxnmc as nmc
from jaxnmc import _compat
from jaxnmc.kernels import pallas_launch, pallas_recurrence
from jaxnmc.numerics import sigmoid, wide
from tests.chip.tiny import TINY, tiny_model


@pytest.fixture(autouse=True)
def interpret(monkeypatch):
  monkeypatch.setenv(pallas_launch.VARIABLE, "interpret")
  # Steps that are written out one after the other take long to compile here.
  monkeypatch.setattr(pallas_recurrence, "TOGETHER", 2)


@pytest.fixture
def launches(monkeypatch):
  """Counts how often a kernel took the place of `lax.scan`."""
  count = []
  real = pallas_recurrence._launch
  spy = lambda *args: count.append(1) or real(*args)
  monkeypatch.setattr(pallas_recurrence, "_launch", spy)
  return count


_TABLE = sigmoid.SigmoidTable(spacing=8, segments=2)


def _many_instructions(n: int, shifts):
  """A step that uses most of what a neuron can do; `shifts` are data."""
  bound = jnp.arange(n, dtype=jnp.int32) * 37 - 500

  def step(carry, now):
    (h, g), (f, u) = carry, now
    scaled = wide.mul_shr_scale(h, f, shifts[0], -32639, 32639)
    product = wide.mul_shr(u, bound, 20, -(1 << 30), 1 << 30)
    h = jnp.clip(scaled + product + u, -32639, 32639)
    h = jnp.where(bound > 50, h, h - wide.round_right(u, shifts[1], -5, 5))
    g = sigmoid.sigmoid(h >> 4, _TABLE) + (g >> 1)
    return (h, g), (h, jnp.maximum(g, u) & 1023)

  return step


def _data(length: int, n: int):
  draw = np.random.default_rng([length, n])
  take = lambda *shape: draw.integers(-32639, 32640, shape).astype(np.int32)
  f = draw.integers(0, 1 << 16, (length, n)).astype(np.int32)
  carry = (jnp.asarray(take(n)), jnp.asarray(take(n)))
  return carry, (jnp.asarray(f), jnp.asarray(take(length, n)))


def _equal(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(
  ("length", "n"), [(0, 5), (1, 5), (2, 1), (8, 32), (7, 45)]
)
def test_equals_scan(length, n, launches):
  shifts = jnp.array([17, 9], jnp.int32)
  carry, series = _data(length, n)

  def run(scan):
    # The shifts arrive as data, so the step closes over tracers.
    return jax.jit(lambda s, c, x: scan(_many_instructions(n, s), c, x))(
      shifts, carry, series
    )

  _equal(run(pallas_recurrence.scan), run(lax.scan))
  # Less than two steps need no loop.
  assert len(launches) == (length > 1)


def test_as_many_steps_together_as_on_a_gpu(monkeypatch):
  monkeypatch.undo()
  monkeypatch.setenv(pallas_launch.VARIABLE, "interpret")
  carry, (f, u) = _data(2 * pallas_recurrence.TOGETHER + 1, 33)
  step = lambda h, now: 2 * (jnp.clip(((h * now[0]) >> 16) + now[1], -9, 99),)
  found = pallas_recurrence.scan(step, carry[0] & 0xFF, (f, u))
  _equal(found, lax.scan(step, carry[0] & 0xFF, (f, u)))


def test_batches(launches):
  carry, series = _data(9, 40)
  more = jax.tree.map(lambda x: jnp.stack([x, x ^ 5, x >> 1]), series)
  step = _many_instructions(40, jnp.array([18, 3], jnp.int32))
  run = lambda scan: jax.vmap(lambda c, x: scan(step, c, x), (None, 0))
  _equal(run(pallas_recurrence.scan)(carry, more), run(lax.scan)(carry, more))
  assert launches


def _across(carry, now):
  carry = carry + jnp.roll(now, 1)
  return carry, carry


def _float(carry, now):
  carry = (carry * jnp.float32(0.5)).astype(jnp.int32) + now
  return carry, carry


def _narrow(carry, now):
  carry = carry + now
  return carry, carry[:2]


@pytest.mark.parametrize("step", [_across, _float, _narrow])
def test_what_is_not_elementwise_stays_with_xla(step, launches):
  _, (series, _) = _data(5, 8)
  first = jnp.zeros(8, jnp.int32)
  found = pallas_recurrence.scan(step, first, series)
  _equal(found, lax.scan(step, first, series))
  assert not launches


def test_a_kernel_that_does_not_compile_is_replaced(monkeypatch, launches):
  # Without a GPU every kernel is one that does not compile.
  monkeypatch.setenv(pallas_launch.VARIABLE, "1")
  monkeypatch.setattr(pallas_launch, "wanted", lambda: True)
  carry, series = _data(4, 8)
  step = _many_instructions(8, jnp.array([17, 9], jnp.int32))
  with pytest.warns(RuntimeWarning, match="recurrence kernel does not compile"):
    found = pallas_recurrence.scan(step, carry, series)
  _equal(found, lax.scan(step, carry, series))


@pytest.mark.parametrize(
  ("norm", "layers"),
  [("double", 1), pytest.param("fused", 3, marks=pytest.mark.slow)],
)
def test_a_recorded_model(norm, layers, launches, monkeypatch):
  fn, _, plan, qparams = tiny_model(norm, layers)
  graph = nmc.record(fn, plan, qparams)
  placement = nmc.place(graph, nmc.chip.loihi2(chips=2))
  draw = np.random.default_rng(3)
  ids = draw.integers(0, TINY.vocab_size, (2, 9)).astype(np.int32)
  fixed = lambda: jax.jit(nmc.fixed(fn, plan))(qparams, {"ids": ids})
  found = fixed()
  assert len(launches) == layers
  loihi = nmc.loihi(fn, plan, placement)(qparams, {"ids": ids})
  # (Layers that are the same program share one launch in it.)
  count = len(launches)
  assert count > layers
  monkeypatch.setenv(pallas_launch.VARIABLE, "0")
  expected = fixed()
  assert len(launches) == count
  _equal(found, expected)
  _equal(loihi[:2], expected)


@pytest.mark.skipif(
  jax.__version_info__ >= (0, 11), reason="0.11 lowers for a GPU it can see"
)
def test_lowers_through_triton(monkeypatch):
  monkeypatch.setenv(pallas_launch.VARIABLE, "1")
  monkeypatch.setattr(pallas_launch, "wanted", lambda: True)
  monkeypatch.setattr(pallas_launch, "compiles", lambda *_: True)
  carry, series = _data(20, 45)
  step = _many_instructions(45, jnp.array([17, 9], jnp.int32))
  run = jax.jit(lambda c, x: pallas_recurrence.scan(step, c, x))
  traced = run.trace(carry, series)
  text = {
    name: traced.lower(lowering_platforms=(name,)).as_text()
    for name in ("cuda", "cpu")
  }
  assert "triton" in text["cuda"]
  assert "stablehlo.while" not in text["cuda"]
  assert "triton" not in text["cpu"]
  assert "stablehlo.while" in text["cpu"]
  # One program, traced with a GPU at hand, runs on the CPU beside it.
  _equal(run(carry, series), lax.scan(step, carry, series))


def test_pallas_is_imported_when_asked_for():
  pl, triton = _compat.pallas()
  assert pl.pallas_call
  assert triton.CompilerParams(num_warps=1).num_warps == 1
