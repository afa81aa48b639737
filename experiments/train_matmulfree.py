"""Trains a MatMul-free language model with ternary weights on text files.

Claims: a small MatMul-free model with ternary weights and 8-bit activations,
trained from scratch on a CPU, writes simple stories; and a run that is killed
at any moment ends with the same parameters as one that was not.

  python experiments/train_matmulfree.py --smoke --workdir /tmp/run
  python experiments/train_matmulfree.py --train train.txt --valid valid.txt \
    --tokenizer bpe --vocab 4096 --hidden 192 --layers 6 --intermediate 512 \
    --steps 4000 --workdir runs/stories

Comes out (in --workdir): checkpoints/, best.npz, final.npz, tokenizer.npz,
log.jsonl, result.json. The same command continues a run that was stopped.
"""

import training
from absl import flags

from jaxnmc.models import matmulfree

_HIDDEN = flags.DEFINE_integer("hidden", 192, "Width D.")
_LAYERS = flags.DEFINE_integer("layers", 6, "Blocks L.")
_INTERMEDIATE = flags.DEFINE_integer("intermediate", 512, "GLU width I.")
_RMS_NORM_EPS = flags.DEFINE_float("rms_norm_eps", 1e-3, "eps of the norms.")
_BITLINEAR_EPS = flags.DEFINE_float(
  "bitlinear_eps", 1e-3, "eps of the norm in every BitLinear."
)

_SMOKE = {"hidden": 32, "layers": 2, "intermediate": 64}


def _config(**given) -> matmulfree.Config:
  return matmulfree.Config(
    hidden_size=_HIDDEN.value,
    num_layers=_LAYERS.value,
    intermediate_size=_INTERMEDIATE.value,
    rms_norm_eps=_RMS_NORM_EPS.value,
    bitlinear_eps=_BITLINEAR_EPS.value,
    **given,
  )


if __name__ == "__main__":
  training.start(_config, _SMOKE)
