"""`config.json` of a Hugging Face MatMul-free LM <-> `Config`.

Every field is in one of three tables, or it is `tie_word_embeddings`.  Any
other field might change the computation, so it is refused.
"""

import dataclasses
import math
from typing import Any

from jaxnmc.errors import ConfigError
from jaxnmc.models.matmulfree_config import Config

MODEL_TYPE = "hgrn_bit"

# Theirs -> (ours, allowed types).  bool is no int here.
_TAKEN: dict[str, tuple[str, tuple[type, ...]]] = {
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
  "bos_token_id": ("bos_token_id", (int, type(None))),
  "eos_token_id": ("eos_token_id", (int, type(None))),
  "pad_token_id": ("pad_token_id", (int, type(None))),
  # Ours; the reference has constants in their place.
  "bitlinear_eps": ("bitlinear_eps", (int, float)),
  "jaxnmc_norm": ("norm", (str,)),
}

# Fields that change the computation, and the values that we compute.
_FIXED: dict[str, tuple[Any, ...]] = {
  "model_type": (MODEL_TYPE,),
  "attn_mode": ("fused_recurrent",),
  "use_short_conv": (False,),
  "hidden_act": ("swish", "silu"),
  "is_encoder_decoder": (False,),
  "add_cross_attention": (False,),
  "pruned_heads": ({}, None),
  "use_bfloat16": (False,),
  "quantization_config": (None,),
}
_WHY = {
  "model_type": "this reader knows the MatMul-free LM only",
  "attn_mode": "the reference has one mode",
  "use_short_conv": "the reference raises TypeError in any forward with it",
  "hidden_act": "the channel mixer is SwiGLU",
}

# Bookkeeping, and defaults of text generation: no part in the function.
_METADATA = frozenset(
  """
  _attn_implementation _attn_implementation_autoset _auto_class _commit_hash
  _name_or_path architectures attn_implementation auto_map bad_words_ids
  begin_suppress_tokens chunk_size_feed_forward conv_size
  cross_attention_hidden_size decoder_start_token_id diversity_penalty
  do_sample dtype early_stopping encoder_no_repeat_ngram_size
  exponential_decay_length_penalty finetuning_task forced_bos_token_id
  forced_eos_token_id fuse_cross_entropy id2label is_decoder label2id
  length_penalty max_length max_position_embeddings min_length
  no_repeat_ngram_size num_beam_groups num_beams num_return_sequences
  output_attentions output_hidden_states output_scores prefix problem_type
  remove_invalid_values repetition_penalty return_dict
  return_dict_in_generate sep_token_id share_conv_kernel suppress_tokens
  task_specific_params temperature tf_legacy_loss tie_encoder_decoder
  tokenizer_class top_k top_p torch_dtype torchscript transformers_version
  typical_p use_cache
  """.split()
)


@dataclasses.dataclass(frozen=True)
class Parsed:
  """What a `config.json` says.

  Attributes:
    config: ours.
    tied: the head is the embedding, ternarised.
    skipped: metadata fields that play no part, sorted.
  """

  config: Config
  tied: bool
  skipped: tuple[str, ...]


def parse(data: dict[str, Any], name: str = "config.json") -> Parsed:
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
  if "model_type" not in data:
    raise ConfigError(
      f"{name}: field 'model_type' is missing, allowed is {MODEL_TYPE!r}; is"
      " this the configuration of a MatMul-free LM?"
    )
  ours: dict[str, Any] = {}
  skipped, unknown = [], []
  # model_type first: of another model, every other field would be wrong too.
  for field in sorted(data, key=lambda f: (f != "model_type", f)):
    value = data[field]
    if field in _FIXED:
      _check_fixed(name, field, value)
    elif field in _TAKEN:
      target, types = _TAKEN[field]
      ours[target] = _typed(name, field, value, types)
    elif field == "tie_word_embeddings":
      _typed(name, field, value, (bool,))
    elif field in _METADATA:
      skipped.append(field)
    else:
      unknown.append(field)
  if unknown:
    raise ConfigError(
      f"{name}: unknown field{'s' if len(unknown) > 1 else ''}"
      f" {', '.join(repr(f) for f in unknown)}, which may change the"
      " computation; if they are metadata, remove them from the file"
    )
  if ours.get("hidden_ratio", 4) is None:
    ours["hidden_ratio"] = 4
  try:
    config = Config(**ours)
  except ConfigError as error:
    raise ConfigError(f"{name}: {error}") from error
  if config.state_size % config.num_heads:
    raise ConfigError(
      f"{name}: 'expand_ratio' gives a recurrent width of {config.state_size},"
      f" which 'num_heads' ({config.num_heads}) does not divide"
    )
  _check_ids(name, config)
  tied = bool(data.get("tie_word_embeddings", False))
  return Parsed(config, tied, tuple(skipped))


def _check_fixed(name: str, field: str, value: Any) -> None:
  for allowed in _FIXED[field]:
    if type(value) is type(allowed) and value == allowed:
      return
  choices = " or ".join(repr(v) for v in _FIXED[field])
  why = _WHY.get(field, "anything else is another computation")
  raise ConfigError(
    f"{name}: field {field!r} is {value!r}, allowed is {choices} ({why})"
  )


def _typed(name: str, field: str, value: Any, types: tuple[type, ...]) -> Any:
  good = type(value) in types
  if good and isinstance(value, float):
    good = math.isfinite(value)
  if not good:
    kinds = " or ".join(
      "null" if t is type(None) else t.__name__ for t in types
    )
    raise ConfigError(
      f"{name}: field {field!r} is {value!r}, allowed is {kinds}"
    )
  return value


def _check_ids(name: str, config: Config) -> None:
  for field in ("bos_token_id", "eos_token_id", "pad_token_id"):
    value = getattr(config, field)
    if value is not None and not 0 <= value < config.vocab_size:
      raise ConfigError(
        f"{name}: field {field!r} is {value}, allowed are null and 0 ..."
        f" {config.vocab_size - 1} (vocab_size)"
      )


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
  default = Config()
  for theirs, (field, _) in _TAKEN.items():
    value = getattr(config, field)
    # Extensions of ours are written only where the reference would differ.
    if theirs in ("bitlinear_eps", "jaxnmc_norm"):
      if value == getattr(default, field):
        continue
    data[theirs] = value
  return data
