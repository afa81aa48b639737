"""Tokenizers: text to ids and back.

Four kinds with one face (`Tokenizer`): bytes, our own byte-level BPE (plain
arrays, no extra package), and thin adapters for Hugging Face `tokenizer.json`
(or the older `vocab.json` with `merges.txt` of GPT-2) and SentencePiece
`tokenizer.model`. `load` chooses by the file's name.

`encode` never adds BOS or EOS: whoever builds a prompt or a training stream
does that, in sight.
"""

import codecs
import difflib
import os
import pathlib
import re
from collections.abc import Callable, Iterable
from typing import BinaryIO, Protocol, runtime_checkable

import numpy as np

from jaxnmc import _extras
from jaxnmc.errors import CheckpointError, TokenError
from jaxnmc.io import bpe, files
from jaxnmc.models.inputs import flat_ids

BPE_FORMAT = "jaxnmc-bpe-1"
# What a folder may hold, in the order tried.
FILES = ("tokenizer.npz", "tokenizer.json", "tokenizer.model", "vocab.json")
_VOCABULARY, _MERGES = "vocab.json", "merges.txt"


@runtime_checkable
class Tokenizer(Protocol):
  """What every tokenizer has. An id that a vocabulary lacks is None."""

  @property
  def vocab_size(self) -> int:
    """Number of ids."""
    ...

  @property
  def bos_id(self) -> int | None:
    """Begin of text."""
    ...

  @property
  def eos_id(self) -> int | None:
    """End of text."""
    ...

  @property
  def pad_id(self) -> int | None:
    """Padding."""
    ...

  def encode(self, text: str | bytes) -> np.ndarray:
    """Returns int32[n], without BOS or EOS.

    Raises:
      TokenError: no text, or half of a surrogate pair.
    """
    ...

  def decode(self, ids: Iterable[int]) -> str:
    """Returns the text; special tokens are left out.

    Raises:
      TokenError: ids out of range, not flat, or no integers.
    """
    ...


def _utf8(text: str | bytes) -> bytes:
  if isinstance(text, bytes):
    return text
  if not isinstance(text, str):
    raise TokenError(
      f"text to encode: found {type(text).__name__}, allowed are str and "
      "bytes; decode or join the text first"
    )
  try:
    return text.encode("utf-8")
  except UnicodeEncodeError as error:
    raise TokenError(
      f"text to encode: character {error.start} (U+"
      f"{ord(text[error.start]):04X}) is half of a surrogate pair and has no "
      "UTF-8 form; read the text with errors='replace', or pass bytes"
    ) from error


def _mark(label: str) -> bytes:
  """A label as text has it."""
  return b"<|" + label.encode() + b"|>"


def _checked_labels(labels: Iterable[str]) -> tuple[str, ...]:
  labels = tuple(labels)
  for k, label in enumerate(labels):
    if not re.fullmatch(r"\w+", label, re.ASCII) or label in labels[:k]:
      raise TokenError(
        f"label {k}: found {label!r}, allowed are words of letters, digits and"
        " _, each once"
      )
  return labels


class BPETokenizer:
  """Byte-level BPE over the plain array `merges` (see `jaxnmc.io.bpe`).

  Labels are tokens behind the merges that a text names: `<|alarm_set|>` is one
  token where there is a label `alarm_set`, and plain text where there is none.

  Methods without more words are those of `Tokenizer`.

  Attributes:
    merges: int32[n, 2], the merges in the order learned.
    labels: names of the last ids.
  """

  bos_id = bpe.BOS_ID
  eos_id = bpe.EOS_ID
  pad_id = bpe.PAD_ID
  kind = "bpe"

  def __init__(self, merges: np.ndarray, labels: Iterable[str] = ()):
    """Checks the merges: each may use older tokens only.

    Raises:
      TokenError: the array is no valid merge list, or a label is no word of
        letters, digits and `_`, or there twice.
    """
    merges = np.asarray(merges)
    if (
      merges.ndim != 2
      or merges.shape[1] != 2
      or not np.issubdtype(merges.dtype, np.integer)
    ):
      raise TokenError(
        f"BPE merges: found {merges.dtype} of shape {merges.shape}, allowed "
        "is integers [n, 2]; train the tokenizer again"
      )
    limit = bpe.FIRST_MERGE + np.arange(len(merges))[:, None]
    bad = ((merges < bpe.FIRST_BYTE) | (merges >= limit)).any(axis=1)
    if bad.any():
      row = int(np.argmax(bad))
      raise TokenError(
        f"BPE merges: row {row} is {merges[row].tolist()}, allowed are ids "
        f"{bpe.FIRST_BYTE} ... {bpe.FIRST_MERGE + row - 1} (bytes and earlier "
        "merges); the list is damaged or in another order"
      )
    self.merges = merges.astype(np.int32)
    self.labels = _checked_labels(labels)
    marks = [_mark(label) for label in self.labels]
    self._bytes = bpe.token_bytes(self.merges) + marks
    first = bpe.FIRST_MERGE + len(self.merges)
    self._marks = {mark: first + k for k, mark in enumerate(marks)}
    either = b"|".join(re.escape(mark) for mark in marks)
    self._split = re.compile(b"(" + either + b")") if marks else None
    self._ranks = {
      (left, right): bpe.FIRST_MERGE + k
      for k, (left, right) in enumerate(self.merges.tolist())
    }
    self._cache: dict[bytes, tuple[int, ...]] = {}

  @classmethod
  def train(
    cls,
    texts: Iterable[str | bytes],
    vocab_size: int,
    labels: Iterable[str] = (),
  ) -> "BPETokenizer":
    """Learns a vocabulary of at most `vocab_size` tokens from texts.

    Raises:
      TokenError: vocab_size has no room for all bytes (259) and labels, or a
        text cannot be encoded as UTF-8.
    """
    labels = _checked_labels(labels)
    least = bpe.FIRST_MERGE + len(labels)
    if vocab_size < least:
      raise TokenError(
        f"vocab_size: found {vocab_size}, allowed is {least} (the special"
        " tokens, all bytes and labels) or more"
      )
    words = bpe.count_words(_utf8(text) for text in texts)
    return cls(bpe.train_merges(words, vocab_size - least), labels)

  @property
  def vocab_size(self) -> int:
    """Number of ids: special ones, bytes, merges and labels."""
    return bpe.FIRST_MERGE + len(self.merges) + len(self.labels)

  def label_id(self, label: str) -> int:
    """The id of a label.

    Raises:
      TokenError: there is no such label; the message names the nearest.
    """
    found = self._marks.get(_mark(label))
    if found is None:
      near = difflib.get_close_matches(label, self.labels, 3, 0)
      raise TokenError(
        f"label {label!r}: the tokenizer has {len(self.labels)} labels and not"
        f" this one; the nearest are {', '.join(near) or 'none'}"
      )
    return found

  def encode(self, text: str | bytes) -> np.ndarray:
    """Returns int32[n]; `decode_bytes` of it is the UTF-8 text again."""
    data = _utf8(text)
    if self._split is None:
      return np.array(self._encode(data), np.int32)
    out: list[int] = []
    for part in self._split.split(data):
      mark = self._marks.get(part)
      out.extend(self._encode(part) if mark is None else [mark])
    return np.array(out, np.int32)

  def _encode(self, data: bytes) -> list[int]:
    """Ids of bytes without labels."""
    out: list[int] = []
    for word in bpe.WORD.findall(data):
      ids = self._cache.get(word)
      if ids is None:
        ids = tuple(bpe.merge_word(word, self._ranks))
        # A bound on memory, not on the text: long words are rare and new.
        if len(word) <= 32 and len(self._cache) < 1 << 18:
          self._cache[word] = ids
      out.extend(ids)
    return out

  def decode_bytes(self, ids: Iterable[int]) -> bytes:
    """Returns the exact bytes; special tokens have none.

    Raises:
      TokenError: as `decode`.
    """
    checked = flat_ids(ids, self.vocab_size, "token ids", empty=True)
    return b"".join(self._bytes[i] for i in checked.tolist())

  def decode(self, ids: Iterable[int]) -> str:
    """Returns text; bytes that are no UTF-8 become U+FFFD."""
    return self.decode_bytes(ids).decode("utf-8", errors="replace")

  def arrays(self) -> dict[str, np.ndarray]:
    """What rebuilds it: `format`, `merges` int32[n, 2], `labels` if any."""
    found = {"format": np.array(BPE_FORMAT), "merges": self.merges}
    if self.labels:
      found["labels"] = np.array(self.labels)
    return found

  def serialized(self) -> bytes:
    """Returns bytes that are equal for equal tokenizers."""
    marks = b"".join(self._marks)
    return BPE_FORMAT.encode() + self.merges.astype("<i4").tobytes() + marks

  def save(self, path: str | os.PathLike) -> None:
    """Writes an npz; it appears whole or not at all.

    Raises:
      OSError: the system refuses.
    """
    files.write_bytes(path, files.npz_bytes(self.arrays()))

  @classmethod
  def load(
    cls, source: str | os.PathLike | BinaryIO, name: str | None = None
  ) -> "BPETokenizer":
    """Reads what `save` wrote; without merges it is a `ByteTokenizer`.

    Args:
      source: path, or open binary file.
      name: what to call it in messages; the path when not given.

    Returns:
      The tokenizer.

    Raises:
      CheckpointError: missing, truncated or another file.
      TokenError: the merges are damaged.
    """
    what = "a tokenizer written by BPETokenizer.save"
    path = name or str(source)
    arrays = files.read_npz(source, path, what)
    found = str(arrays.get("format"))
    if found != BPE_FORMAT or "merges" not in arrays:
      raise CheckpointError(
        f"{path}: found arrays {sorted(arrays)} and format {found!r}, allowed "
        f"is format {BPE_FORMAT!r} with 'merges'; name the tokenizer's file"
      )
    merges = arrays["merges"]
    labels = arrays.get("labels", np.zeros(0, np.str_))
    plain = not len(merges) and not len(labels)
    return ByteTokenizer() if plain else cls(merges, map(str, labels))


class ByteTokenizer(BPETokenizer):
  """One id per byte: BPE without merges, 259 ids."""

  kind = "bytes"

  def __init__(self) -> None:
    super().__init__(np.zeros((0, 2), np.int32))

  def encode(self, text: str | bytes) -> np.ndarray:
    """Returns int32[bytes]: each byte plus 3."""
    data = np.frombuffer(_utf8(text), np.uint8)
    return data.astype(np.int32) + bpe.FIRST_BYTE


class HFTokenizer:
  """Adapter for Hugging Face files (extra `hf`).

  Of `tokenizer.json`, or of `vocab.json` with `merges.txt` beside it: the
  byte-level BPE of GPT-2.
  """

  kind = "hf"
  _BOS = ("<s>", "<|begin_of_text|>", "<|endoftext|>", "[BOS]", "<bos>")
  _EOS = ("</s>", "<|end_of_text|>", "<|endoftext|>", "[EOS]", "<eos>")
  _PAD = ("<pad>", "[PAD]", "<unk>")

  def __init__(self, path: str | os.PathLike):
    """Opens the file.

    Raises:
      MissingExtra: without the package `tokenizers`.
      CheckpointError: the file is missing or damaged.
    """
    package = _extras.need("tokenizers", "hf")
    path = pathlib.Path(path)
    _need_file(path)
    what = path.name
    try:
      if path.name == _VOCABULARY:
        merges = path.with_name(_MERGES)
        what = f"{_VOCABULARY} with {_MERGES}"
        _need_file(merges)
        self._inner = package.ByteLevelBPETokenizer(str(path), str(merges))
        # Ordinary entries of the vocabulary there; here they are no text.
        known = self._inner.get_vocab()
        names = dict.fromkeys((*self._BOS, *self._EOS, *self._PAD))
        self._inner.add_special_tokens([n for n in names if n in known])
      else:
        self._inner = package.Tokenizer.from_file(str(path))
    except CheckpointError:
      raise
    except Exception as error:  # the package raises bare Exception
      raise CheckpointError(
        f"{path}: not readable as {what} ({error}); copy it again"
      ) from error
    self.vocab_size = self._inner.get_vocab_size(with_added_tokens=True)
    self.bos_id = self._first(self._BOS)
    self.eos_id = self._first(self._EOS)
    self.pad_id = self._first(self._PAD)

  def _first(self, names: tuple[str, ...]) -> int | None:
    ids = (self._inner.token_to_id(name) for name in names)
    return next((i for i in ids if i is not None), None)

  def encode(self, text: str | bytes) -> np.ndarray:
    """Returns int32[n], without special tokens."""
    plain = _utf8(text).decode("utf-8", errors="replace")
    ids = self._inner.encode(plain, add_special_tokens=False).ids
    return np.array(ids, np.int32)

  def decode(self, ids: Iterable[int]) -> str:
    """Returns the text; special tokens are left out."""
    checked = flat_ids(ids, self.vocab_size, "token ids", empty=True)
    return self._inner.decode(checked.tolist(), skip_special_tokens=True)

  def serialized(self) -> bytes:
    """Returns bytes that are equal for equal tokenizers."""
    return self._inner.to_str().encode("utf-8")


class SentencePieceTokenizer:
  """Adapter for a SentencePiece `tokenizer.model` (extra `hf`)."""

  kind = "sentencepiece"

  def __init__(self, path: str | os.PathLike):
    """Opens the file.

    Raises:
      MissingExtra: without the package `sentencepiece`.
      CheckpointError: the file is missing or damaged.
    """
    sentencepiece = _extras.need("sentencepiece", "hf")
    _need_file(path)
    self._inner = sentencepiece.SentencePieceProcessor()
    try:
      self._inner.Load(str(path))
    except Exception as error:
      raise CheckpointError(
        f"{path}: not readable as a SentencePiece model ({error}); copy it "
        "again"
      ) from error
    self.vocab_size = self._inner.GetPieceSize()
    # SentencePiece says -1 for a special token that the model lacks.
    ids = (self._inner.bos_id(), self._inner.eos_id(), self._inner.pad_id())
    self.bos_id, self.eos_id, self.pad_id = (i if i >= 0 else None for i in ids)

  def encode(self, text: str | bytes) -> np.ndarray:
    """Returns int32[n], without special tokens."""
    plain = _utf8(text).decode("utf-8", errors="replace")
    return np.array(self._inner.EncodeAsIds(plain), np.int32)

  def decode(self, ids: Iterable[int]) -> str:
    """Returns the text; special tokens are left out."""
    checked = flat_ids(ids, self.vocab_size, "token ids", empty=True)
    return self._inner.DecodeIds(checked.tolist())

  def serialized(self) -> bytes:
    """Returns bytes that are equal for equal tokenizers."""
    return self._inner.serialized_model_proto()


def _need_file(path: str | os.PathLike) -> None:
  if not pathlib.Path(path).is_file():
    raise CheckpointError(f"{path}: no such file; name the tokenizer's file")


def load(path: str | os.PathLike) -> Tokenizer:
  """Loads a tokenizer: the word `bytes`, or a file or folder.

  Args:
    path: `bytes`; our `*.npz`; `*.json` (Hugging Face; `vocab.json` with
      `merges.txt` beside it); `*.model` (SentencePiece); or a folder that
      holds one of `FILES`, tried in this order.

  Returns:
    The tokenizer.

  Raises:
    CheckpointError: nothing there, or nothing of these kinds.
    MissingExtra: `*.json` or `*.model` without the extra `hf`.
  """
  if str(path) == "bytes":
    return ByteTokenizer()
  path = pathlib.Path(path)
  if path.is_dir():
    found = next((path / n for n in FILES if (path / n).is_file()), None)
    if found is None:
      raise CheckpointError(
        f"{path}: no tokenizer in this folder; allowed are {', '.join(FILES)}"
      )
    path = found
  if path.suffix == ".npz":
    return BPETokenizer.load(path)
  if path.suffix == ".json":
    return HFTokenizer(path)
  if path.suffix == ".model":
    return SentencePieceTokenizer(path)
  raise CheckpointError(
    f"{path}: unknown kind of tokenizer; allowed are 'bytes', *.npz, *.json "
    "and *.model"
  )


def stream_decoder(tokenizer: Tokenizer) -> Callable[..., str]:
  """Returns `push(id=None) -> str`, which decodes one id at a time.

  Text comes out as soon as it is certain: a UTF-8 character whose bytes are
  spread over several ids is held back until it is whole. `push()` without an
  id ends the stream and returns what is left. All pieces together equal
  `tokenizer.decode` of all ids. To stream what follows a prompt, push the
  prompt's ids first: some tokenizers drop the blank before the first word.
  """
  if isinstance(tokenizer, BPETokenizer):
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push_bytes(token: int | None = None) -> str:
      if token is None:
        return decoder.decode(b"", final=True)
      return decoder.decode(tokenizer.decode_bytes([token]))

    return push_bytes

  ids: list[int] = []
  said = ""

  def push(token: int | None = None) -> str:
    nonlocal said
    if token is not None:
      ids.append(int(token))
    text = tokenizer.decode(ids)
    # An unfinished character shows as U+FFFD at the end: not yet certain.
    if token is not None:
      text = text.rstrip("�")
    if not text.startswith(said):
      return ""
    piece, said = text[len(said) :], text
    return piece

  return push
