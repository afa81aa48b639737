"""Training text: files, documents, one packed stream, windows by counter.

A batch is a pure function of (stream, seed, step): there is no reader state,
so a run that was killed continues with exactly the batches it would have seen.
"""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from jaxnmc.evaluate.text import (
  SEPARATOR,
  DataError,
  read_documents,
  read_text,
  split_documents,
)
from jaxnmc.io.tokenizer import Tokenizer

__all__ = [
  "SEPARATOR",
  "DataError",
  "Stream",
  "Windows",
  "hold_out",
  "pack",
  "read_documents",
  "read_text",
  "split_documents",
]


def hold_out(
  documents: Sequence[str], share: float
) -> tuple[list[str], list[str]]:
  """Splits documents into (rest, held): about `share` of them is held.

  A document is held by a hash of its own text, so the choice does not depend
  on the other documents or their order, and no document is in both.

  Args:
    documents: texts.
    share: 0 (none) to 1 (all).
  """
  limit = int(share * 2**32)
  rest: list[str] = []
  held: list[str] = []
  for document in documents:
    digest = hashlib.sha256(document.encode("utf-8")).digest()
    chosen = int.from_bytes(digest[:4], "big") < limit
    (held if chosen else rest).append(document)
  return rest, held


@dataclasses.dataclass(frozen=True)
class Stream:
  """Documents as one row of ids: BOS, document, EOS, BOS, document, ...

  Attributes:
    ids: int32[n].
    starts: int64[documents], where each BOS is.
    text_bytes: UTF-8 bytes of the documents.
  """

  ids: np.ndarray
  starts: np.ndarray
  text_bytes: int

  @property
  def bytes_per_id(self) -> float:
    """Mean UTF-8 bytes per id, BOS and EOS counted as ids."""
    return self.text_bytes / len(self.ids)

  def fingerprint(self) -> str:
    """Returns a hash of the ids: a checkpoint belongs to one stream."""
    return hashlib.sha256(self.ids.tobytes()).hexdigest()[:16]


def pack(documents: Sequence[str], tokenizer: Tokenizer) -> Stream:
  """Encodes documents into one stream.

  A tokenizer without BOS or EOS gets its other one, or id 0, in its place.

  Raises:
    DataError: there is no document.
  """
  if not documents:
    raise DataError(
      "training text: found no documents; give more text, or hold less of it"
      " out"
    )
  ends = (tokenizer.bos_id, tokenizer.eos_id)
  given = [i for i in ends if i is not None]
  bos = tokenizer.bos_id if tokenizer.bos_id is not None else [*given, 0][0]
  eos = tokenizer.eos_id if tokenizer.eos_id is not None else bos
  parts, starts, position, size = [], [], 0, 0
  for document in documents:
    ids = tokenizer.encode(document)
    parts += [np.array([bos], np.int32), ids, np.array([eos], np.int32)]
    starts.append(position)
    position += len(ids) + 2
    size += len(document.encode("utf-8"))
  return Stream(np.concatenate(parts), np.array(starts, np.int64), size)


class Windows:
  """Windows of `length + 1` ids, each once per epoch, in shuffled order.

  Each document is cut into windows of `length` from its BOS on; the last one
  runs on into the next document. So most windows begin as generation does,
  with a BOS and a state of zero, and every id is a target at least once an
  epoch. The order is a fresh permutation each epoch, drawn from (seed, epoch).
  """

  def __init__(self, stream: Stream, length: int, batch: int, seed: int):
    """Takes a stream and cuts it.

    Args:
      stream: ids of the documents.
      length: ids per window that are read; one more is the last target.
      batch: windows per step.
      seed: of the order.

    Raises:
      DataError: the stream is shorter than one window.
    """
    if len(stream.ids) < length + 1:
      raise DataError(
        f"training text: found {len(stream.ids)} ids, a window needs "
        f"{length + 1}; give more text or a shorter --seq"
      )
    self._ids = stream.ids
    self._length, self._batch, self._seed = length, batch, seed
    ends = np.append(stream.starts[1:], len(stream.ids))
    starts = np.concatenate(
      [
        np.arange(start, end, length)
        for start, end in zip(stream.starts, ends, strict=True)
      ]
    )
    # The last windows are moved back so that they end with the stream.
    self._starts = np.minimum(starts, len(stream.ids) - length - 1)
    self._epoch, self._order = -1, np.zeros(0, np.int64)

  @property
  def per_epoch(self) -> int:
    """Windows of one epoch."""
    return len(self._starts)

  def _start(self, index: int) -> int:
    epoch, position = divmod(index, self.per_epoch)
    if epoch != self._epoch:
      generator = np.random.default_rng([self._seed, epoch])
      self._order = generator.permutation(self.per_epoch)
      self._epoch = epoch
    return int(self._starts[self._order[position]])

  def batch(self, step: int) -> np.ndarray:
    """Returns int32[length + 1, batch], time first, for a step from 0."""
    first = step * self._batch
    starts = [self._start(first + column) for column in range(self._batch)]
    at = np.arange(self._length + 1)[:, None] + np.array(starts)[None, :]
    return self._ids[at]
