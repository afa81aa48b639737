"""Checkpoints of minGPT as JSON: GPT-2's block under its own names.

The file holds `config` (n_layer, n_head, n_embd, vocab_size, block_size) and
one entry per tensor, `{"shape", "dtype", "data"}`, float32 in base64; matrices
are (out, in), queries, keys and values are one matrix (`c_attn`).
"""

import base64
import json
import pathlib
from typing import Any

import numpy as np

from jaxnmc.models import gpt
from jaxnmc.models.parameters import build

_BLOCK = {
  "attn_norm": "ln_1",
  "attn.o": "attn.c_proj",
  "mlp_norm": "ln_2",
  "mlp.up": "mlp.c_fc",
  "mlp.down": "mlp.c_proj",
}


def read(path: str | pathlib.Path) -> tuple[gpt.Config, dict[str, Any]]:
  """(config, params float32) of a file.

  Raises:
    KeyError: a tensor is missing.
  """
  content = json.loads(pathlib.Path(path).read_text())
  fields = content["config"]
  config = gpt.Config(
    vocab_size=fields["vocab_size"],
    hidden_size=fields["n_embd"],
    num_layers=fields["n_layer"],
    num_heads=fields["n_head"],
    max_position_embeddings=fields["block_size"],
    norm="layer",
    mlp="gelu_tanh",
    positions="learned",
    bias=True,
    tie_word_embeddings=False,
    bos_token_id=None,
    eos_token_id=None,
  )

  def tensor(name: str) -> np.ndarray:
    entry = content[name]
    raw = base64.b64decode(entry["data"])
    return np.frombuffer(raw, "<f4").reshape(entry["shape"])

  def pair(ours: str, theirs: str) -> dict[str, np.ndarray]:
    first = ".gain" if "norm" in ours else ".weight"
    return {
      ours + first: tensor(theirs + ".weight"),
      ours + ".bias": tensor(theirs + ".bias"),
    }

  leaves = {
    "embed.weight": tensor("transformer.wte.weight"),
    "positions.weight": tensor("transformer.wpe.weight"),
    "head.weight": tensor("lm_head.weight"),
    **pair("norm", "transformer.ln_f"),
  }
  for layer in range(config.num_layers):
    ours, theirs = f"layers.{layer}.", f"transformer.h.{layer}."
    for one, other in _BLOCK.items():
      leaves |= pair(ours + one, theirs + other)
    for kind in ("weight", "bias"):
      whole = tensor(f"{theirs}attn.c_attn.{kind}")
      for name, part in zip("qkv", np.split(whole, 3), strict=True):
        leaves[f"{ours}attn.{name}.{kind}"] = part
  return config, build(leaves)
