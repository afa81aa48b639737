"""Bits per byte of llama2.c checkpoints, by the code that scores our models.

  python tools/score_llama2c.py --tokenizer tok512.bin --text valid.txt \
    --ids 400 stories260K.bin bit_model_3M.bin

Each document is cut to its first `--ids` ids, BOS included; with 400 on the
TinyStories sample this is the range that `tools/eval_range.py` writes.
"""

import json
import pathlib
import sys

from absl import app, flags

from jaxnmc.train import data

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import llama2c

_TOKENIZER = flags.DEFINE_string("tokenizer", None, "llama2.c tokenizer file.")
_TEXT = flags.DEFINE_string("text", None, "Text with separator lines.")
_IDS = flags.DEFINE_integer("ids", 400, "Ids per document, BOS included.")
_JSON = flags.DEFINE_boolean("json", False, "Print JSON.")


def main(argv: list[str]) -> None:
  pieces = llama2c.read_pieces(_TOKENIZER.value)
  documents = data.read_documents([_TEXT.value])
  rows, sizes = llama2c.prefixes(documents, pieces, _IDS.value)
  rows, size = [llama2c.ids_of(row, pieces) for row in rows], sum(sizes)
  print(f"{len(rows)} documents, {size} bytes")
  for path in argv[1:]:
    found = llama2c.score(path, rows, size)
    if _JSON.value:
      facts = {"bits_per_byte": found.bits_per_byte, "ids": found.ids}
      facts |= {"perplexity": found.perplexity, "bytes": found.bytes}
      print(json.dumps({"checkpoint": path} | facts))
    else:
      print(
        f"{path}: {found.bits_per_byte:.4f} bits per byte, perplexity"
        f" {found.perplexity:.3f}"
      )


if __name__ == "__main__":
  flags.mark_flags_as_required(["tokenizer", "text"])
  app.run(main)
