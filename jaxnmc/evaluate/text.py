"""Texts to score or train on: files, documents, byte ranges."""

import gzip
import json
import pathlib
import re
import zlib
from collections.abc import Sequence

from jaxnmc.errors import UserError

SEPARATOR = "<|endoftext|>"
_TITLE = re.compile(r" = [^=](?:.*[^=])? = \r?")


class DataError(UserError):
  """A text file cannot be read, or holds too little for its use."""


def read_text(path: str) -> str:
  """Reads a UTF-8 text file, plain or `.gz`.

  Raises:
    DataError: missing, cut off, or no UTF-8.
  """
  try:
    if str(path).endswith(".gz"):
      with gzip.open(path, "rb") as file:
        data = file.read()
    else:
      data = pathlib.Path(path).read_bytes()
    return data.decode("utf-8")
  except (OSError, EOFError, zlib.error) as error:
    raise DataError(
      f"{path}: cannot be read ({error}); allowed is a text file, plain or "
      ".gz; check the path, or copy the file again"
    ) from error
  except UnicodeDecodeError as error:
    raise DataError(
      f"{path}: byte {error.start} is no UTF-8; convert the file to UTF-8"
    ) from error


def split_documents(text: str, separator: str = SEPARATOR) -> list[str]:
  """Splits at lines that hold only the separator; empty documents go.

  A text without separators whose first line is a title of WikiText (` = Name =
  ` alone between empty lines) is split in front of every such title: its train,
  valid and test parts of WikiText-2 are 600, 60 and 60 articles.

  Line ends around a document are taken off, all else is kept.
  """
  documents: list[list[str]] = [[]]
  lines = text.split("\n")
  if not any(line.strip() == separator for line in lines):
    titles = _titles(lines)
    if titles and not any(line.strip() for line in lines[: titles[0]]):
      ends = [*titles[1:], len(lines)]
      documents = [lines[a:b] for a, b in zip(titles, ends, strict=True)]
      lines = []
  for line in lines:
    if line.strip() == separator:
      documents.append([])
    else:
      documents[-1].append(line)
  joined = ("\n".join(document).strip("\r\n") for document in documents)
  return [document for document in joined if document]


def _titles(lines: Sequence[str]) -> list[int]:
  """Lines with a title of WikiText: one `=` on either side, empty around."""
  around = ["", *lines, ""]
  return [
    k
    for k, line in enumerate(lines)
    if _TITLE.fullmatch(line)
    and not around[k].strip()
    and not around[k + 2].strip()
  ]


def read_documents(paths: Sequence[str]) -> list[str]:
  """Returns the documents of all files, in order; see `split_documents`.

  Raises:
    DataError: a file cannot be read, or there is no text in any.
  """
  documents = []
  for path in paths:
    documents.extend(split_documents(read_text(path)))
  if not documents:
    raise DataError(
      f"{', '.join(map(str, paths)) or 'no file'}: no text found; name at "
      "least one text file that is not empty"
    )
  return documents


def named(entry: str) -> tuple[str, str]:
  """(name, path) of a text that a flag names as NAME=FILE.

  Raises:
    DataError: it is none.
  """
  name, equals, path = entry.partition("=")
  if not (equals and name and path):
    raise DataError(f"--text {entry}: expected NAME=FILE, e.g. test=test.txt")
  return name, path


def count_words(data: bytes) -> int:
  """Words between white space, and line ends: the count of WikiText-2.

  Its test part, for one, is reported with 245,569.
  """
  return len(data.split()) + data.count(b"\n")


def read_lengths(path: str) -> list[int]:
  """Reads a JSON list of prefix lengths in bytes, one per document.

  Raises:
    DataError: not readable, or no list of integers >= 0.
  """
  try:
    lengths = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    raise DataError(
      f"{path}: not readable as a JSON list of integers ({error})"
    ) from error
  if not isinstance(lengths, list) or not all(
    type(length) is int and length >= 0 for length in lengths
  ):
    raise DataError(
      f"{path}: allowed is a JSON list of integers >= 0, one per document"
    )
  return lengths


def cut(documents: Sequence[str], lengths: Sequence[int] | None) -> list[bytes]:
  """Returns the first `lengths[k]` UTF-8 bytes of each document k.

  Models with different vocabularies are comparable only on equal bytes; a
  range is a list of prefix lengths, and each model encodes the cut text with
  its own tokenizer.

  Raises:
    DataError: the range is for another text.
  """
  data = [document.encode("utf-8") for document in documents]
  if lengths is None:
    return data
  if len(lengths) != len(data):
    raise DataError(
      f"evaluation range: found {len(lengths)} lengths for {len(data)} "
      "documents, allowed is one each; the range is for another text"
    )
  for index, (document, length) in enumerate(zip(data, lengths, strict=True)):
    if length > len(document):
      raise DataError(
        f"evaluation range: document {index} has {len(document)} bytes, the "
        f"range asks for {length}; the range is for another text"
      )
  return [d[:length] for d, length in zip(data, lengths, strict=True)]
