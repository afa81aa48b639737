"""Some steps of training inside of a study, which go on where they stopped."""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax

from jaxnmc.io.tokenizer import Tokenizer
from jaxnmc.models import families, gpt
from jaxnmc.train import export, loop

_CHECKPOINTS = 7


@dataclasses.dataclass(frozen=True, kw_only=True)
class Teaching:
  """How long, how fast, and towards what.

  Attributes:
    steps: of the optimiser.
    lr: peak learning rate.
    batch: windows per step.
    seq: ids per window.
    weight_decay: on matrices.
    alpha: weight of a teacher's logits.
    cosine: weight of its hidden states.
    only: expression for the paths that are trained; None: all.
    seed: of the weights, if there are none to start from, and of the order of
      windows.
  """

  steps: int
  lr: float
  batch: int = 32
  seq: int = 32
  weight_decay: float = 0.01
  alpha: float = 0.0
  cosine: float = 0.0
  only: str | None = None
  seed: int = 0


def teach(
  how: Teaching,
  config: gpt.Config,
  params: Any,
  tokenizer: Tokenizer,
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
    teacher: (config, params) to learn from, too; alpha and cosine need one.
  """
  folder.mkdir(parents=True, exist_ok=True)

  def start():
    if params is not None:
      return params
    return gpt.init_params(config, jax.random.key(how.seed))

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
      weight_decay=how.weight_decay,
      alpha=how.alpha if learned else 0.0,
      cosine=how.cosine if learned else 0.0,
      only=how.only,
      seed=how.seed,
    ),
    rhythm=loop.Rhythm(
      checkpoint_every=max(1, min(200, how.steps // _CHECKPOINTS)),
      progress=sys.stderr.isatty(),
    ),
    workdir=str(folder),
    teacher=(gpt.make(teacher[0]), teacher[1]) if teacher else None,
  )
  return export.load(folder / "final.npz")[0]
