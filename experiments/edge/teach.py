"""Training of a run: from nothing, after pruning, after conversion.

One recipe of the library's own loop, which goes on where it was stopped.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax

from jaxnmc.io.tokenizer import BPETokenizer
from jaxnmc.models import families, gpt
from jaxnmc.train import export, loop


def tiny_gpt(tokenizer: BPETokenizer, **sizes: Any) -> gpt.Config:
  """TinyGPT-7M: four layers of eight heads, 256 wide, an untied head.

  Learned positions, LayerNorm and ReLU are what integers, counts of spikes and
  the cores can do; 7.4 million parameters with 8,192 tokens.
  """
  fields: dict[str, Any] = {
    "hidden_size": 256,
    "num_layers": 4,
    "num_heads": 8,
    "max_position_embeddings": 64,
    "norm": "layer",
    "norm_eps": 1e-3,
    "mlp": "relu",
    "positions": "learned",
    "tie_word_embeddings": False,
  }
  return gpt.Config(
    **fields | sizes,
    vocab_size=tokenizer.vocab_size,
    bos_token_id=tokenizer.bos_id,
    eos_token_id=tokenizer.eos_id,
    pad_token_id=tokenizer.pad_id,
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Teaching:
  """How long and how fast.

  Attributes:
    steps: of the optimiser.
    lr: peak learning rate.
    batch: windows per step.
    seq: ids per window.
    alpha: weight of a teacher's logits.
    cosine: weight of its hidden states.
    only: expression for the paths that are trained; None: all.
  """

  steps: int
  lr: float
  batch: int = 32
  seq: int = 32
  alpha: float = 0.0
  cosine: float = 0.0
  only: str | None = None


def teach(
  how: Teaching,
  config: gpt.Config,
  params: Any,
  tokenizer: BPETokenizer,
  documents: Sequence[str],
  folder: pathlib.Path,
  teacher: tuple[gpt.Config, Any] | None = None,
) -> Any:
  """Parameters after the steps; the folder keeps what a stop must not lose.

  Args:
    how: steps and rates.
    config: of the model.
    params: to start from; None: random ones.
    tokenizer: of the documents.
    documents: to learn; nothing is held out, the last step is taken.
    folder: made where it is not.
    teacher: (config, params) to learn from, too.
  """
  folder.mkdir(parents=True, exist_ok=True)

  def start():
    if params is not None:
      return params
    return gpt.init_params(config, jax.random.key(0))

  learned = teacher is not None
  loop.train(
    fn=gpt.make(config),
    init_params=start,
    model_config=families.to_json(config),
    tokenizer=tokenizer,
    documents=documents,
    held=[],
    recipe=loop.Recipe(
      steps=how.steps,
      batch=how.batch,
      seq=how.seq,
      lr=how.lr,
      schedule="cosine",
      warmup=max(1, how.steps // 20),
      weight_decay=0.05,
      alpha=how.alpha if learned else 0.0,
      cosine=how.cosine if learned else 0.0,
      only=how.only,
    ),
    rhythm=loop.Rhythm(
      checkpoint_every=max(1, min(200, how.steps // 4)),
      progress=sys.stderr.isatty(),
    ),
    workdir=str(folder),
    teacher=(gpt.make(teacher[0]), teacher[1]) if teacher else None,
  )
  return export.load(folder / "final.npz")[0]
