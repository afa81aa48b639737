"""Writes the byte range of an evaluation text: one prefix length per document.

The range is what the first N ids (BOS included) of another tokenizer
(llama2.c `tok*.bin`) cover, so that models with any vocabulary can be scored
on the same bytes.

  python tools/eval_range.py --tokenizer tok512.bin --text valid.txt \
    --ids 400 --out valid-400.json
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
_OUT = flags.DEFINE_string("out", None, "JSON file to write.")
flags.mark_flags_as_required(["tokenizer", "text"])


def main(argv: list[str]) -> None:
  del argv
  pieces = llama2c.read_pieces(_TOKENIZER.value)
  documents = data.read_documents([_TEXT.value])
  _, lengths = llama2c.prefixes(documents, pieces, _IDS.value)
  print(f"{len(lengths)} documents, {sum(lengths)} bytes")
  if _OUT.value:
    pathlib.Path(_OUT.value).write_text(json.dumps(lengths) + "\n")


if __name__ == "__main__":
  app.run(main)
