"""Small models made of integers, each run once."""

import functools
import types

import jax
import pytest

from jaxnmc import quantize
from jaxnmc.ops import transform
from tools import golden


@pytest.fixture(scope="session")
def golden_run():
  """`golden_run(name)`: a golden case and its integers, computed eagerly."""

  @functools.cache
  def run(name):
    recorded = golden.load(name)
    plan = golden.stored_plan(recorded)
    case = golden.tiny(golden.CASES[name][0])
    qparams = quantize.quantize_params(case.params, plan)
    fixed = transform.fixed(case.fn, plan, taps=True)
    out, state, taps = fixed(qparams, case.inputs)
    return types.SimpleNamespace(
      recorded=recorded,
      plan=plan,
      case=case,
      qparams=qparams,
      out=out,
      state=state,
      taps=taps,
    )

  return run


@pytest.fixture(scope="session")
def micro():
  """One layer, 8 wide, 8 tokens; `run` is `fixed` under jit."""
  case = golden.tiny(
    num_layers=1, hidden_size=8, intermediate_size=8, vocab_size=8
  )
  stats = quantize.calibrate(case.fn)(case.params, [case.inputs["ids"]])
  plan = quantize.plan(stats, quantize.W8A16)
  qparams = quantize.quantize_params(case.params, plan)
  return types.SimpleNamespace(
    case=case,
    fn=case.fn,
    ids=case.inputs["ids"],
    plan=plan,
    qparams=qparams,
    run=jax.jit(transform.fixed(case.fn, plan)),
  )
