"""A model before and after its vocabulary was cut, on the same text.

Perplexity is per token and falls with smaller tokens, whatever the model
learned; bits per byte are of the same bytes before and after, so they are what
is compared (`evaluate.bits`).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jaxnmc
from jaxnmc.evaluate import Scorer, bits, encode
from jaxnmc.io import info
from jaxnmc.models.model import Model
from jaxnmc.report import backends, tables


class Task(NamedTuple):
  """A text in the ids of a model.

  Attributes:
    model: the model.
    rows: int32[n] per document.
    size: UTF-8 bytes they stand for.
  """

  model: Model
  rows: list
  size: int

  @property
  def ids(self) -> int:
    """Number of ids."""
    return sum(map(len, self.rows))


def task(model: Model, texts: Sequence[bytes]) -> Task:
  """A text in the ids of a model.

  Raises:
    DataError: it has no bytes.
    TokenError: no tokenizer, or one of another model.
  """
  found = encode(backends.need_tokenizer(model), texts, model.config.vocab_size)
  return Task(model, *found)


def measure(
  text: Task, batch: int = 16, progress: Callable[[int], Any] | None = None
) -> dict[str, Any]:
  """One row of the table: sizes (counted) and bits per byte (measured).

  Args:
    text: what is scored, by the float model.
    batch: documents side by side.
    progress: called with the number of ids done since the last call.

  Returns:
    JSON values; `megabytes` are those of all parameters in float32.
  """
  model = text.model
  run = jaxnmc.reference(model.fn)
  # Long documents of a model with a context are cut into pieces of it.
  score: bits.Score = Scorer(run)(
    *(model.params, text.rows, text.size),
    bos=backends.begin_id(model),
    batch=batch,
    progress=progress,
  )
  return {
    "tokens": model.config.vocab_size,
    "parameters": info.parameters(model.config)["total"],
    "megabytes": info.memory(model.config)["float32"] / 1e6,
    "ids": score.ids,
    "bytes": score.bytes,
    "ids_per_byte": score.ids / score.bytes,
    "bits_per_byte": score.bits_per_byte,
    "perplexity_per_id": score.perplexity,
  }


_ROWS = {
  "tokens": "tokens (counted)",
  "parameters": "parameters (counted)",
  "megabytes": "MB of parameters, float32 (counted)",
  "ids_per_byte": "ids per byte (measured)",
  "bits_per_byte": "bits per byte (measured)",
}


def show(console, data: dict[str, Any]) -> None:
  """Prints the table of `before` and `after`.

  Args:
    console: of `tables.console`.
    data: {"before", "after"} of `measure`, and "model".
  """
  before, after = data["before"], data["after"]
  rows = [
    (text, before[name], after[name], _change(before[name], after[name]))
    for name, text in _ROWS.items()
  ]
  columns = ("", ">before", ">after", ">change")
  console.print(tables.table(data["model"], columns, rows))


def _change(before: float, after: float) -> str:
  return f"{100 * (after / before - 1):+.1f} %"
