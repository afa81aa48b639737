"""What is evaluated: a model under one backend, with its tokenizer."""

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxnmc.evaluate.likelihood import Likelihood
from jaxnmc.io.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
  """A model under one backend.

  Attributes:
    run: `run(params, {"ids"}, state) -> (out, state[, counters])`.
    params: what `run` takes: float params or qparams.
    tokenizer: the model's.
    vocab_size: tokens of the model.
    bos: token in front of every text.
    jit: whether the caller should compile `run`.
    context: most positions the model takes, or None.
  """

  run: Callable
  params: Any
  tokenizer: Tokenizer
  vocab_size: int
  bos: int
  jit: bool = True
  context: int | None = None

  def likelihood(self, batch: int = 16, chunk: int = 32) -> Likelihood:
    """A scorer of continuations; keep it, it holds the compiled programs."""
    return Likelihood(
      self.run,
      self.params,
      bos=self.bos,
      vocab_size=self.vocab_size,
      jit=self.jit,
      batch=batch,
      chunk=chunk,
      context=self.context,
    )
