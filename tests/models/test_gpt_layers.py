"""Transformers whose layers have other numbers of heads and units."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import jaxnmc as nmc
from jaxnmc.errors import ConfigError
from jaxnmc.io import huggingface, info
from jaxnmc.models import families, gpt, to_spikes
from jaxnmc.report import conversion
from jaxnmc.train import export

SIZES = {
  "vocab_size": 13,
  "hidden_size": 16,
  "num_layers": 2,
  "num_heads": 4,
  "intermediate_size": 10,
  "max_position_embeddings": 8,
  "norm_eps": 1e-3,
}
PRUNED = {
  **SIZES,
  "head_dim": 4,
  "heads_per_layer": (3, 1),
  "intermediate_per_layer": (10, 6),
}
GPT2 = {"norm": "layer", "mlp": "relu", "positions": "learned", "bias": True}
IDS = np.random.default_rng(0).integers(0, 13, (40, 8)).astype(np.int32)


def count(config):
  shapes = jax.eval_shape(lambda: gpt.init_params(config, jax.random.key(0)))
  return sum(np.prod(x.shape) for x in jax.tree.leaves(shapes))


@pytest.mark.parametrize(
  "more",
  [
    {},
    GPT2,
    {"attention": "ssa", "mlp_ticks": 3},
    {"ternary": True},
    {"num_kv_heads": 2, "heads_per_layer": (4, 2)},
  ],
)
def test_every_layer_has_its_own_sizes(more):
  config = gpt.Config(**{**PRUNED, **more})
  assert config.num_params == count(config)
  rows = {r.path: r.shape for r in gpt.parameters(config)}
  for i, (heads, width) in enumerate(
    zip(config.heads_per_layer, config.intermediate_per_layer)
  ):
    kv = heads * config.kv_heads // 4
    assert rows[f"layers.{i}.attn.q.weight"] == (4 * heads, 16)
    assert rows[f"layers.{i}.attn.v.weight"] == (4 * kv, 16)
    assert rows[f"layers.{i}.attn.o.weight"] == (16, 4 * heads)
    assert rows[f"layers.{i}.mlp.down.weight"] == (16, width)
  assert info.parameters(config)["total"] == config.num_params
  state = jax.eval_shape(lambda: gpt.init_state(config, (2,)))
  fn = jax.jit(nmc.reference(gpt.make(config)))
  params = gpt.init_params(config, jax.random.key(0))
  _, after = jax.eval_shape(fn, params, {"ids": IDS[:2]})
  assert jax.tree.map(lambda x: x.shape, state["layers"]) == jax.tree.map(
    lambda x: x.shape, after["layers"]
  )


def test_operations_are_those_of_every_layer():
  softmax = info.operations(gpt.Config(**PRUNED))
  assert softmax["exponentials"] == 4 * 8
  assert softmax["attention_multiply_adds"] == 2 * 4 * 8 * 4
  found = gpt.Config(**PRUNED, attention="ssa", ticks=3, mlp_ticks=5)
  spiking = info.operations(found)
  assert spiking["spiking_attention_adds"] == 2 * 4 * 4 * 4 * 3
  assert spiking["count_compares"] == 2 * 16 * 5


def test_a_layer_is_a_model_of_its_own():
  config = gpt.Config(**PRUNED, attention="ssa", windows=((2, 3, None), (4,)))
  first, second = config.layers
  assert (first.num_heads, first.mlp_size, first.windows) == (
    3,
    10,
    (2, 3, None),
  )
  assert (second.num_heads, second.mlp_size, second.windows) == (1, 6, (4,))
  assert second.layers == (second, second)
  plain = gpt.Config(**SIZES)
  assert plain.layer(1) is plain


def test_lists_that_say_nothing_are_left_out():
  same = gpt.Config(
    **SIZES, heads_per_layer=[4, 4], intermediate_per_layer=[10, 10]
  )
  assert same == gpt.Config(**SIZES)
  ssa = {**SIZES, "attention": "ssa"}
  rows = [[2, 3, None, 8]] * 2
  assert gpt.Config(**ssa, windows=rows).windows == (2, 3, None, 8)
  assert gpt.Config(**ssa, windows=[[None] * 4] * 2).windows is None
  apart = gpt.Config(**ssa, windows=[[2, 3, None, 8], [None] * 4])
  assert apart.layer(0).windows == (2, 3, None, 8)
  assert apart.layer(1).windows is None


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"heads_per_layer": (3,)}, r"'heads_per_layer' must be .* list of 2 .*3,"),
    ({"heads_per_layer": (3, 0)}, r"whole numbers from 1 to 4; found \(3, 0\)"),
    ({"heads_per_layer": (5, 3)}, r"from 1 to 4; found \(5, 3\)"),
    ({"heads_per_layer": (3, True)}, "'heads_per_layer' must be .*True"),
    ({"heads_per_layer": (3, 1.0)}, "'heads_per_layer' must be .*1.0"),
    ({"heads_per_layer": 3}, "'heads_per_layer' must be .* found 3"),
    (
      {"num_kv_heads": 2, "attention": "softmax"},
      r"a list of 2 .* multiples of 2 from 2 to 4; .*3, 1",
    ),
    ({"head_dim": None}, "'head_dim' must be given when 'heads_per_layer' is"),
    ({"intermediate_per_layer": (4, 0)}, "'intermediate_per_layer' must .* 0"),
    ({"intermediate_per_layer": (4,)}, "'intermediate_per_layer' must .*list"),
    ({"windows": (1, 2, 3, 4)}, "'windows' must be .* lists, one per layer"),
    (
      {"windows": ((1, 2, 3), (1, 2))},
      r"'windows' must be null or a list of 2 lists of \(3, 1\) \('heads_per_l",
    ),
    ({"windows": ((1, 2, 9), (1,))}, "'windows' must be .* from 1 to 8, or"),
    ({"windows": ((1, 2, 3),)}, "'windows' must be .* 2 lists of"),
    ({"windows": ((1, 2, 3), 4)}, "'windows' must be .* 2 lists of"),
  ],
)
def test_impossible_lists(changes, message):
  with pytest.raises(ConfigError, match=message) as error:
    gpt.Config(**{**PRUNED, "attention": "ssa", **changes})
  assert "\n" not in str(error.value)


def test_files_bring_it_back(tmp_path):
  config = gpt.Config(**PRUNED, attention="ssa", windows=((2, 3, None), (4,)))
  data = families.to_json(config)
  assert json.loads(json.dumps(data)) == data
  assert families.from_json(data, "here") == config
  params = gpt.init_params(config, jax.random.key(0))
  model = families.model("made", config, params)
  export.save_folder(tmp_path, model, {})
  found = nmc.load(tmp_path)
  assert found.config == config
  jax.tree.map(np.testing.assert_array_equal, found.params, params)


@pytest.mark.parametrize(
  ("changes", "reason"),
  [
    ({}, r"heads_per_layer = \(3, 1\)"),
    ({"heads_per_layer": None}, r"intermediate_per_layer = \(10, 6\)"),
    ({"attention": "ssa"}, "attention = 'ssa'"),
    ({"mlp_ticks": 2}, "mlp_ticks = 2"),
  ],
)
@pytest.mark.parametrize("other", [GPT2, {}])
def test_other_formats_refuse_it_by_name(tmp_path, other, changes, reason):
  config = gpt.Config(**{**PRUNED, **other, **changes})
  params = gpt.init_params(config, jax.random.key(0))
  family = "gpt2" if other else "llama"
  with pytest.raises(ConfigError, match=f"no {family}: {reason}"):
    huggingface.write(tmp_path / "out", config, params)
  assert not (tmp_path / "out").exists()


def test_a_pruned_model_becomes_spiking():
  config = gpt.Config(**{**PRUNED, **GPT2})
  scale = lambda x: 10 * x if x.ndim == 2 else x
  params = jax.tree.map(scale, gpt.init_params(config, jax.random.key(1)))
  how = to_spikes.Recipe(
    ticks=2,
    mlp_ticks=4,
    share=90,
    mlp_top="maximum",
    windows=((2, 3, None), (4,)),
  )
  made, spiking = to_spikes.convert(config, params, IDS, how)
  want = dataclasses.replace(
    config, attention="ssa", ticks=2, mlp_ticks=4, windows=how.windows
  )
  assert made == want
  assert spiking["layers"][1]["mlp"]["fire"].shape == (4, 6)
  assert spiking["layers"][1]["attn"]["ssa"]["out"].shape == (4,)
  rows = conversion.layers((config, params), (made, spiking), IDS)
  assert [row["layer"] for row in rows] == [0, 1]
  assert all(0 < row["attention"]["error"] < 1 for row in rows)
  flat = dataclasses.replace(how, windows=(2, 3, None, 4))
  with pytest.raises(ConfigError, match="lists, one per layer"):
    to_spikes.convert(config, params, IDS, flat)
