"""Bits per byte and perplexity of documents, the same for every backend.

    bits per byte = nats of all ids / ln 2 / UTF-8 bytes they stand for

Each document starts from its own begin-of-text token and a state of zero; that
token is not predicted, no end token is scored, and a blank that a tokenizer
puts in front is not counted.  `windows` scores the same documents with a
bounded context.
"""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax import numpy as jnp

from jaxnmc.errors import TokenError
from jaxnmc.evaluate.predict import chunks, stepper
from jaxnmc.evaluate.text import DataError, count_words
from jaxnmc.io.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Score:
  """How well a text was predicted.

  Attributes:
    nats: sum of -ln p over all ids.
    ids: number of ids predicted.
    bytes: UTF-8 bytes they stand for.
    documents: number of documents.
    words: words and line ends they stand for, None if not counted.
    integers: integers in the digest (0 for float backends).
    digest: SHA-256 over all logits codes, document by document in the order
      given (int32, little endian); None for float backends.
  """

  nats: float
  ids: int
  bytes: int
  documents: int
  words: int | None = None
  integers: int = 0
  digest: str | None = None

  @property
  def bits_per_byte(self) -> float:
    """Bits per byte."""
    return self.nats / math.log(2) / self.bytes

  @property
  def perplexity(self) -> float:
    """exp of the nats per id."""
    return math.exp(self.nats / self.ids)

  @property
  def word_perplexity(self) -> float | None:
    """exp of the nats per word, as WikiText-2 is reported."""
    # Nonsense can be further off than a float goes.
    if not self.words or self.nats / self.words > 700:
      return None
    return math.exp(self.nats / self.words)


class Part(NamedTuple):
  """How well one document, or one window, was predicted.

  Attributes:
    nats: sum of -ln p over its ids.
    ids: number of ids predicted.
    integers: integers in the digest (0 for float backends).
    digest: SHA-256 (hex) over the codes of its logits; None for float backends.
  """

  nats: float
  ids: int
  integers: int
  digest: str | None


def joined(
  parts: Mapping[int, Part],
  count: int,
  *,
  size: int,
  documents: int,
  words: int | None = None,
) -> Score:
  """The score of a text from those of its parts.

  Args:
    parts: by place; parts without ids may be left out.
    count: number of parts, those without ids included.
    size: UTF-8 bytes they stand for.
    documents: number of documents.
    words: words they stand for, or None.
  """
  there = [parts[k] for k in range(count) if k in parts]
  integers = sum(part.integers for part in there)
  whole = hashlib.sha256()
  for k in range(count):
    digest = parts[k].digest if k in parts else None
    nothing = hashlib.sha256().digest()
    whole.update(nothing if digest is None else bytes.fromhex(digest))
  return Score(
    nats=math.fsum(part.nats for part in there),
    ids=sum(part.ids for part in there),
    bytes=size,
    documents=documents,
    words=words,
    integers=integers,
    digest=whole.hexdigest() if integers else None,
  )


@dataclasses.dataclass
class _Document:
  """Ids of one document and what has been found of it."""

  place: int
  ids: np.ndarray
  nats: float = 0.0
  integers: int = 0
  sha: Any = dataclasses.field(default_factory=hashlib.sha256)

  def part(self) -> Part:
    digest = self.sha.hexdigest() if self.integers else None
    return Part(self.nats, len(self.ids), self.integers, digest)


def _size(tokenizer: Tokenizer, ids: np.ndarray) -> int:
  """UTF-8 bytes that ids stand for."""
  exact = getattr(tokenizer, "decode_bytes", None)
  if exact is not None:
    return len(exact(ids))
  return len(tokenizer.decode(ids).encode("utf-8"))


def encode(
  tokenizer: Tokenizer,
  texts: Sequence[bytes],
  vocab_size: int,
  max_ids: int | None = None,
) -> tuple[list[np.ndarray], int]:
  """Ids of each text, cut to at most `max_ids`, and the bytes they stand for.

  Args:
    tokenizer: see `jaxnmc.io.tokenizer`.
    texts: UTF-8 bytes; a last character may be cut off.
    vocab_size: tokens of the model.
    max_ids: most ids of a text, or None.

  Returns:
    (int32[n] per text, UTF-8 bytes of all of them).

  Raises:
    TokenError: the tokenizer has ids that the model lacks.
    DataError: there is nothing to score, or max_ids < 1.
  """
  if max_ids is not None and max_ids < 1:
    raise DataError(f"max_ids must be a positive integer; found {max_ids}")
  rows, size = [], 0
  for text in texts:
    ids = np.asarray(tokenizer.encode(text), np.int32)
    if max_ids is not None and len(ids) > max_ids:
      ids = ids[:max_ids]
      size += _size(tokenizer, ids)
    else:
      size += len(text)
    rows.append(ids)
  if not size:
    raise DataError("evaluation text: found no bytes; name a text to score")
  top = max(int(ids.max()) for ids in rows if len(ids))
  if top >= vocab_size:
    raise TokenError(
      f"the tokenizer gives id {top}, but the model has {vocab_size} tokens;"
      " use the tokenizer the model was trained with"
    )
  return rows, size


def words_of(
  tokenizer: Tokenizer,
  texts: Sequence[bytes],
  rows: Sequence[np.ndarray],
  max_ids: int | None = None,
) -> int:
  """Words and line ends of what `encode` kept; see `text.count_words`.

  Args:
    tokenizer: as for `encode`.
    texts: as for `encode`.
    rows: what it returned.
    max_ids: as for `encode`.
  """
  total = 0
  for data, row in zip(texts, rows, strict=True):
    if max_ids is not None and len(row) >= max_ids:
      data = tokenizer.decode(row).encode("utf-8")
    total += count_words(data)
  return total


def pieces(rows: Sequence[np.ndarray], context: int | None) -> list[np.ndarray]:
  """Documents in pieces that a model can read, each from its own BOS.

  Args:
    rows: ids of each document, int32[n].
    context: most tokens of a sequence, BOS included; None: any number.

  Returns:
    int32[n] with n <= context, in order.  (The last id is predicted, not read,
    so that BOS and n - 1 ids are.)
  """
  if context is None:
    return list(rows)
  return [
    row[first : first + context]
    for row in rows
    for first in range(0, max(len(row), 1), context)
  ]


def first_pieces(
  tokenizer: Tokenizer,
  documents: Sequence[str],
  vocab_size: int,
  *,
  most: int,
  max_ids: int,
) -> list[np.ndarray]:
  """Ids of the first documents of a text, in pieces of bounded length.

  Args:
    tokenizer: the model's.
    documents: UTF-8 texts.
    vocab_size: tokens of the model.
    most: documents to take, and pieces to keep.
    max_ids: most ids of a piece; longer documents are cut into several.

  Returns:
    int32[n] of each piece, in order.

  Raises:
    TokenError, DataError: as `encode`.
  """
  data = [document.encode("utf-8") for document in documents[:most]]
  ids = encode(tokenizer, data, vocab_size)[0]
  return pieces(ids, max_ids)[:most]


class Scorer:
  """Scores texts with one backend; keeps the compiled programs.

  Documents run side by side in chunks of a fixed length, with the state
  carried from chunk to chunk, so that any length needs two programs and the
  same memory.  What follows the end of a shorter document is not counted.
  A document that is longer than the model's context is scored in `pieces`.
  """

  def __init__(self, run: Callable, *, jit: bool = True):
    """Takes a backend.

    Args:
      run: `run(params, {"ids"}, state) -> (out, state[, counters])`.
      jit: whether to compile `run` here.
    """
    self._step = stepper(run, jit=jit)
    # What the transforms say of the model; other callables say nothing.
    self._context: int | None = getattr(run, "context", None)

  def __call__(
    self,
    params: Any,
    rows: Sequence[np.ndarray],
    size: int,
    *,
    bos: int,
    batch: int = 16,
    chunk: int = 128,
    words: int | None = None,
    done: Mapping[int, Part] | None = None,
    keep: Callable[[dict[int, Part]], Any] | None = None,
    progress: Callable[[int], None] | None = None,
  ) -> Score:
    """Scores encoded documents.

    Args:
      params: float params or qparams.
      rows: ids of each document, int32[n] (see `encode`).
      size: UTF-8 bytes they stand for.
      bos: token in front of every document.
      batch: documents side by side.
      chunk: positions per call.
      words: words they stand for (see `words_of`), or None.
      done: documents (or pieces of them) that are scored already, by place.
      keep: called with those of every group as soon as they are done.
      progress: called with the number of ids done since the last call.

    Returns:
      `Score`.
    """
    chunk = min(chunk, self._context or chunk)
    cut = pieces(rows, self._context)
    documents = [
      _Document(k, np.asarray(row, np.int32)) for k, row in enumerate(cut)
    ]
    parts = dict(done or {})
    todo = [d for d in documents if len(d.ids) and d.place not in parts]
    if progress is not None:
      progress(sum(map(_length, documents)) - sum(map(_length, todo)))
    by_length = sorted(todo, key=_length)
    for first in range(0, len(by_length), batch):
      group = by_length[first : first + batch]
      state = None
      side = [document.ids for document in group]
      for start, ids in chunks(side, bos, batch, chunk):
        step = self._step(params, jnp.asarray(ids), state)
        nats, state = np.asarray(step.nats, np.float64), step.state
        codes = None
        if step.codes is not None:
          codes = np.asarray(step.codes).astype("<i4")
        scored = 0
        for k, row in enumerate(group):
          count = min(max(len(row.ids) - start, 0), chunk)
          row.nats += float(nats[k, :count].sum())
          scored += count
          if codes is not None:
            row.sha.update(codes[k, :count].tobytes())
            row.integers += codes[k, :count].size
        if progress is not None:
          progress(scored)
      new = {row.place: row.part() for row in group}
      parts |= new
      if keep is not None:
        keep(new)
    return joined(
      *(parts, len(documents)),
      size=size,
      documents=len(rows),
      words=words,
    )


def _length(document: _Document) -> int:
  return len(document.ids)
