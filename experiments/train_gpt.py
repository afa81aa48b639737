"""Trains a decoder-only transformer on text files.

Claims: a small transformer, trained from scratch on a CPU by the loop that
trains the MatMul-free model, learns the same text; and a run that is killed at
any moment ends with the same parameters as one that was not.

  python experiments/train_gpt.py --smoke --workdir /tmp/run
  python experiments/train_gpt.py --train train.txt --valid valid.txt \
    --tokenizer bpe --vocab 4096 --hidden 192 --layers 6 --heads 6 \
    --context 256 --lr 1e-3 --steps 4000 --workdir runs/stories-gpt

Comes out (in --workdir): as of train_matmulfree.py.
"""

import training
from absl import flags

from jaxnmc.models import gpt, gpt_config

_CHOICES = gpt_config.CHOICES
_HIDDEN = flags.DEFINE_integer("hidden", 192, "Width D.")
_LAYERS = flags.DEFINE_integer("layers", 6, "Blocks L.")
_HEADS = flags.DEFINE_integer("heads", 6, "Query heads H.")
_KV_HEADS = flags.DEFINE_integer(
  "kv_heads", None, "Heads of keys and values; default: as many."
)
_INTERMEDIATE = flags.DEFINE_integer(
  "intermediate", None, "Channel mixer width I; default: by the config's rule."
)
_CONTEXT = flags.DEFINE_integer(
  "context", 256, "Most tokens of a sequence; at least --seq."
)
_NORM = flags.DEFINE_enum("norm", "rms", _CHOICES["norm"], "RMS or LayerNorm.")
_MLP = flags.DEFINE_enum("mlp", "swiglu", _CHOICES["mlp"], "Channel mixer.")
_POSITIONS = flags.DEFINE_enum(
  "positions", "rotary", _CHOICES["positions"], "How places are told apart."
)
_BIAS = flags.DEFINE_bool("bias", False, "Projections have biases.")
_TIE = flags.DEFINE_bool("tie", True, "The head is the embedding table.")
_TERNARY = flags.DEFINE_bool(
  "ternary", False, "BitLinear projections, as in the MatMul-free model."
)
_NORM_EPS = flags.DEFINE_float("norm_eps", 1e-3, "eps of the norms.")

_SMOKE = {"hidden": 32, "layers": 2, "heads": 2, "context": 32}


def _config(**given) -> gpt.Config:
  return gpt.Config(
    hidden_size=_HIDDEN.value,
    num_layers=_LAYERS.value,
    num_heads=_HEADS.value,
    num_kv_heads=_KV_HEADS.value,
    intermediate_size=_INTERMEDIATE.value,
    max_position_embeddings=_CONTEXT.value,
    norm=_NORM.value,
    mlp=_MLP.value,
    positions=_POSITIONS.value,
    bias=_BIAS.value,
    tie_word_embeddings=_TIE.value,
    ternary=_TERNARY.value,
    norm_eps=_NORM_EPS.value,
    bitlinear_eps=_NORM_EPS.value,
    **given,
  )


if __name__ == "__main__":
  training.start(_config, _SMOKE)
