"""What all stages share: commands, a judge, the folder of the run."""

import dataclasses
from typing import Any

from edge import stages, teach
from edge.commands import Corpus
from edge.measure import Judge
from jaxnmc.io.tokenizer import BPETokenizer


@dataclasses.dataclass(frozen=True, eq=False)
class Options:
  """What a run is asked for; every field is a flag of the script.

  Attributes:
    vocab: tokens, bytes and labels included.
    hidden: width.
    layers: blocks.
    heads: of each.
    steps: of training.
    recover: steps after pruning.
    tune: steps after the conversion to spikes.
    prune_heads: share of all heads that goes.
    prune_units: share of each layer's feed-forward units that goes.
    ticks: of spiking attention.
    levels: ticks of the feed-forward blocks.
    budget: most spikes of one command.
    asked: commands that the simulated cores read.
    examples: new commands that are learned on the cores.
    quick: measure on fewer commands.
  """

  vocab: int = 8192
  hidden: int = 256
  layers: int = 4
  heads: int = 8
  steps: int = 2200
  recover: int = 300
  tune: int = 600
  prune_heads: float = 0.4
  prune_units: float = 0.3
  ticks: int = 4
  levels: int = 8
  budget: int = 2_000_000
  asked: int = 4
  examples: int = 320
  quick: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Bench:
  """A run and what it is about.

  Attributes:
    options: what is asked for.
    corpus: commands.
    tokenizer: of all models.
    judge: of all models.
    run: the folder.
  """

  options: Options
  corpus: Corpus
  tokenizer: BPETokenizer
  judge: Judge
  run: stages.Run

  def teach(
    self,
    place,
    config,
    params,
    steps: int,
    lr: float,
    teacher: tuple[Any, Any] | None = None,
    only: str | None = None,
  ) -> Any:
    """Parameters after some steps on the commands."""
    seq = min(32, config.context)
    how = teach.Teaching(
      steps=steps,
      lr=lr,
      seq=seq,
      alpha=0.5 if teacher else 0.0,
      cosine=1.0 if teacher else 0.0,
      only=only,
    )
    documents = self.corpus.documents()
    return teach.teach(
      how, config, params, self.tokenizer, documents, place / "run", teacher
    )
