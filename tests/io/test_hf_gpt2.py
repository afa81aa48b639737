"""Hugging Face folders of GPT-2: what they compute, and bad ones."""

import functools
import json

import jax
import numpy as np
import pytest

from jaxnmc import cli
from jaxnmc.errors import CheckpointError, ConfigError
from jaxnmc.io import hf_gpt2, huggingface, name_map
from jaxnmc.io import safetensors_files as folders
from jaxnmc.io.load import load
from jaxnmc.io.verify import verify
from jaxnmc.models import gpt
from jaxnmc.ops.transform import reference
from tests.io import hf_gpt, hf_numpy


@pytest.fixture
def make(tmp_path):
  """make(fields, tensors, name="model") -> folder."""
  return functools.partial(hf_gpt.write, tmp_path)


# --- what they compute


@pytest.mark.parametrize(
  "changes",
  [
    {},
    {"activation_function": "gelu_pytorch_tanh", "n_ctx": "absent"},
    {"activation_function": "gelu", "n_inner": 20},
    {"activation_function": "relu", "tie_word_embeddings": False},
  ],
  ids=lambda c: c.get("activation_function", "gelu_new"),
)
def test_gpt2_computes_what_numpy_computes(make, changes):
  fields = hf_gpt.GPT2 | changes
  tensors = hf_gpt.gpt2_tensors(fields)
  model = load(make(fields, tensors))
  want = hf_numpy.gpt2(fields, tensors, hf_gpt.IDS)
  assert np.std(want) > 0.5
  np.testing.assert_allclose(hf_gpt.logits_of(model), want, rtol=0, atol=1e-10)
  count = sum(t.size for t in tensors.values())
  assert model.config.num_params == count
  assert model.tokenizer is None


def test_names_without_prefix_and_buffers_of_old_files(make):
  """As the first files of the hub: the bare model, with its causal masks."""
  tensors = hf_gpt.gpt2_tensors(hf_gpt.GPT2)
  plain = load(make(hf_gpt.GPT2, tensors, "a"))
  short = {k.removeprefix("transformer."): v for k, v in tensors.items()}
  mask = np.tri(12, dtype=np.float32).reshape(1, 1, 12, 12)
  for layer in range(2):
    short[f"h.{layer}.attn.bias"] = mask.astype(bool if layer else np.float32)
    short[f"h.{layer}.attn.masked_bias"] = np.array(-1e4, np.float32)
  model = load(make(hf_gpt.GPT2, short, "b"))
  assert model.config == plain.config
  hf_gpt.same(model.params, plain.params)
  assert "tensor" not in " ".join(model.notes)


def test_a_tied_head_in_the_file(make):
  tensors = hf_gpt.gpt2_tensors(hf_gpt.GPT2)
  table = tensors["transformer.wte.weight"]
  plain = load(make(hf_gpt.GPT2, tensors, "a"))
  hf_gpt.same(
    load(make(hf_gpt.GPT2, tensors | {"lm_head.weight": table}, "b")).params,
    plain.params,
  )
  other = tensors | {"lm_head.weight": table + 1}
  with pytest.raises(CheckpointError) as caught:
    load(make(hf_gpt.GPT2, other, "c"))
  for word in ("c/model.safetensors", "lm_head.weight", "tie_word_embeddings"):
    assert word in str(caught.value)


@pytest.mark.parametrize("name", gpt.PRESETS)
def test_tensors_of_released_sizes(name):
  """12 per block and 4 more: 148, 292 and 436 tensors."""
  config = gpt.PRESETS[name]
  rows = hf_gpt2.tensors(config, True)
  assert len(rows) == 12 * config.num_layers + 4
  count = sum(int(np.prod(row.shape)) for row in rows)
  assert count == config.num_params
  paths = [path for row in rows for path in row.paths]
  assert sorted(paths) == sorted(e.path for e in name_map.entries(config))
  by_key = {row.key: row.shape for row in rows}
  d = config.hidden_size
  assert by_key["transformer.h.0.attn.c_attn.weight"] == (d, 3 * d)
  assert hf_gpt2.parse({"model_type": "gpt2"}).config == gpt.GPT2
  fields = hf_gpt2.render(config)
  assert hf_gpt2.parse(fields).config == config


# --- commands


def test_commands(make, capsys):
  tensors = hf_gpt.gpt2_tensors(hf_gpt.GPT2)
  folder = make(hf_gpt.GPT2, tensors)
  assert cli.main(["info", str(folder), "--json", "-"]) == 0
  found = json.loads(capsys.readouterr().out)
  count = sum(t.size for t in tensors.values())
  assert found["parameters"]["total"] == count
  assert found["config"]["mlp"] == "gelu_tanh"
  assert "summary_type" in found["notes"][0]
  assert cli.main(["run", str(folder), "--prompt", "a"]) == 2
  assert "tokenizer" in capsys.readouterr().err
  bad = make(hf_gpt.GPT2 | {"activation_function": "mish"}, tensors, "bad")
  assert cli.main(["info", str(bad)]) == 2
  said = capsys.readouterr()
  assert said.out == ""
  assert said.err.startswith(f"jaxnmc: error: {bad}/config.json: field 'act")
  assert len(said.err.splitlines()) == 1


def test_text_in_and_out(make, tmp_path, capsys):
  """`run` and `evaluate` of a folder with the two files of GPT-2's BPE."""
  tokenizers = pytest.importorskip("tokenizers")
  made = tokenizers.ByteLevelBPETokenizer()
  words = ["low lower lowest"] * 9
  made.train_from_iterator(words, 262, 2, False, ["<|endoftext|>"])
  fields = hf_gpt.GPT2 | {
    "vocab_size": 262,
    "bos_token_id": 0,
    "eos_token_id": 0,
  }
  tensors = hf_gpt.gpt2_tensors(fields)
  folder = make(fields, tensors)
  made.save_model(str(folder))
  compute = lambda ids: hf_numpy.gpt2(fields, tensors, np.array(ids))

  ids = [0, *made.encode("lowest low").ids]
  new = []
  for _ in range(4):
    new.append(int(compute(ids + new)[-1].argmax()))
  assert 0 not in new
  argv = ["run", str(folder), "--prompt", "lowest low", "--tokens", "4"]
  assert cli.main([*argv, "--json", "-"]) == 0
  found = json.loads(capsys.readouterr().out)
  assert found["text"] == made.decode(new)

  path = tmp_path / "text.txt"
  path.write_text("lowest low lower")
  ids = made.encode("lowest low lower").ids
  logits = compute([0, *ids[:-1]])
  log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  nats = -log[np.arange(len(ids)), ids].sum()
  assert cli.main(["evaluate", str(folder), "--text", str(path)]) == 0
  found = json.loads(capsys.readouterr().out)
  assert found["ids"] == len(ids)
  assert found["nats"] == pytest.approx(nats, rel=1e-5)


def test_recorded_logits(make, tmp_path):
  tensors = hf_gpt.gpt2_tensors(hf_gpt.GPT2)
  folder, path = make(hf_gpt.GPT2, tensors), tmp_path / "recorded.npz"
  logits = hf_numpy.gpt2(hf_gpt.GPT2, tensors, hf_gpt.IDS)
  arrays = {"input_ids": hf_gpt.IDS, "logits": logits, "f64/logits": logits}
  np.savez(path, **arrays, state_0=np.zeros((2, 4)))
  found = verify(folder, path)
  assert (found["ok"], found["verdict"]) == (True, "float64")
  # Keys and values have no recorded name.
  assert found["unknown"] == ["state_0"]
  np.savez(path, **(arrays | {"f64/logits": logits + 1e-6}))
  assert not verify(folder, path)["ok"]


# --- bad folders


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    (
      {"activation_function": "quick_gelu"},
      [
        "'activation_function'",
        "quick_gelu",
        "'gelu_new'",
        "'relu'",
        "convert",
      ],
    ),
    ({"activation_function": None}, ["'activation_function'", "None", "str"]),
    ({"n_embd": 9}, ["'n_embd' is 9", "'n_head' (2)", "multiples"]),
    ({"n_head": 0}, ["'n_head'", "positive", "0"]),
    ({"n_layer": -1}, ["'n_layer'", "positive", "-1"]),
    ({"n_embd": "8"}, ["'n_embd'", "'8'", "int"]),
    ({"n_ctx": 11}, ["'n_ctx' is 11", "12", "'n_positions'"]),
    ({"layer_norm_epsilon": 0}, ["'layer_norm_epsilon'", "0 and 1"]),
    ({"layer_norm_epsilon": float("nan")}, ["'layer_norm_epsilon'", "nan"]),
    ({"scale_attn_weights": False}, ["'scale_attn_weights'", "root"]),
    (
      {"scale_attn_by_inverse_layer_idx": True},
      ["'scale_attn_by_inverse_layer_idx'", "False"],
    ),
    ({"add_cross_attention": True}, ["'add_cross_attention'"]),
    ({"quantization_config": {"bits": 8}}, ["'quantization_config'"]),
    ({"window_size": 256}, ["unknown field 'window_size'", "remove"]),
    ({"bos_token_id": 31}, ["'bos_token_id' is 31", "0 ... 30"]),
    ({"tie_word_embeddings": "yes"}, ["'tie_word_embeddings'", "bool"]),
    ({"model_type": "gpt_neo"}, ["'gpt_neo'", "'gpt2'", "'llama'"]),
    ({"model_type": ["gpt2"]}, ["['gpt2']", "allowed"]),
    ({"model_type": "absent"}, ["'model_type' is missing", "'gpt2'"]),
  ],
)
def test_bad_gpt2_config(make, fields, words):
  folder = make(hf_gpt.GPT2 | fields, {})
  with pytest.raises(ConfigError) as caught:
    load(folder)
  for word in (str(folder / "config.json"), *words):
    assert word in str(caught.value)


def test_a_small_vocabulary_without_a_begin_token(make):
  fields = hf_gpt.GPT2 | {"bos_token_id": "absent", "eos_token_id": "absent"}
  config = load(make(fields, hf_gpt.gpt2_tensors(hf_gpt.GPT2))).config
  assert (config.bos_token_id, config.eos_token_id) == (None, None)


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    (
      {"transformer.h.1.attn.c_attn.bias": None},
      [
        "1 tensors are missing",
        "transformer.h.1.attn.c_attn.bias [24]",
        "copy",
      ],
    ),
    (
      {
        "transformer.h.0.ln_1.weight": None,
        "transformer.h.0.ln_1.gamma": np.ones(8, np.float32),
      },
      ["h.0.ln_1.weight [8]", "no place", "h.0.ln_1.gamma"],
    ),
    (
      {
        "transformer.h.0.crossattention.c_attn.weight": np.ones(8, np.float32),
        "transformer.h.2.ln_1.bias": np.ones(8, np.float32),
      },
      ["2 tensors have no place", "crossattention", "h.2.ln_1.bias", "remove"],
    ),
    (
      {"transformer.h.1.mlp.c_fc.weight": np.zeros((32, 8), np.float32)},
      ["model.safetensors", "h.1.mlp.c_fc.weight", "[32, 8]", "[8, 32]"],
    ),
    (
      {"transformer.wpe.weight": np.zeros((10, 8), np.float32)},
      ["wpe.weight", "[10, 8]", "[12, 8]", "config.json"],
    ),
    (
      {"transformer.ln_f.bias": np.zeros(8, np.int8)},
      ["ln_f.bias", "I8", "F32"],
    ),
    (
      {"transformer.ln_f.bias": np.full(8, np.nan, np.float32)},
      ["ln_f.bias", "NaN"],
    ),
  ],
)
def test_bad_tensors(make, changes, words):
  folder = make(hf_gpt.GPT2, hf_gpt.gpt2_tensors(hf_gpt.GPT2) | changes)
  with pytest.raises(CheckpointError) as caught:
    load(folder)
  for word in (str(folder), *words):
    assert word in str(caught.value)


def test_an_untied_model_needs_its_head(make):
  with pytest.raises(CheckpointError, match=r"lm_head.weight \[31, 8\]"):
    load(
      make(
        hf_gpt.GPT2 | {"tie_word_embeddings": False},
        hf_gpt.gpt2_tensors(hf_gpt.GPT2),
      )
    )


def test_a_cut_file(make, tmp_path):
  folder = make(hf_gpt.GPT2, hf_gpt.gpt2_tensors(hf_gpt.GPT2))
  path = folder / folders.SINGLE
  data = path.read_bytes()
  for size in (0, 100, len(data) // 2, len(data) - 1):
    path.write_bytes(data[:size])
    with pytest.raises(CheckpointError, match=r"model.safetensors.*cut off"):
      load(folder)
  path.write_bytes(data)
  model = load(folder)
  out = tmp_path / "shards"
  huggingface.write(out, model.config, model.params, shard_bytes=2000)
  shard = sorted(out.glob("*.safetensors"))[1]
  shard.unlink()
  with pytest.raises(CheckpointError, match=f"{shard.name}: no such file"):
    load(out)


# --- the real sizes


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "gpt2-large"])
def test_the_real_layout(tmp_path, name):
  """Random numbers in the released shapes, bfloat16, in shards."""
  import ml_dtypes

  config = gpt.PRESETS[name]
  rng = np.random.default_rng(0)
  numbers = (0.02 * rng.standard_normal(1 << 20, np.float32)).astype(
    ml_dtypes.bfloat16
  )
  shards, table = [{}], {}
  for row in hf_gpt2.tensors(config, True):
    shards[-1][row.key] = np.resize(numbers, row.shape)
    if sum(x.nbytes for x in shards[-1].values()) > 500e6:
      shards.append({})
  for index, tensors in enumerate(filter(None, shards)):
    file = f"model-{index}.safetensors"
    hf_gpt.safetensors_numpy.save_file(tensors, tmp_path / file)
    table |= dict.fromkeys(tensors, file)
  (tmp_path / folders.INDEX).write_text(json.dumps({"weight_map": table}))
  fields = {"model_type": "gpt2", "n_embd": config.hidden_size}
  fields |= {"n_layer": config.num_layers, "n_head": config.num_heads}
  (tmp_path / "config.json").write_text(json.dumps(fields))
  model = load(tmp_path)
  assert model.config == config
  count = sum(x.size for x in jax.tree.leaves(model.params))
  assert count == config.num_params
  out, _ = jax.jit(reference(model.fn))(model.params, {"ids": hf_gpt.IDS[:2]})
  assert np.isfinite(out.logits).all()
