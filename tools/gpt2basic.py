"""Checkpoints of gpt2-basic: a small GPT-2 that talks on old computers.

The weights are an npz: `tok_emb`, `pos_emb`, `h<l>.<part>.<w|b>`, `ln_f`,
`lm_head`; matrices are [in, out].  The vocabulary is a JSON list of pieces, one
character a byte: two special ones, the 256 bytes, then a lexicon.
"""

import json
import pathlib
from collections.abc import Iterable

import numpy as np

from jaxnmc.models import gpt
from jaxnmc.models.parameters import build

END = 0
_BYTES = 2  # id of byte 0
_LEXICON = _BYTES + 256
_HEADS = 4
_PARTS = {
  "ln1": "attn_norm",
  **{name: f"attn.{name}" for name in "qkv"},
  "proj": "attn.o",
  "ln2": "mlp_norm",
  "fc1": "mlp.up",
  "fc2": "mlp.down",
}


def read(path: str | pathlib.Path) -> tuple[gpt.Config, dict]:
  """(config, params float32) of a file.

  Raises:
    KeyError: an array is missing.
  """
  with np.load(path, allow_pickle=False) as file:
    arrays = dict(file)
  vocab, width = arrays["tok_emb"].shape
  config = gpt.Config(
    vocab_size=vocab,
    hidden_size=width,
    num_layers=sum(name.endswith(".ln1.w") for name in arrays),
    num_heads=_HEADS,
    intermediate_size=len(arrays["h0.fc1.b"]),
    max_position_embeddings=len(arrays["pos_emb"]),
    norm="layer",
    mlp="gelu",
    positions="learned",
    bias=True,
    head_bias=True,
    tie_word_embeddings=False,
    bos_token_id=None,
    eos_token_id=END,
  )
  leaves = {"embed": arrays["tok_emb"], "positions": arrays["pos_emb"]}
  leaves = {f"{name}.weight": value for name, value in leaves.items()}

  def pair(ours: str, theirs: str) -> None:
    kind = "gain" if "norm" in ours else "weight"
    leaves[f"{ours}.{kind}"] = arrays[f"{theirs}.w"].T
    leaves[f"{ours}.bias"] = arrays[f"{theirs}.b"]

  for layer in range(config.num_layers):
    for theirs, ours in _PARTS.items():
      pair(f"layers.{layer}.{ours}", f"h{layer}.{theirs}")
  pair("norm", "ln_f")
  pair("head", "lm_head")
  return config, build(leaves)


class Lexicon:
  """Text to ids and back.

  Args:
    path: the JSON list of pieces.
  """

  def __init__(self, path: str | pathlib.Path):
    self.pieces: list[str] = json.loads(pathlib.Path(path).read_text())
    self._ids = {p: k for k, p in enumerate(self.pieces) if k >= _LEXICON}
    self._longest = max(map(len, self._ids))

  def encode(self, text: str) -> np.ndarray:
    """int32 ids: the longest piece that cuts no word, else a byte."""
    rest, ids = text.encode().decode("latin-1"), []
    while rest:
      piece = self._front(rest)
      ids.append(self._ids[piece] if piece else ord(rest[0]) + _BYTES)
      rest = rest[len(piece) or 1 :]
    return np.array(ids, np.int32)

  def _front(self, rest: str) -> str:
    """The piece at the front of a text, or "" where none fits."""
    for size in range(min(self._longest, len(rest)), 0, -1):
      border = rest[size - 1 : size + 1]
      inside = len(border) == 2 and border.isalnum()
      if rest[:size] in self._ids and not inside:
        return rest[:size]
    return ""

  def decode(self, ids: Iterable[int]) -> str:
    """The text; special pieces are left out."""
    text = "".join(self.pieces[k] for k in ids if k >= _BYTES)
    return text.encode("latin-1").decode(errors="replace")
