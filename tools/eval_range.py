"""Writes the byte range of an evaluation text: one prefix length per document.

The range is what the first N ids (BOS included) of another tokenizer
(llama2.c `tok*.bin`) cover, so that models with any vocabulary can be scored
on the same bytes.

  python tools/eval_range.py --tokenizer tok512.bin --text valid.txt \
    --ids 400 --out valid-400.json
"""

import json
import pathlib
import struct

from absl import app, flags

from jaxnmc.train import data

_TOKENIZER = flags.DEFINE_string("tokenizer", None, "llama2.c tokenizer file.")
_TEXT = flags.DEFINE_string("text", None, "Text with separator lines.")
_IDS = flags.DEFINE_integer("ids", 400, "Ids per document, BOS included.")
_OUT = flags.DEFINE_string("out", None, "JSON file to write.")
flags.mark_flags_as_required(["tokenizer", "text"])


def read_pieces(path: str) -> dict[bytes, tuple[int, float]]:
  """Reads piece -> (id, score); ids 3 ... 258 are the raw bytes."""
  raw = pathlib.Path(path).read_bytes()
  pieces, position, index = {}, 4, 0
  while position < len(raw):
    value, length = struct.unpack_from("<fi", raw, position)
    position += 8
    pieces.setdefault(raw[position : position + length], (index, value))
    position += length
    index += 1
  return pieces


def encode(text: str, pieces: dict[bytes, tuple[int, float]]) -> list[bytes]:
  """Returns the pieces of ' ' + text: best-scored neighbours merge first."""
  row = []
  for character in " " + text:
    data_bytes = character.encode("utf-8")
    known = data_bytes in pieces
    row += [data_bytes] if known else [bytes([b]) for b in data_bytes]
  while True:
    best, where = -1e30, -1
    for k in range(len(row) - 1):
      found = pieces.get(row[k] + row[k + 1])
      if found is not None and found[1] > best:
        best, where = found[1], k
    if where < 0:
      return row
    row[where : where + 2] = [row[where] + row[where + 1]]


def prefix_lengths(
  path: str, pieces: dict[bytes, tuple[int, float]], ids: int
) -> list[int]:
  """Returns how many bytes of each document its first `ids` ids cover."""
  lengths = []
  for document in data.read_documents([path]):
    # One of the ids is the BOS.
    row = encode(document, pieces)[: ids - 1]
    # The leading blank is the tokenizer's, not the text's.
    lengths.append(len(b"".join(row)) - 1)
  return lengths


def main(argv: list[str]) -> None:
  del argv
  pieces = read_pieces(_TOKENIZER.value)
  lengths = prefix_lengths(_TEXT.value, pieces, _IDS.value)
  print(f"{len(lengths)} documents, {sum(lengths)} bytes")
  if _OUT.value:
    pathlib.Path(_OUT.value).write_text(json.dumps(lengths) + "\n")


if __name__ == "__main__":
  app.run(main)
