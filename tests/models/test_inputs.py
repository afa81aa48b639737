"""What the model refuses as a prompt, and that the check costs nothing."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from jaxnmc import quantize
from jaxnmc.errors import TokenError
from jaxnmc.models import matmulfree
from jaxnmc.models.inputs import token_check
from jaxnmc.ops import transform

V = 11
CHECK = token_check(V)
IDS = np.arange(6, dtype=np.int32).reshape(2, 3)
MASK = np.array([[0, 1, 1], [1, 1, 1]], np.int32)


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.int16])
def test_prompts_that_are_fine(array, dtype):
  for ids in (IDS, IDS[0], IDS[:1, :1], IDS * 0 + V - 1):
    CHECK({"ids": array(ids.astype(dtype))})
    CHECK({"ids": array(ids), "mask": None})
    CHECK({"ids": array(ids), "mask": array(np.ones_like(ids))})
    CHECK({"ids": array(ids), "mask": array(np.zeros_like(ids, bool))})


BAD = {
  "no ids": ({}, "must be a dict with 'ids'"),
  "none": ({"ids": None}, "must be a dict with 'ids'"),
  "array alone": (IDS, r"must be a dict with 'ids'.*int32\[2, 3\]"),
  "unknown entry": ({"ids": IDS, "masks": MASK}, "unknown entry 'masks'"),
  "list": ({"ids": [1, 2]}, r"'ids'\] must be an integer array.*found list"),
  "floats": ({"ids": IDS / 2}, "must be integers; found float64"),
  "bools": ({"ids": IDS > 2}, "must be integers; found bool"),
  "scalar": ({"ids": IDS[0, 0]}, r"must be \[T\] or \[B, T\]; found int32\[\]"),
  "rank 3": ({"ids": IDS[None]}, r"found int32\[1, 2, 3\]"),
  "empty": (
    {"ids": IDS[0, :0]},
    r"is empty \(int32\[0\]\).*at least one token",
  ),
  "empty batch": ({"ids": IDS[:0]}, r"is empty \(int32\[0, 3\]\)"),
  "empty rows": ({"ids": IDS[:, :0]}, r"is empty \(int32\[2, 0\]\)"),
  "negative": (
    {"ids": np.where(IDS == 4, -1, IDS)},
    r"'ids'\]\[1, 1\] is -1, .*vocabulary of 11 tokens \(0 to 10\)",
  ),
  "beyond": (
    {"ids": np.array([0, 10, 11, 12])},
    r"'ids'\]\[2\] is 11, .*vocabulary of 11 tokens",
  ),
  "mask shape": (
    {"ids": IDS, "mask": MASK[0]},
    r"the shape of the ids, \[2, 3\]; found int32\[3\]",
  ),
  "mask type": ({"ids": IDS, "mask": MASK / 1}, "found float64"),
  "mask list": ({"ids": IDS[0], "mask": [1, 1, 1]}, "found list"),
  "mask value": (
    {"ids": IDS, "mask": MASK * 2},
    r"'mask'\]\[0, 1\] is 2; a mask holds 1",
  ),
  "mask negative": ({"ids": IDS, "mask": -MASK}, r"'mask'\]\[0, 1\] is -1"),
}


@pytest.mark.parametrize("name", BAD)
def test_refusals(name):
  inputs, message = BAD[name]
  with pytest.raises(TokenError, match=message):
    CHECK(inputs)


def test_first_wrong_id_of_a_device_array():
  with pytest.raises(TokenError, match=r"\[0, 2\] is 99"):
    CHECK({"ids": jnp.asarray([[0, 1, 99], [99, 0, 0]])})


def test_static_facts_are_checked_under_jit():
  run = jax.jit(lambda ids: CHECK({"ids": ids}))
  run(IDS + 100)  # values are unknown while tracing
  with pytest.raises(TokenError, match="is empty"):
    run(IDS[:, :0])
  with pytest.raises(TokenError, match="must be integers"):
    run(IDS / 2)
  with pytest.raises(TokenError, match="shape of the ids"):
    jax.jit(lambda ids, mask: CHECK({"ids": ids, "mask": mask}))(IDS, MASK[0])


def test_nothing_enters_the_program():
  def f(ids, mask):
    CHECK({"ids": ids, "mask": mask})
    return ids

  jaxpr = jax.make_jaxpr(f)(IDS, MASK)
  assert not jaxpr.jaxpr.eqns


CONFIG = matmulfree.Config(
  vocab_size=V, hidden_size=4, num_layers=1, intermediate_size=4
)


@pytest.mark.parametrize(
  "kind", ["reference", "calibrate", "fake_quant", "fixed"]
)
@pytest.mark.parametrize("ids", [IDS[0] + V, IDS + V, IDS[:, :0]])
def test_every_transform_asks_the_model(kind, ids):
  fn = matmulfree.make(CONFIG)
  params = matmulfree.init_params(CONFIG, jax.random.key(0))
  run = {
    "reference": lambda: transform.reference(fn)(params, {"ids": ids}),
    "calibrate": lambda: quantize.calibrate(fn)(params, [ids]),
    "fake_quant": lambda: transform.fake_quant(fn, None)(params, {"ids": ids}),
    "fixed": lambda: transform.fixed(fn, None)(params, {"ids": ids}),
  }[kind]
  with pytest.raises(TokenError, match="vocabulary of 11|is empty"):
    run()
