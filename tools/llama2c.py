"""llama2.c files: tokenizers, checkpoints and what these compute.

The layouts are those of llama2.c (`stories260K.bin`, `tok512.bin`) and of its
ternary branch (`bit_model_*.bin`).  Both are `jaxnmc.models.gpt` (`as_gpt`); a
block of the ternary kind has no norms but those inside its BitLinears.
"""

import heapq
import pathlib
import struct
import typing
from typing import Any

import numpy as np

from jaxnmc.evaluate.bits import Score, Scorer
from jaxnmc.models import gpt
from jaxnmc.models.parameters import build
from jaxnmc.numerics.ternary import Ternary
from jaxnmc.ops.transform import reference

BOS = 1
_MAGIC = 0x616B3432
_NAMES = ("wq", "wk", "wv", "wo", "w1", "w2", "w3")
_OURS = {
  **{f"w{name}": f"attn.{name}" for name in "qkvo"},
  "w1": "mlp.gate",
  "w2": "mlp.down",
  "w3": "mlp.up",
}
_EPS = 1e-5
# The norm of a BitLinear has none; ours must have one. Gated values are small
# there (1e-5), so that already 1e-12 would be seen.
_NO_EPS = 1e-30


class Shape(typing.NamedTuple):
  """The header of a checkpoint."""

  dim: int
  hidden: int
  layers: int
  heads: int
  kv_heads: int
  vocab: int
  context: int

  def matrix(self, name: str) -> tuple[int, int]:
    """(out, in) of a weight."""
    d, h, kv = self.dim, self.hidden, self.dim * self.kv_heads // self.heads
    square = {"wq": (d, d), "wk": (kv, d), "wv": (kv, d), "wo": (d, d)}
    return (square | {"w1": (h, d), "w2": (d, h), "w3": (h, d)})[name]


class Checkpoint(typing.NamedTuple):
  """One model.

  Attributes:
    shape: header.
    params: arrays float32.  Of each layer there is a row in the seven weights,
      float32[out, in] or `Ternary`, and (but in the ternary kind) in the norms
      `attn_norm` and `mlp_norm`, float32[dim].
  """

  shape: Shape
  params: dict[str, Any]


def read_pieces(path: str) -> dict[bytes, tuple[int, float]]:
  """Piece -> (id, score) of a tokenizer; ids 3 ... 258 are the raw bytes."""
  raw = pathlib.Path(path).read_bytes()
  pieces, position, index = {}, 4, 0
  while position < len(raw):
    value, length = struct.unpack_from("<fi", raw, position)
    position += 8
    pieces.setdefault(raw[position : position + length], (index, value))
    position += length
    index += 1
  return pieces


def split(text: str, pieces: dict[bytes, tuple[int, float]]) -> list[bytes]:
  """The pieces of ' ' + text: best-scored neighbours merge, leftmost first."""
  row: list[bytes | None] = []
  for character in " " + text:
    data_bytes = character.encode("utf-8")
    known = data_bytes in pieces
    row += [data_bytes] if known else [bytes([b]) for b in data_bytes]
  after = [*range(1, len(row)), -1]
  before = [*range(-1, len(row) - 1)]
  heap: list[tuple[float, int, bytes]] = []

  def offer(k: int) -> None:
    if k >= 0 and after[k] >= 0:
      both = row[k] + row[after[k]]
      if both in pieces:
        heapq.heappush(heap, (-pieces[both][1], k, both))

  for k in range(len(row)):
    offer(k)
  while heap:
    _, k, both = heapq.heappop(heap)
    if row[k] is None or after[k] < 0 or row[k] + row[after[k]] != both:
      continue  # one of the two has merged since
    gone = after[k]
    row[k], row[gone], after[k] = both, None, after[gone]
    if after[k] >= 0:
      before[after[k]] = k
    offer(before[k])
    offer(k)
  return [piece for piece in row if piece is not None]


def prefixes(
  documents: list[str], pieces: dict[bytes, tuple[int, float]], ids: int
) -> tuple[list[list[bytes]], list[int]]:
  """The first `ids` ids of each document, BOS included.

  Returns:
    (pieces of each, bytes of its text that they stand for: the leading blank
    is the tokenizer's, not the text's).
  """
  rows = [split(text, pieces)[: ids - 1] for text in documents]
  return rows, [len(b"".join(row)) - 1 for row in rows]


def ids_of(
  row: list[bytes], pieces: dict[bytes, tuple[int, float]]
) -> np.ndarray:
  """int32 ids of pieces; a byte without a piece is 3 + byte."""
  found = [pieces[p][0] if p in pieces else p[0] + 3 for p in row]
  return np.asarray(found, np.int32)


def read_checkpoint(path: str) -> Checkpoint:
  """Reads either kind of checkpoint.

  Raises:
    ValueError: the file is longer or shorter than its header says.
  """
  raw = pathlib.Path(path).read_bytes()
  ternary = struct.unpack_from("<I", raw)[0] == _MAGIC
  shape = Shape(*struct.unpack_from("<7i", raw, 8 if ternary else 0))
  take = _Reader(raw, 256 if ternary else 28)
  layers, dim = shape.layers, shape.dim
  params: dict[str, Any] = {}
  if ternary:
    params["norm"] = take.floats(dim)
    params["embed"] = take.floats(shape.vocab, dim)
    for name in _NAMES:
      size = shape.matrix(name)
      params[name] = [take.ternary(*size) for _ in range(layers)]
  else:
    params["embed"] = take.floats(shape.vocab, dim)
    for name in ("attn_norm", *_NAMES[:4], "mlp_norm", *_NAMES[4:]):
      norm = name.endswith("norm")
      size = (dim,) if norm else shape.matrix(name)
      params[name] = take.floats(layers, *size)
    params["norm"] = take.floats(dim)
    take.floats(shape.context, dim // shape.heads)  # rotations, computed here
  if take.position != len(raw):
    raise ValueError(
      f"{path}: the header asks for {take.position} bytes, found {len(raw)}"
    )
  return Checkpoint(shape, params)


class _Reader:
  """Takes arrays from a file, in order."""

  def __init__(self, raw: bytes, position: int):
    self._raw, self.position = raw, position

  def floats(self, *shape: int) -> np.ndarray:
    count = int(np.prod(shape))
    out = np.frombuffer(self._raw, "<f4", count, self.position)
    self.position += 4 * count
    return out.reshape(shape)

  def ternary(self, rows: int, columns: int) -> Ternary:
    """Scale, then codes: four a byte, the first in the highest bits."""
    scale = self.floats(1)[0]
    count = rows * columns // 4
    packed = np.frombuffer(self._raw, np.uint8, count, self.position)
    self.position += count
    fields = packed[:, None] >> np.array([6, 4, 2, 0], np.uint8) & 3
    codes = np.array([0, 1, 0, -1], np.int8)[fields].reshape(rows, columns)
    return Ternary(codes, scale)


def as_gpt(checkpoint: Checkpoint) -> tuple[gpt.Config, dict]:
  """(config, params) of a checkpoint, as our own transformer."""
  shape, arrays = checkpoint
  ternary = "attn_norm" not in arrays
  config = gpt.Config(
    vocab_size=shape.vocab,
    hidden_size=shape.dim,
    num_layers=shape.layers,
    num_heads=shape.heads,
    num_kv_heads=shape.kv_heads,
    intermediate_size=shape.hidden,
    max_position_embeddings=shape.context,
    rotary_pairs="neighbours",
    norm_eps=_EPS,
    bitlinear_eps=_NO_EPS,
    ternary=ternary,
    block_norms=not ternary,
    bos_token_id=BOS,
  )
  leaves = {"embed.weight": arrays["embed"], "norm.gain": arrays["norm"]}
  for layer in range(shape.layers):
    start = f"layers.{layer}."
    for norm in ("attn_norm", "mlp_norm"):
      if norm in arrays:
        leaves[f"{start}{norm}.gain"] = arrays[norm][layer]
    for theirs, ours in _OURS.items():
      weight = arrays[theirs][layer]
      if ternary:
        # Their norm leaves values of rms 1 / in, ours of rms 1.
        inp = weight.shape[1]
        leaves[f"{start}{ours}.norm"] = np.ones(inp, np.float32)
        weight = Ternary(weight.codes, np.float32(weight.scale / inp))
      leaves[f"{start}{ours}.weight"] = weight
  return config, build(leaves)


def score(path: str, rows: list[np.ndarray], size: int) -> Score:
  """Scores one checkpoint by the code that scores our own models.

  Args:
    path: a checkpoint of either kind.
    rows: int32 ids of each document, without BOS.
    size: bytes that they stand for.
  """
  config, params = as_gpt(read_checkpoint(path))
  return Scorer(reference(gpt.make(config)))(params, rows, size, bos=BOS)
