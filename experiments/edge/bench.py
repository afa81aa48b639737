"""What all stages share: commands, a judge, the folder of the run."""

import dataclasses
from collections.abc import Callable
from typing import Any

import teaching
from integers import Integers

from edge import chip, stages, states
from edge.commands import Corpus
from edge.measure import Judge
from jaxnmc.io.tokenizer import BPETokenizer


def _option(default: Any, help: str) -> Any:
  return dataclasses.field(default=default, metadata={"help": help})


@dataclasses.dataclass(frozen=True)
class Options:
  """What a run is asked for; every field is a flag of the script."""

  vocab: int = _option(8192, "Tokens, bytes and labels included.")
  hidden: int = _option(256, "Width.")
  layers: int = _option(4, "Blocks.")
  heads: int = _option(8, "Heads of each.")
  steps: int = _option(2200, "Of training.")
  lr: float = _option(2e-3, "Peak learning rate of training.")
  recover: int = _option(300, "Steps after pruning.")
  tune: int = _option(1200, "Steps after the conversion to spikes.")
  prune_heads: float = _option(0.4, "Share of all heads that goes.")
  prune_units: float = _option(0.3, "Share of feed-forward units that goes.")
  ticks: int = _option(4, "Of spiking attention.")
  levels: int = _option(8, "Ticks of feed-forward blocks.")
  budget: int = _option(2_000_000, "Most spikes of a command.")
  calibration: int = _option(64, "Windows of training text for ranges.")
  asked: int = _option(4, "Commands that the simulated cores read.")
  examples: int = _option(320, "New commands learned on the chip.")
  rehearse: int = _option(16, "Old commands beside each of them.")
  most_tested: int = _option(10_000, "Commands of the test that are asked.")
  passes: int = _option(1, "Over all thresholds, one by one.")
  try_ticks: str = _option("2,4,6,8", "Ticks to compare.")
  try_steps: int = _option(150, "Steps of training for each of them.")
  try_ids: str = _option("1,2,4,8,12,16", "Lengths of a command to compare.")
  mlp_top: str = _option("p99.9", "Largest activation that blocks count to.")


@dataclasses.dataclass(frozen=True, eq=False)
class Bench:
  """A run and what it is about.

  Attributes:
    options: what is asked for.
    corpus: commands.
    tokenizer: of all models.
    judge: of all models.
    run: the folder.
    made: what stages share, by what it is and whose; not kept on disk.
  """

  options: Options
  corpus: Corpus
  tokenizer: BPETokenizer
  judge: Judge
  run: stages.Run
  made: dict[tuple[str, str], Any] = dataclasses.field(
    default_factory=dict, init=False
  )

  def _once(self, what: str, source: str, work: Callable[[], Any]) -> Any:
    if (what, source) not in self.made:
      self.made[what, source] = work()
    return self.made[what, source]

  def integers(self, source: str) -> Integers:
    """The model of a stage in W8A16."""
    make = lambda: self.judge.integers(*self.run.model(source), "W8A16")
    return self._once("integers", source, make)

  def placed(self, source: str) -> tuple[Any, Any]:
    """(recorded graph, its placement on as few chips as do) of the same."""
    return self._once(
      "placed", source, lambda: chip.place(self.integers(source))
    )

  def tested(self, source: str) -> states.Examples:
    """What the head of the same reads behind the test commands."""
    read = lambda: states.reader(self.integers(source))(self.judge.test)
    return self._once("tested", source, read)

  def teach(
    self,
    place,
    config,
    params,
    steps: int,
    lr: float,
    teacher: tuple[Any, Any] | None = None,
  ) -> Any:
    """Parameters after some steps on the commands."""
    seq = min(32, config.context)
    how = teaching.Teaching(
      steps=steps,
      lr=lr,
      seq=seq,
      weight_decay=0.05,
      alpha=0.5,
      cosine=1.0,
    )
    documents = self.corpus.documents()
    return teaching.teach(
      how, config, params, self.tokenizer, documents, place / "run", teacher
    )
