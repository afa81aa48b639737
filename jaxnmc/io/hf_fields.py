"""Fields of a Hugging Face `config.json`: each one is known, or refused.

A field is taken into our config, fixed (it would change the computation, and
we compute one value of it only), metadata, or read by the layout itself.  Any
other might change the computation.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jaxnmc.errors import ConfigError

MODEL_TYPE = "model_type"

# Ids of special tokens, in `Fields.taken` of every layout.
TOKEN_IDS: Mapping[str, tuple[str, tuple[type, ...]]] = {
  field: (field, (int, type(None)))
  for field in ("bos_token_id", "eos_token_id", "pad_token_id")
}

# Of our transformers: what no layout has but one value for.
DENSE: Mapping[str, tuple[Any, ...]] = {
  "attention": ("softmax",),
  "mlp_ticks": (None,),
  "heads_per_layer": (None,),
  "intermediate_per_layer": (None,),
}

# Computations that no layout of ours has.
FIXED: Mapping[str, tuple[Any, ...]] = {
  "is_encoder_decoder": (False,),
  "add_cross_attention": (False,),
  "pruned_heads": ({}, None),
  "use_bfloat16": (False,),
  "quantization_config": (None,),
}

# Bookkeeping, and defaults of text generation: no part in the function.
METADATA = frozenset(
  """
  _attn_implementation _attn_implementation_autoset _auto_class _commit_hash
  _name_or_path _num_labels architectures attn_implementation auto_map
  bad_words_ids
  begin_suppress_tokens chunk_size_feed_forward cross_attention_hidden_size
  decoder_start_token_id diversity_penalty do_sample dtype early_stopping
  encoder_no_repeat_ngram_size exponential_decay_length_penalty
  finetuning_task forced_bos_token_id forced_eos_token_id
  gradient_checkpointing id2label is_decoder label2id length_penalty
  max_length min_length no_repeat_ngram_size num_beam_groups num_beams
  num_return_sequences output_attentions output_hidden_states output_scores
  prefix problem_type remove_invalid_values repetition_penalty return_dict
  return_dict_in_generate sep_token_id suppress_tokens task_specific_params
  temperature tf_legacy_loss tie_encoder_decoder tokenizer_class top_k top_p
  torch_dtype torchscript transformers_version typical_p use_cache
  """.split()
)


@dataclasses.dataclass(frozen=True)
class Parsed:
  """What a `config.json` says.

  Attributes:
    config: ours.
    tied: the head is the embedding.
    skipped: metadata fields that play no part, sorted.
  """

  config: Any
  tied: bool
  skipped: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Fields:
  """What a layout knows of its `config.json`.

  Attributes:
    taken: theirs -> (ours, allowed types); bool is no int here.
    fixed: theirs -> the values that we compute, beside `FIXED`.
    why: theirs -> why there are no others.
    read: theirs -> allowed types, of fields that the layout interprets.
    metadata: names of more metadata.
  """

  taken: Mapping[str, tuple[str, tuple[type, ...]]]
  fixed: Mapping[str, tuple[Any, ...]]
  why: Mapping[str, str]
  read: Mapping[str, tuple[type, ...]]
  metadata: frozenset[str] = frozenset()

  def parse(
    self, data: Mapping[str, Any], name: str
  ) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Sorts and checks every field.

    Args:
      data: the JSON object.
      name: file name for messages.

    Returns:
      Fields of our config, and the metadata that was skipped.

    Raises:
      ConfigError: a field has a wrong type, a value that we do not compute,
        or is unknown.
    """
    ours: dict[str, Any] = {}
    skipped, unknown = [], []
    fixed = {**FIXED, **self.fixed}
    for field in sorted(data):
      value = data[field]
      if field == MODEL_TYPE:
        continue
      if field in fixed:
        why = self.why.get(field, "anything else is another computation")
        check_choice(name, field, value, fixed[field], why)
      elif field in self.taken:
        target, types = self.taken[field]
        ours[target] = typed(name, field, value, types)
      elif field in self.read:
        typed(name, field, value, self.read[field])
      elif field in METADATA | self.metadata:
        skipped.append(field)
      else:
        unknown.append(field)
    if unknown:
      raise ConfigError(
        f"{name}: unknown field{'s' if len(unknown) > 1 else ''}"
        f" {', '.join(repr(f) for f in unknown)}, which may change the"
        " computation; if they are metadata, remove them from the file"
      )
    return ours, tuple(skipped)

  def config(self, kind: type, ours: Mapping[str, Any], name: str) -> Any:
    """Our config of these fields.

    Args:
      kind: its class.
      ours: its fields.
      name: file name for messages.

    Raises:
      ConfigError: an impossible value; fields are called as in the file.
    """
    try:
      config = kind(**ours)
    except ConfigError as error:
      text = str(error)
      for theirs, (field, _) in self.taken.items():
        text = text.replace(f"'{field}'", f"'{theirs}'")
      raise ConfigError(f"{name}: {text}") from error
    for field in TOKEN_IDS:
      value = getattr(config, field)
      if value is not None and not 0 <= value < config.vocab_size:
        raise ConfigError(
          f"{name}: field {field!r} is {value}, allowed are null and 0 ..."
          f" {config.vocab_size - 1} (vocab_size)"
        )
    return config

  def render(self, config: Any) -> dict[str, Any]:
    """The taken fields of a config, under their names."""
    return {
      theirs: getattr(config, field)
      for theirs, (field, _) in self.taken.items()
    }


def check_choice(
  name: str, field: str, value: Any, allowed: tuple[Any, ...], why: str
) -> None:
  """Refuses a value that is none of `allowed`, type and all.

  Raises:
    ConfigError: it is none of them.
  """
  if any(type(value) is type(one) and value == one for one in allowed):
    return
  choices = " or ".join(repr(one) for one in allowed)
  raise ConfigError(
    f"{name}: field {field!r} is {value!r}, allowed is {choices} ({why})"
  )


def misfit(
  config: Any, kind: type, wanted: Mapping[str, tuple[Any, ...]]
) -> str | None:
  """Why a layout cannot hold a config, or None where it can.

  Args:
    config: of any family.
    kind: class of the configs that the layout holds.
    wanted: field -> the values that it has there.
  """
  if not isinstance(config, kind):
    return "another family"
  for field, allowed in wanted.items():
    if getattr(config, field) not in allowed:
      return f"{field} = {getattr(config, field)!r}"
  return None


def typed(name: str, field: str, value: Any, types: tuple[type, ...]) -> Any:
  """The value, if its type is one of `types` and it is finite.

  Raises:
    ConfigError: it is not.
  """
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
