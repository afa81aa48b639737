"""Plans beside the float model: as `closeness` has it, one after the other."""

import jax
import numpy as np
import pytest

from jaxnmc import quantize as qz
from jaxnmc.evaluate import closeness, format_cost
from jaxnmc.ops import transform
from tests.evaluate import small

TEXTS = [
  np.frombuffer(x, np.uint8).astype(np.int32) % small.VOCAB
  for x in (b"one", b"a longer text")
]


@pytest.fixture(scope="module")
def measured():
  """(fn, params, statistics, costs)."""
  fn, params = small.recurrent()
  params = jax.tree.map(lambda x: 8 * x if x.ndim == 2 else x, params)
  stats = qz.calibrate(fn)(params, [np.resize(TEXTS[1], (1, 24))])
  costs = format_cost.Costs(
    *(fn, params, TEXTS),
    vocab_size=small.VOCAB,
    bos=small.BOS,
    batch=2,
    chunk=8,
  )
  return fn, params, stats, costs


def test_each_interpreter_is_compared_with_float(measured):
  fn, params, stats, costs = measured
  plan = qz.plan(stats, qz.W8A8)
  qparams = qz.quantize_params(params, plan)
  base = transform.reference(fn), params
  forms = {
    "fake_quant": (transform.fake_quant(fn, plan), params),
    "fixed": (transform.fixed(fn, plan), qparams),
  }
  for name in format_cost.BACKENDS:
    seen = []
    found = costs(plan, name, seen.append)
    want = closeness.compare(
      *(base, forms[name], TEXTS), bos=small.BOS, batch=2, chunk=8
    )
    assert (found.backend, found.refused) == (name, None)
    for field in ("ids", "base_nats", "nats", "same", "kl"):
      np.testing.assert_array_equal(
        getattr(found.close, field), getattr(want, field)
      )
    assert found.close.divergence.value > 1e-5
    assert sum(seen) == costs.ids == sum(map(len, TEXTS))


def test_what_has_no_integers_is_refused_before_anything_runs(measured):
  _, _, stats, costs = measured
  plan = qz.plan(stats, qz.A8)
  assert costs.refused(plan, "fake_quant") is None
  why = costs.refused(plan, "fixed")
  assert "leaves embed in float" in why
  found = costs(plan, "fixed")
  assert (found.close, found.refused) == (None, why)
  # What no interpreter can do is refused by both.
  fine = qz.plan(stats, qz.W8A16.replace(eps=1e-6))
  for name in format_cost.BACKENDS:
    assert "eps 1e-06 underflows" in costs.refused(fine, name)
