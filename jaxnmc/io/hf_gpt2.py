"""Hugging Face folders of GPT-2 (`GPT2LMHeadModel`, `GPT2Model`).

Matrices are those of `Conv1D`, [in, out]; queries, keys and values are one
(`c_attn`).  The causal masks that old files hold (`attn.bias`,
`attn.masked_bias`) are no parameters.
"""

from collections.abc import Mapping
from typing import Any

from jaxnmc.errors import ConfigError
from jaxnmc.io import hf_fields
from jaxnmc.io.hf_fields import TOKEN_IDS, Fields, Parsed, check_choice
from jaxnmc.io.hf_layout import Layout, Tensor
from jaxnmc.models import gpt

MODEL_TYPE = "gpt2"

_FIELDS = Fields(
  taken={
    "vocab_size": ("vocab_size", (int,)),
    "n_positions": ("max_position_embeddings", (int,)),
    "n_embd": ("hidden_size", (int,)),
    "n_layer": ("num_layers", (int,)),
    "n_head": ("num_heads", (int,)),
    "n_inner": ("intermediate_size", (int, type(None))),
    "layer_norm_epsilon": ("norm_eps", (int, float)),
    "initializer_range": ("initializer_range", (int, float)),
    "tie_word_embeddings": ("tie_word_embeddings", (bool,)),
    **TOKEN_IDS,
  },
  fixed={
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
  },
  why={
    "scale_attn_weights": "scores are divided by the root of the head's width",
    "scale_attn_by_inverse_layer_idx": "scores have no other factor",
  },
  read={"activation_function": (str,), "n_ctx": (int,)},
  # Dropout is for training; the rest is about heads for other tasks, or
  # about the order of operations that are the same in real numbers.
  metadata=frozenset(
    """
    attn_pdrop embd_pdrop n_special predict_special_tokens
    reorder_and_upcast_attn resid_pdrop summary_activation
    summary_first_dropout summary_proj_to_labels summary_type summary_use_proj
    """.split()
  ),
)
# Theirs -> ours; the first of each of ours is the one that is written.
_ACTIVATIONS = {
  "gelu_new": "gelu_tanh",
  "gelu_pytorch_tanh": "gelu_tanh",
  "gelu": "gelu",
  "relu": "relu",
}
_OPTIONS: dict[str, Any] = {
  "norm": "layer",
  "positions": "learned",
  "bias": True,
}
_END = 50256  # begin and end of text where a file names none


def parse(data: Mapping[str, Any], name: str = "config.json") -> Parsed:
  """Reads the fields of a `config.json`; those that are absent are GPT-2's.

  Args:
    data: the JSON object.
    name: file name for messages.

  Returns:
    Our config, and what else the file says.

  Raises:
    ConfigError: a field has a wrong type, an impossible value, a value that
      we do not compute (the activation among them), or is unknown.
  """
  ours, skipped = _FIELDS.parse(data, name)
  act = data.get("activation_function", "gelu_new")
  why = "no other is computed; convert the model to one of them"
  check_choice(name, "activation_function", act, tuple(_ACTIVATIONS), why)
  default = gpt.GPT2
  vocab = ours.setdefault("vocab_size", default.vocab_size)
  for field in ("bos_token_id", "eos_token_id"):
    ours.setdefault(field, _END if _END < vocab else None)
  ours = _OPTIONS | {"mlp": _ACTIVATIONS[act]} | ours
  width = ours.get("hidden_size", default.hidden_size)
  heads = ours.get("num_heads", default.num_heads)
  if heads > 0 and width % heads:
    raise ConfigError(
      f"{name}: field 'n_embd' is {width}, which 'n_head' ({heads}) does not"
      " divide; allowed are multiples of it (the heads share the width)"
    )
  config = _FIELDS.config(gpt.Config, ours, name)
  if data.get("n_ctx", config.context) != config.context:
    raise ConfigError(
      f"{name}: field 'n_ctx' is {data['n_ctx']}, allowed is {config.context},"
      " as 'n_positions': both say how many tokens there may be"
    )
  return Parsed(config, config.tie_word_embeddings, skipped)


def render(config: gpt.Config, dtype: str = "float32") -> dict[str, Any]:
  """The fields of a `config.json` that `parse` and Hugging Face read.

  Args:
    config: ours, without `misfit`.
    dtype: dtype of the weights beside it.

  Returns:
    A JSON object.
  """
  acts = {ours: theirs for theirs, ours in reversed(_ACTIVATIONS.items())}
  return {
    "activation_function": acts[config.mlp],
    "architectures": ["GPT2LMHeadModel"],
    "model_type": MODEL_TYPE,
    "torch_dtype": dtype,
    **_FIELDS.render(config),
  }


def misfit(config: Any) -> str | None:
  """Why a config is no GPT-2, or None."""
  wanted = {"mlp": tuple(_ACTIVATIONS.values()), "head_bias": (False,)}
  wanted |= {field: (value,) for field, value in _OPTIONS.items()}
  wanted |= {"ternary": (False,), **hf_fields.DENSE}
  if isinstance(config, gpt.Config):
    width = config.hidden_size // config.num_heads
    wanted |= {"num_kv_heads": (None, config.num_heads)}
    wanted |= {"head_dim": (None, width)}
  return hf_fields.misfit(config, gpt.Config, wanted)


def tensors(config: gpt.Config, tied: bool) -> tuple[Tensor, ...]:
  """Every tensor, in the order of the network."""
  d, i, v = config.hidden_size, config.mlp_size, config.vocab_size
  rows = [
    Tensor("transformer.wte.weight", (v, d), ("embed.weight",)),
    Tensor(
      "transformer.wpe.weight", (config.context, d), ("positions.weight",)
    ),
  ]

  def norm(ours: str, theirs: str) -> None:
    rows.append(Tensor(f"{theirs}.weight", (d,), (f"{ours}.gain",)))
    rows.append(Tensor(f"{theirs}.bias", (d,), (f"{ours}.bias",)))

  def matrix(theirs: str, out: int, inp: int, *ours: str) -> None:
    weights = tuple(f"{name}.weight" for name in ours)
    biases = tuple(f"{name}.bias" for name in ours)
    rows.append(Tensor(f"{theirs}.weight", (inp, out), weights, True))
    rows.append(Tensor(f"{theirs}.bias", (out,), biases))

  for layer in range(config.num_layers):
    ours, theirs = f"layers.{layer}.", f"transformer.h.{layer}."
    qkv = (f"{ours}attn.{name}" for name in "qkv")
    norm(ours + "attn_norm", theirs + "ln_1")
    matrix(theirs + "attn.c_attn", 3 * d, d, *qkv)
    matrix(theirs + "attn.c_proj", d, d, ours + "attn.o")
    norm(ours + "mlp_norm", theirs + "ln_2")
    matrix(theirs + "mlp.c_fc", i, d, ours + "mlp.up")
    matrix(theirs + "mlp.c_proj", d, i, ours + "mlp.down")
  norm("norm", "transformer.ln_f")
  if not tied:
    rows.append(Tensor("lm_head.weight", (v, d), ("head.weight",)))
  return tuple(rows)


LAYOUT = Layout(
  model_type=MODEL_TYPE,
  parse=parse,
  render=render,
  tensors=tensors,
  misfit=misfit,
  prefix="transformer.",
  embed="transformer.wte.weight",
  buffers=r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias",
)
