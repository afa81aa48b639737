"""Small Hugging Face folders of GPT-2 and Llama, of random weights."""

import json
import pathlib

import jax
import numpy as np
import pytest

from jaxnmc.io import safetensors_files as folders
from jaxnmc.ops.transform import reference

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


def write(root, fields, tensors, name="model"):
  """A folder of fields and tensors; "absent" and None remove."""
  folder = pathlib.Path(root) / name
  folder.mkdir()
  fields = {k: v for k, v in fields.items() if v != "absent"}
  (folder / "config.json").write_text(json.dumps(fields))
  kept = {k: v for k, v in tensors.items() if v is not None}
  safetensors_numpy.save_file(kept, folder / folders.SINGLE)
  return folder


def logits_of(model, ids=IDS):
  """float64[T, V], computed in float64."""
  with jax.enable_x64(True):
    params = jax.tree.map(np.float64, model.params)
    out, _ = jax.jit(reference(model.fn))(params, {"ids": ids})
    assert out.logits.dtype == np.float64
    return np.asarray(out.logits)


def same(a, b):
  """Two trees of equal arrays."""
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)
