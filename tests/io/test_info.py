"""`info`: counts agree with the model, not only with their own formula."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest

from jaxnmc.io import info as infos
from jaxnmc.io import zoo
from jaxnmc.io.info import info
from jaxnmc.models import matmulfree
from jaxnmc.models.model import Model
from jaxnmc.numerics.ternary import ternarize
from jaxnmc.ops.reference import Reference
from tests.io.test_zoo import make_params

CONFIG = matmulfree.Config(
  vocab_size=30, hidden_size=8, num_layers=3, intermediate_size=5
)


def _model(config=CONFIG, params=None):
  params = params or make_params(config, 0)
  return Model("m", config, params, matmulfree.make(config), None)


class Counter(Reference):
  """Counts what the model really asks for, one token."""

  def __init__(self):
    super().__init__()
    self.seen = dict.fromkeys(
      ("ternary_adds", "lookups", "roots", "divisions"), 0
    )

  def linear(self, name, weight, x):
    self.seen["ternary_adds"] += weight.size
    return super().linear(name, weight, x)

  def act_quant(self, name, x):
    self.seen["divisions"] += 1
    return super().act_quant(name, x)

  def embed(self, name, table, ids):
    self.seen["lookups"] += 1
    return super().embed(name, table, ids)

  def sigmoid(self, x):
    self.seen["lookups"] += x.shape[-1]
    return super().sigmoid(x)

  def silu(self, name, x):
    self.seen["lookups"] += x.shape[-1]
    return super().silu(name, x)

  def norm(self, name, x, gain, eps):
    self.seen["roots"] += 1
    return super().norm(name, x, gain, eps)

  def norms(self, name, x, gains, eps):
    self.seen["roots"] += 1
    return super().norms(name, x, gains, eps)

  def double_norm(self, name, x, gain1, gains, eps1, eps2):
    self.seen["roots"] += 1
    return super().double_norm(name, x, gain1, gains, eps1, eps2)


@pytest.mark.parametrize("norm", ["double", "fused"])
def test_operations_are_those_of_the_model(norm):
  config = dataclasses.replace(CONFIG, norm=norm)
  model = _model(config)
  counters = []

  def count(params):
    counters.append(Counter())
    ids = np.array([1], np.int32)
    return model.fn(counters[0], params, {"ids": ids}, None)

  jax.eval_shape(count, model.params)
  found, seen = infos.operations(config), counters[0].seen
  assert {kind: found[kind] for kind in seen} == seen


def test_operations_of_370m():
  found = infos.operations(matmulfree.PRESETS["370M"])
  assert found["ternary_adds"] == 308_281_344 + 32_768_000
  assert found["roots"] == 24 * 7 + 2
  assert found["multiplies"] < 0.01 * found["ternary_adds"]


def test_multiplies_of_a_norm_and_a_bound():
  none = dataclasses.replace(CONFIG, use_lower_bound=False)
  with_bound, without = infos.operations(CONFIG), infos.operations(none)
  # One product per channel in every layer but the first.
  assert with_bound["multiplies"] - without["multiplies"] == 2 * 8
  assert with_bound["lookups"] == without["lookups"]


def test_memory():
  found = infos.memory(CONFIG)
  assert found["float32"] == 4 * CONFIG.num_params
  d, i, v, n = 8, 5, 30, 3
  rows = n * (4 * d + 2 * i) + v
  packed = 2 * rows + 2 * d * n + 4 * (6 * n + 1)
  others = v * d + n * (2 * d + 6 * d + i) + 2 * d + n * d
  assert found["packed_8bit"] == packed + others
  assert found["packed_16bit"] == packed + 2 * others
  big = infos.memory(matmulfree.PRESETS["370M"])
  assert big["float32"] == 4 * 374_108_160
  assert big["packed_8bit"] < 0.09 * big["float32"]


@pytest.mark.parametrize("packed", [False, True])
def test_zero_fraction(packed):
  model = _model()
  params = zoo.rounded(CONFIG, model.params) if packed else model.params
  found = infos.zero_fraction(CONFIG, params)
  head = np.asarray(ternarize(model.params["head"]["weight"]).codes)
  assert found["by_role"]["head"] == pytest.approx((head == 0).mean())
  assert set(found["by_role"]) == {*"ifgo", "gate", "down", "head"}
  assert 0.1 < found["least"] <= found["all"] <= found["most"] < 0.5


def test_the_whole_is_json():
  found = info(_model())
  again = json.loads(json.dumps(found))
  assert again["parameters"]["total"] == CONFIG.num_params
  kinds = ("ternary", "embedding", "gains", "lower_bounds")
  assert sum(found["parameters"][k] for k in kinds) == CONFIG.num_params
  assert again["state_bytes"] == 4 * 3 * 8
  assert again["tokenizer"] is None
  assert again["plan"] is None


def test_of_a_loaded_model():
  pytest.importorskip("safetensors")
  from jaxnmc.io.load import load

  found = info(load(pathlib.Path(__file__).parent / "golden"))
  assert found["config"]["hidden_size"] == 16
  assert found["notes"]
