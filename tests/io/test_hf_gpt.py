"""Hugging Face folders of GPT-2 and Llama: what they compute, and bad ones."""

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
from jaxnmc.models import gpt, matmulfree
from jaxnmc.ops.transform import reference
from tests.io import hf_numpy

safetensors_numpy = pytest.importorskip("safetensors.numpy")

# Every field that a file of the hub has, and small sizes.
GPT2 = {
  "activation_function": "gelu_new",
  "architectures": ["GPT2LMHeadModel"],
  "attn_pdrop": 0.1,
  "bos_token_id": 30,
  "embd_pdrop": 0.1,
  "eos_token_id": 30,
  "initializer_range": 0.02,
  "layer_norm_epsilon": 1e-3,
  "model_type": "gpt2",
  "n_ctx": 12,
  "n_embd": 8,
  "n_head": 2,
  "n_inner": None,
  "n_layer": 2,
  "n_positions": 12,
  "reorder_and_upcast_attn": False,
  "resid_pdrop": 0.1,
  "scale_attn_by_inverse_layer_idx": False,
  "scale_attn_weights": True,
  "summary_activation": None,
  "summary_first_dropout": 0.1,
  "summary_proj_to_labels": True,
  "summary_type": "cls_index",
  "summary_use_proj": True,
  "task_specific_params": {"text-generation": {"max_length": 50}},
  "tie_word_embeddings": True,
  "torch_dtype": "float32",
  "transformers_version": "4.40.2",
  "use_cache": True,
  "vocab_size": 31,
}
LLAMA = {
  "architectures": ["LlamaForCausalLM"],
  "attention_bias": False,
  "attention_dropout": 0.0,
  "bos_token_id": 1,
  "eos_token_id": 2,
  "hidden_act": "silu",
  "hidden_size": 8,
  "initializer_range": 0.02,
  "intermediate_size": 20,
  "max_position_embeddings": 12,
  "mlp_bias": False,
  "model_type": "llama",
  "num_attention_heads": 4,
  "num_hidden_layers": 2,
  "num_key_value_heads": 2,
  "pretraining_tp": 1,
  "rms_norm_eps": 1e-4,
  "rope_scaling": None,
  "rope_theta": 100.0,
  "tie_word_embeddings": False,
  "torch_dtype": "float32",
  "use_cache": True,
  "vocab_size": 31,
}
IDS = np.random.default_rng(0).integers(0, 31, 12).astype(np.int32)


def gpt2_tensors(fields):
  """Random arrays under the names of the specification, as Conv1D has them."""
  d, v = fields["n_embd"], fields["vocab_size"]
  inner = fields["n_inner"] or 4 * d
  shapes = {"wte.weight": (v, d), "wpe.weight": (fields["n_positions"], d)}
  norms = ["ln_f"]
  for layer in range(fields["n_layer"]):
    h = f"h.{layer}."
    norms += [h + "ln_1", h + "ln_2"]
    for name, inp, out in (
      ("attn.c_attn", d, 3 * d),
      ("attn.c_proj", d, d),
      ("mlp.c_fc", d, inner),
      ("mlp.c_proj", inner, d),
    ):
      shapes |= {f"{h}{name}.weight": (inp, out), f"{h}{name}.bias": (out,)}
  for name in norms:
    shapes |= {f"{name}.weight": (d,), f"{name}.bias": (d,)}
  shapes = {"transformer." + name: shape for name, shape in shapes.items()}
  if not fields["tie_word_embeddings"]:
    shapes["lm_head.weight"] = (v, d)
  return _draw(shapes)


def llama_tensors(fields):
  """Random arrays under the names of the specification, [out, in]."""
  d, v, inner = (
    fields[name] for name in ("hidden_size", "vocab_size", "intermediate_size")
  )
  kv = d * fields["num_key_value_heads"] // fields["num_attention_heads"]
  shapes = {"model.embed_tokens.weight": (v, d), "model.norm.weight": (d,)}
  for layer in range(fields["num_hidden_layers"]):
    at = f"model.layers.{layer}."
    for name in ("input_layernorm", "post_attention_layernorm"):
      shapes[f"{at}{name}.weight"] = (d,)
    for name, out, inp in (
      ("self_attn.q_proj", d, d),
      ("self_attn.k_proj", kv, d),
      ("self_attn.v_proj", kv, d),
      ("self_attn.o_proj", d, d),
      ("mlp.gate_proj", inner, d),
      ("mlp.up_proj", inner, d),
      ("mlp.down_proj", d, inner),
    ):
      shapes[f"{at}{name}.weight"] = (out, inp)
      if fields["attention_bias"]:
        shapes[f"{at}{name}.bias"] = (out,)
  if not fields["tie_word_embeddings"]:
    shapes["lm_head.weight"] = (v, d)
  return _draw(shapes)


def _draw(shapes):
  rng = np.random.default_rng(1)
  return {
    k: 0.5 * rng.standard_normal(s, np.float32) for k, s in shapes.items()
  }


@pytest.fixture
def make(tmp_path):
  """make(fields, tensors) -> folder; "absent" and None remove."""

  def write(fields, tensors, name="model"):
    folder = tmp_path / name
    folder.mkdir()
    fields = {k: v for k, v in fields.items() if v != "absent"}
    (folder / "config.json").write_text(json.dumps(fields))
    kept = {k: v for k, v in tensors.items() if v is not None}
    safetensors_numpy.save_file(kept, folder / folders.SINGLE)
    return folder

  return write


def logits_of(model, ids=IDS):
  """float64[T, V], computed in float64."""
  with jax.enable_x64(True):
    params = jax.tree.map(np.float64, model.params)
    out, _ = jax.jit(reference(model.fn))(params, {"ids": ids})
    assert out.logits.dtype == np.float64
    return np.asarray(out.logits)


def _same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)


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
  fields = GPT2 | changes
  tensors = gpt2_tensors(fields)
  model = load(make(fields, tensors))
  want = hf_numpy.gpt2(fields, tensors, IDS)
  assert np.std(want) > 0.5
  np.testing.assert_allclose(logits_of(model), want, rtol=0, atol=1e-10)
  count = sum(t.size for t in tensors.values())
  assert model.config.num_params == count
  assert model.tokenizer is None


@pytest.mark.parametrize(
  "changes",
  [
    {},
    {"tie_word_embeddings": True, "num_key_value_heads": 4},
    {"attention_bias": True, "mlp_bias": True},
    {
      "rope_theta": "absent",
      "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
    },
  ],
  ids=["grouped", "tied", "biases", "newer names"],
)
def test_llama_computes_what_numpy_computes(make, changes):
  fields = LLAMA | changes
  tensors = llama_tensors(fields)
  model = load(make(fields, tensors))
  want = hf_numpy.llama(fields | {"rope_theta": 100.0}, tensors, IDS)
  np.testing.assert_allclose(logits_of(model), want, rtol=0, atol=1e-10)
  assert model.config.num_params == sum(t.size for t in tensors.values())


def test_names_without_prefix_and_buffers_of_old_files(make):
  """As the first files of the hub: the bare model, with its causal masks."""
  tensors = gpt2_tensors(GPT2)
  plain = load(make(GPT2, tensors, "a"))
  short = {k.removeprefix("transformer."): v for k, v in tensors.items()}
  mask = np.tri(12, dtype=np.float32).reshape(1, 1, 12, 12)
  for layer in range(2):
    short[f"h.{layer}.attn.bias"] = mask.astype(bool if layer else np.float32)
    short[f"h.{layer}.attn.masked_bias"] = np.array(-1e4, np.float32)
  model = load(make(GPT2, short, "b"))
  assert model.config == plain.config
  _same(model.params, plain.params)
  assert "tensor" not in " ".join(model.notes)


def test_a_tied_head_in_the_file(make):
  tensors = gpt2_tensors(GPT2)
  table = tensors["transformer.wte.weight"]
  plain = load(make(GPT2, tensors, "a"))
  _same(
    load(make(GPT2, tensors | {"lm_head.weight": table}, "b")).params,
    plain.params,
  )
  other = tensors | {"lm_head.weight": table + 1}
  with pytest.raises(CheckpointError) as caught:
    load(make(GPT2, other, "c"))
  for word in ("c/model.safetensors", "lm_head.weight", "tie_word_embeddings"):
    assert word in str(caught.value)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_out_and_in_again(make, tmp_path, kind):
  fields, tensors = (
    (GPT2, gpt2_tensors(GPT2))
    if kind == "gpt2"
    else (LLAMA, llama_tensors(LLAMA))
  )
  model = load(make(fields, tensors))
  for name, size in (("one", None), ("shards", 2000)):
    out = tmp_path / name
    huggingface.write(out, model.config, model.params, shard_bytes=size)
    assert len(list(out.glob("*.safetensors"))) > 1 or size is None
    again = load(out)
    assert again.config == model.config
    _same(again.params, model.params)
  found = safetensors_numpy.load_file(tmp_path / "one" / folders.SINGLE)
  _same(found, tensors)
  data = json.loads((tmp_path / "one" / "config.json").read_text())
  assert data["model_type"] == kind
  same = {k: v for k, v in data.items() if k in fields}
  assert same == {k: fields[k] for k in same}


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
  tensors = gpt2_tensors(GPT2)
  folder = make(GPT2, tensors)
  assert cli.main(["info", str(folder), "--json", "-"]) == 0
  found = json.loads(capsys.readouterr().out)
  count = sum(t.size for t in tensors.values())
  assert found["parameters"]["total"] == count
  assert found["config"]["mlp"] == "gelu_tanh"
  assert "summary_type" in found["notes"][0]
  assert cli.main(["run", str(folder), "--prompt", "a"]) == 2
  assert "tokenizer" in capsys.readouterr().err
  bad = make(GPT2 | {"activation_function": "mish"}, tensors, "bad")
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
  fields = GPT2 | {"vocab_size": 262, "bos_token_id": 0, "eos_token_id": 0}
  tensors = gpt2_tensors(fields)
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
  tensors = gpt2_tensors(GPT2)
  folder, path = make(GPT2, tensors), tmp_path / "recorded.npz"
  logits = hf_numpy.gpt2(GPT2, tensors, IDS)
  arrays = {"input_ids": IDS, "logits": logits, "f64/logits": logits}
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
  folder = make(GPT2 | fields, {})
  with pytest.raises(ConfigError) as caught:
    load(folder)
  for word in (str(folder / "config.json"), *words):
    assert word in str(caught.value)


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    ({"hidden_act": "gelu"}, ["'hidden_act'", "'silu'", "SwiGLU"]),
    ({"mlp_bias": True}, ["'mlp_bias' is True", "'attention_bias' is False"]),
    ({"rope_scaling": {"factor": 8.0}}, ["'rope_scaling'", "None"]),
    (
      {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}},
      ["rope_type", "'llama3'", "'default'"],
    ),
    ({"rope_parameters": {"factor": 2}}, ["'rope_parameters'", "factor"]),
    ({"rope_interleaved": True}, ["'rope_interleaved' is True", "halves"]),
    ({"rope_theta": 1}, ["'rope_theta'", "above 1"]),
    ({"num_key_value_heads": 3}, ["'num_key_value_heads' (3)", "divisible"]),
    ({"num_attention_heads": 3}, ["'num_attention_heads' (3)", "head_dim"]),
    ({"sliding_window": 4096}, ["unknown field 'sliding_window'"]),
  ],
)
def test_bad_llama_config(make, fields, words):
  folder = make(LLAMA | fields, {})
  with pytest.raises(ConfigError) as caught:
    load(folder)
  for word in (str(folder / "config.json"), *words):
    assert word in str(caught.value)


def test_a_small_vocabulary_without_a_begin_token(make):
  fields = GPT2 | {"bos_token_id": "absent", "eos_token_id": "absent"}
  config = load(make(fields, gpt2_tensors(GPT2))).config
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
  folder = make(GPT2, gpt2_tensors(GPT2) | changes)
  with pytest.raises(CheckpointError) as caught:
    load(folder)
  for word in (str(folder), *words):
    assert word in str(caught.value)


def test_an_untied_model_needs_its_head(make):
  with pytest.raises(CheckpointError, match=r"lm_head.weight \[31, 8\]"):
    load(make(GPT2 | {"tie_word_embeddings": False}, gpt2_tensors(GPT2)))


def test_a_cut_file(make, tmp_path):
  folder = make(GPT2, gpt2_tensors(GPT2))
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


def test_what_has_no_such_form_is_not_written(tmp_path):
  for config, words in (
    (gpt.Config(ternary=True), "no gpt2: mlp = 'swiglu'.*no llama: ternary"),
    (gpt.Config(rotary_pairs="neighbours"), "no llama: rotary_pairs"),
    (gpt.Config(norm="layer", mlp="gelu"), "no gpt2: norm|no gpt2: position"),
  ):
    with pytest.raises(ConfigError, match=words):
      huggingface.write(tmp_path / "x", config, {})
  assert not list(tmp_path.iterdir())
  assert huggingface.LAYOUTS["hgrn_bit"].misfit(matmulfree.Config()) is None


# --- beside the library that defines them


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_transformers_computes_the_same(tmp_path, kind):
  torch = pytest.importorskip("torch", reason="needs torch and transformers")
  library = pytest.importorskip("transformers", reason="needs transformers")
  torch.manual_seed(0)
  names = {"gpt2": ("GPT2", GPT2), "llama": ("Llama", LLAMA)}[kind]
  fields = {k: v for k, v in names[1].items() if k != "model_type"}
  if kind == "llama":
    fields.pop("rope_theta")
    fields.pop("rope_scaling")
    fields["rope_parameters"] = {"rope_type": "default", "rope_theta": 100.0}
  made = getattr(library, f"{names[0]}Config")(**fields)
  theirs = library.AutoModelForCausalLM.from_config(made)
  with torch.no_grad():
    for p in theirs.parameters():
      p.add_(0.3 * torch.randn_like(p))
  theirs.save_pretrained(tmp_path / "theirs")
  model = load(tmp_path / "theirs")
  ids = torch.tensor(IDS.astype(np.int64))[None]
  compute = lambda net: net.double().eval()(ids).logits[0].detach().numpy()
  # Its norms and rotary positions are float32 whatever the model is.
  gap = {"gpt2": 1e-9, "llama": 3e-6}[kind]
  np.testing.assert_allclose(
    logits_of(model), compute(theirs), rtol=0, atol=gap
  )
  huggingface.write(tmp_path / "ours", model.config, model.params)
  again = type(theirs).from_pretrained(tmp_path / "ours")
  np.testing.assert_allclose(
    compute(again), compute(theirs), rtol=0, atol=1e-12
  )


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
    safetensors_numpy.save_file(tensors, tmp_path / file)
    table |= dict.fromkeys(tensors, file)
  (tmp_path / folders.INDEX).write_text(json.dumps({"weight_map": table}))
  fields = {"model_type": "gpt2", "n_embd": config.hidden_size}
  fields |= {"n_layer": config.num_layers, "n_head": config.num_heads}
  (tmp_path / "config.json").write_text(json.dumps(fields))
  model = load(tmp_path)
  assert model.config == config
  count = sum(x.size for x in jax.tree.leaves(model.params))
  assert count == config.num_params
  out, _ = jax.jit(reference(model.fn))(model.params, {"ids": IDS[:2]})
  assert np.isfinite(out.logits).all()
