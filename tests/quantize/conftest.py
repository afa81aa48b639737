"""A small model with every kind of parameter, calibrated once."""

import types

import numpy as np
import pytest

from jaxnmc import quantize

V, D, E, T = 9, 6, 4, 5


def fn(ops, params, inputs, state=None):
  """Embedding, norms, a recurrence with a learned bound, a head."""
  bound = ops.const("bound", params["bound"], "lower_bounds", unit=True)
  x = ops.embed("embed", params["embed"], inputs["ids"])
  x = ops.norms("norms", x, params["norms"], 1e-3)
  with ops.at("mix"):
    u = ops.site("u", ops.linear("weight", params["mix"], x["u"]))
    rest = ops.one_minus(ops.sigmoid(u))
    rest = ops.mul(rest, ops.one_minus(ops.index(bound, 1)))
    rest = ops.site("rest", rest, unit=True)
    v = ops.site("v", ops.mul(u, rest))

    def body(ops, h, step):
      f, v = step
      h = ops.site("h", ops.add(ops.mul(f, h), v), align="v")
      return h, h

    init = ops.zeros(v) if state is None else state
    state, h = ops.scan("cell", body, init, (ops.one_minus(rest), v))
  h = ops.norm("out_norm", h, params["out_norm"], 1e-3)
  return ops.site("logits", ops.linear("head", params["head"], h)), state


def make_params(seed=0, **shapes):
  rng = np.random.default_rng(seed)
  draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
  return {
    "embed": draw(shapes.get("vocab", V), D),
    "norms": {"u": 1 + 0.2 * draw(D)},
    "mix": draw(E, D),
    "bound": draw(2, E),
    "out_norm": 1 + 0.2 * draw(E),
    "head": draw(shapes.get("vocab", V), E),
  }


@pytest.fixture(scope="session")
def small():
  """fn, params, ids, stats, plan (W8A16) and qparams of the small model."""
  params = make_params()
  ids = np.random.default_rng(1).integers(0, V, (3, T)).astype(np.int32)
  stats = quantize.calibrate(fn)(params, [ids])
  plan = quantize.plan(stats, quantize.W8A16)
  return types.SimpleNamespace(
    fn=fn,
    make_params=make_params,
    params=params,
    ids=ids,
    stats=stats,
    plan=plan,
    qparams=quantize.quantize_params(params, plan),
  )
