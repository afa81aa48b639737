"""Hugging Face folders of the MatMul-free LM: `config.json` and tensors."""

from collections.abc import Mapping
from typing import Any

from jaxnmc.errors import ConfigError
from jaxnmc.io import hf_fields, name_map
from jaxnmc.io.hf_fields import TOKEN_IDS, Fields, Parsed
from jaxnmc.io.hf_layout import Layout, Tensor
from jaxnmc.models.matmulfree_config import Config

MODEL_TYPE = "hgrn_bit"

_FIELDS = Fields(
  taken={
    "vocab_size": ("vocab_size", (int,)),
    "hidden_size": ("hidden_size", (int,)),
    "num_hidden_layers": ("num_layers", (int,)),
    "num_heads": ("num_heads", (int,)),
    "expand_ratio": ("expand_ratio", (int, float)),
    "hidden_ratio": ("hidden_ratio", (int, float, type(None))),
    "intermediate_size": ("intermediate_size", (int, type(None))),
    "rms_norm_eps": ("rms_norm_eps", (int, float)),
    "use_lower_bound": ("use_lower_bound", (bool,)),
    "initializer_range": ("initializer_range", (int, float)),
    **TOKEN_IDS,
    # Ours; the reference has constants in their place.
    "bitlinear_eps": ("bitlinear_eps", (int, float)),
    "jaxnmc_norm": ("norm", (str,)),
  },
  fixed={
    "attn_mode": ("fused_recurrent",),
    "use_short_conv": (False,),
    "hidden_act": ("swish", "silu"),
  },
  why={
    "attn_mode": "the reference has one mode",
    "use_short_conv": "the reference raises TypeError in any forward with it",
    "hidden_act": "the channel mixer is SwiGLU",
  },
  read={"tie_word_embeddings": (bool,)},
  metadata=frozenset(
    "conv_size fuse_cross_entropy max_position_embeddings share_conv_kernel"
    " ".split()
  ),
)


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
  if ours.get("hidden_ratio", 4) is None:
    ours["hidden_ratio"] = 4
  config = _FIELDS.config(Config, ours, name)
  if config.state_size % config.num_heads:
    raise ConfigError(
      f"{name}: 'expand_ratio' gives a recurrent width of {config.state_size},"
      f" which 'num_heads' ({config.num_heads}) does not divide"
    )
  return Parsed(config, bool(data.get("tie_word_embeddings", False)), skipped)


def render(config: Config, dtype: str = "float32") -> dict[str, Any]:
  """The fields of a `config.json` that `parse` and the reference read.

  Args:
    config: ours.
    dtype: dtype of the weights beside it.

  Returns:
    A JSON object.
  """
  data: dict[str, Any] = {
    "architectures": ["HGRNBitForCausalLM"],
    "attn_mode": "fused_recurrent",
    "conv_size": 4,
    "fuse_cross_entropy": True,
    "hidden_act": "swish",
    "max_position_embeddings": 2048,
    "model_type": MODEL_TYPE,
    "share_conv_kernel": True,
    "tie_word_embeddings": False,
    "torch_dtype": dtype,
    "use_cache": True,
    "use_short_conv": False,
  }
  default = _FIELDS.render(Config())
  for theirs, value in _FIELDS.render(config).items():
    # Extensions of ours are written only where the reference would differ.
    ours = theirs in ("bitlinear_eps", "jaxnmc_norm")
    if not (ours and value == default[theirs]):
      data[theirs] = value
  return data


def _tensors(config: Config, tied: bool) -> tuple[Tensor, ...]:
  """A tied head is read from the embedding: ternarised, it is another."""

  def row(entry: name_map.Entry) -> Tensor:
    shared = tied and entry.key == name_map.HEAD_KEY
    key = name_map.EMBED_KEY if shared else entry.key
    return Tensor(key, entry.shape, (entry.path,))

  return tuple(row(entry) for entry in name_map.entries(config))


LAYOUT = Layout(
  model_type=MODEL_TYPE,
  parse=parse,
  render=render,
  tensors=_tensors,
  misfit=lambda config: hf_fields.misfit(config, Config, {}),
  prefix="model.",
  embed=name_map.EMBED_KEY,
  head=name_map.HEAD_KEY,
  strict=False,
)
