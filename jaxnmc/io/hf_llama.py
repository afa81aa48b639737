"""Hugging Face folders of Llama (`LlamaForCausalLM`): RMSNorm, SwiGLU, rotary.

Matrices are [out, in]; rotary pairs are the halves of a head.
"""

from collections.abc import Mapping
from typing import Any

from jaxnmc.errors import ConfigError
from jaxnmc.io import hf_fields
from jaxnmc.io.hf_fields import TOKEN_IDS, Fields, Parsed, check_choice, typed
from jaxnmc.io.hf_layout import Layout, Tensor
from jaxnmc.models import gpt

MODEL_TYPE = "llama"

_FIELDS = Fields(
  taken={
    "vocab_size": ("vocab_size", (int,)),
    "hidden_size": ("hidden_size", (int,)),
    "intermediate_size": ("intermediate_size", (int,)),
    "num_hidden_layers": ("num_layers", (int,)),
    "num_attention_heads": ("num_heads", (int,)),
    "num_key_value_heads": ("num_kv_heads", (int, type(None))),
    "head_dim": ("head_dim", (int, type(None))),
    "max_position_embeddings": ("max_position_embeddings", (int,)),
    "rms_norm_eps": ("norm_eps", (int, float)),
    "initializer_range": ("initializer_range", (int, float)),
    "tie_word_embeddings": ("tie_word_embeddings", (bool,)),
    **TOKEN_IDS,
  },
  fixed={
    "hidden_act": ("silu", "swish"),
    "pretraining_tp": (1,),
    "rope_interleaved": (False,),
    "rope_scaling": (None,),
  },
  why={
    "hidden_act": "the channel mixer is SwiGLU",
    "pretraining_tp": "products are not cut",
    "rope_interleaved": "rotary pairs are the halves of a head",
    "rope_scaling": "rotary frequencies are not scaled",
  },
  read={
    "attention_bias": (bool,),
    "mlp_bias": (bool,),
    "rope_theta": (int, float),
    "rope_parameters": (dict, type(None)),
  },
  metadata=frozenset(
    {"attention_dropout", "is_llama_config", "transformers.js_config"}
  ),
)
# What Hugging Face takes where a file is silent.
_DEFAULTS = {
  "vocab_size": 32000,
  "hidden_size": 4096,
  "intermediate_size": 11008,
  "num_layers": 32,
  "num_heads": 32,
  "max_position_embeddings": 2048,
  "norm_eps": 1e-6,
  "tie_word_embeddings": False,
}
_BASE = 10000.0


def parse(data: Mapping[str, Any], name: str = "config.json") -> Parsed:
  """Reads the fields of a `config.json`.

  Args:
    data: the JSON object.
    name: file name for messages.

  Returns:
    Our config, and what else the file says.

  Raises:
    ConfigError: a field has a wrong type, an impossible value, a value that
      we do not compute, or is unknown.
  """
  ours, skipped = _FIELDS.parse(data, name)
  bias = data.get("attention_bias", False)
  if data.get("mlp_bias", False) != bias:
    raise ConfigError(
      f"{name}: field 'mlp_bias' is {not bias}, 'attention_bias' is {bias};"
      " allowed is the same value for both: all projections have biases or"
      " none"
    )
  ours |= {"bias": bias, "rope_theta": _theta(data, name)}
  config = _FIELDS.config(gpt.Config, _DEFAULTS | ours, name)
  return Parsed(config, config.tie_word_embeddings, skipped)


def _theta(data: Mapping[str, Any], name: str) -> float:
  """The base of the rotary frequencies; newer files have it in an object."""
  rope = dict(data.get("rope_parameters") or {})
  kind = rope.pop("rope_type", "default")
  field = "rope_parameters.rope_type"
  why = "rotary frequencies are not scaled"
  check_choice(name, field, kind, ("default",), why)
  base = rope.pop("rope_theta", data.get("rope_theta", _BASE))
  if rope:
    raise ConfigError(
      f"{name}: field 'rope_parameters' holds {', '.join(sorted(rope))},"
      " allowed are rope_theta and rope_type; anything else is another"
      " computation"
    )
  return typed(name, "rope_theta", base, (int, float))


def render(config: gpt.Config, dtype: str = "float32") -> dict[str, Any]:
  """The fields of a `config.json` that `parse` and Hugging Face read.

  Args:
    config: ours, without `misfit`.
    dtype: dtype of the weights beside it.

  Returns:
    A JSON object.
  """
  return {
    **_FIELDS.render(config),
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": config.bias,
    "hidden_act": "silu",
    "intermediate_size": config.mlp_size,
    "mlp_bias": config.bias,
    "model_type": MODEL_TYPE,
    "rope_theta": config.rope_theta,
    "torch_dtype": dtype,
  }


def misfit(config: Any) -> str | None:
  """Why a config is no Llama, or None."""
  wanted = {
    "norm": ("rms",),
    "mlp": ("swiglu",),
    "positions": ("rotary",),
    "rotary_pairs": ("halves",),
    "head_bias": (False,),
    "ternary": (False,),
    **hf_fields.DENSE,
  }
  return hf_fields.misfit(config, gpt.Config, wanted)


_LAYER = {
  "attn_norm": "input_layernorm",
  **{f"attn.{name}": f"self_attn.{name}_proj" for name in "qkvo"},
  "mlp_norm": "post_attention_layernorm",
  **{f"mlp.{name}": f"mlp.{name}_proj" for name in ("gate", "up", "down")},
}


def tensors(config: gpt.Config, tied: bool) -> tuple[Tensor, ...]:
  """Every tensor, in the order of the network."""

  def key(path: str) -> str:
    *parents, leaf = path.split(".")
    if parents[0] == "head":
      return "lm_head.weight"
    if parents[0] == "layers":
      part = _LAYER[".".join(parents[2:])]
      start = f"model.layers.{parents[1]}.{part}"
    else:
      start = {"embed": "model.embed_tokens", "norm": "model.norm"}[parents[0]]
    return f"{start}.bias" if leaf == "bias" else f"{start}.weight"

  del tied  # as the config says
  rows = gpt.parameters(config)
  return tuple(Tensor(key(row.path), row.shape, (row.path,)) for row in rows)


LAYOUT = Layout(
  model_type=MODEL_TYPE,
  parse=parse,
  render=render,
  tensors=tensors,
  misfit=misfit,
  prefix="model.",
  embed="model.embed_tokens.weight",
  buffers=r"(model\.)?(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",
)
