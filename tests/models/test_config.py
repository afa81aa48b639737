"""Sizes, parameter counts and refusals of the configuration."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from jaxnmc.errors import ConfigError
from jaxnmc.models import matmulfree
from jaxnmc.models.matmulfree import PRESETS, Config

SMALL = Config(vocab_size=10, hidden_size=8, num_layers=3, intermediate_size=6)


def count(config):
  shapes = jax.eval_shape(
    lambda: matmulfree.init_params(config, jax.random.key(0))
  )
  return sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))


@pytest.mark.parametrize(
  ("name", "params", "inner", "state"),
  [
    ("370M", 374_108_160, 2816, 24_576),
    ("1.3B", 1_364_779_008, 5632, 49_152),
    ("2.7B", 2_702_357_504, 6912, 81_920),
  ],
)
def test_presets(name, params, inner, state):
  config = PRESETS[name]
  assert config.num_params == params
  assert count(config) == params
  assert config.mlp_size == inner
  assert config.num_layers * config.state_size == state
  assert config.vocab_size == 32000
  assert (config.rms_norm_eps, config.bitlinear_eps) == (1e-6, 1e-6)


@pytest.mark.parametrize(
  ("hidden", "ratio", "inner"),
  [
    (1024, 4, 2816),
    (2048, 4, 5632),
    (2560, 4, 6912),
    (64, 4, 256),
    (96, 4, 256),
    (97, 4, 512),
    (96, 2, 256),
  ],
)
def test_width_rule(hidden, ratio, inner):
  # 256 ceil(int(D ratio 2 / 3) / 256): truncated first, then rounded up.
  config = Config(hidden_size=hidden, hidden_ratio=ratio)
  assert config.mlp_size == inner


def test_explicit_width_is_taken_as_it_is():
  assert Config(hidden_size=8, intermediate_size=5).mlp_size == 5


@pytest.mark.parametrize(
  "changes",
  [
    {},
    {"use_lower_bound": False},
    {"use_lower_bound": False, "expand_ratio": 1.5},
    {"norm": "fused", "num_layers": 1},
    {"intermediate_size": None},
  ],
)
def test_count_is_the_count_of_the_arrays(changes):
  config = dataclasses.replace(SMALL, **changes)
  assert config.num_params == count(config)


def test_init_is_the_reference_one():
  config = Config(
    vocab_size=200, hidden_size=64, num_layers=2, intermediate_size=96
  )
  params = matmulfree.init_params(config, jax.random.key(0))
  std = lambda x: float(np.std(x))
  layer = params["layers"][1]
  for name in "ifg":
    w = layer["attn"][name]["weight"]
    limit = 2**-2.5 * math.sqrt(6 / 128)
    assert abs(w).max() <= limit
    assert std(w) == pytest.approx(limit / math.sqrt(3), rel=0.03)
  assert std(params["embed"]["weight"]) == pytest.approx(0.02, rel=0.03)
  assert std(params["head"]["weight"]) == pytest.approx(0.02, rel=0.03)
  assert std(layer["mlp"]["gate"]["weight"]) == pytest.approx(0.02, rel=0.03)
  # The down projection alone is scaled by the depth.
  assert std(layer["mlp"]["down"]["weight"]) == pytest.approx(0.01, rel=0.03)
  assert not params["lower_bounds"].any()
  for gain in (params["norm"], layer["attn_norm"], layer["attn"]["g_norm"]):
    assert (gain == 1).all()
  first, second = (params["layers"][i]["attn"]["i"]["weight"] for i in (0, 1))
  assert (first != second).any()


def test_init_state_is_zero():
  state = matmulfree.init_state(SMALL, (2, 3))
  assert [h.shape for h in state["layers"]] == [(2, 3, 8)] * 3
  assert not any(h.any() for h in state["layers"])


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"vocab_size": 0}, "'vocab_size' must be a positive integer; found 0"),
    ({"hidden_size": -8}, "'hidden_size'.*-8"),
    ({"num_layers": 1.5}, "'num_layers'.*1.5"),
    ({"num_heads": 0}, "'num_heads'"),
    ({"num_heads": 3}, r"'hidden_size' \(8\) must be divisible by 'num_heads'"),
    ({"norm": "single"}, "'norm' must be 'double' or 'fused'; found 'single'"),
    ({"expand_ratio": 0.01, "use_lower_bound": False}, "leaves no state"),
    ({"expand_ratio": 2}, "'expand_ratio' must be 1 when 'use_lower_bound'"),
    ({"intermediate_size": 0}, "'intermediate_size'.*found 0"),
    ({"intermediate_size": 2.5}, "'intermediate_size'.*found 2.5"),
    (
      {"hidden_ratio": 0.1, "intermediate_size": None},
      "'hidden_ratio' = 0.1 leaves no channel mixer",
    ),
    ({"rms_norm_eps": 0}, "'rms_norm_eps' must lie between 0 and 1"),
    ({"bitlinear_eps": -1e-6}, "'bitlinear_eps'"),
    ({"num_layers": 10**6}, "'num_layers' must be at most 16384; found 10"),
    ({"hidden_size": 10**15}, "'hidden_size' must be at most"),
    ({"hidden_ratio": 1e308}, r"'hidden_ratio' must be .*1e\+308"),
    ({"hidden_ratio": float("nan")}, "'hidden_ratio' must be .*nan"),
    ({"expand_ratio": float("inf")}, "'expand_ratio' must be .*inf"),
    ({"expand_ratio": -1}, "'expand_ratio' must be .*-1"),
  ],
)
def test_impossible_fields(changes, message):
  with pytest.raises(ConfigError, match=message):
    dataclasses.replace(SMALL, **changes)
