"""llama2.c files: tokenizers, checkpoints and what these compute.

The layouts are those of llama2.c (`stories260K.bin`, `tok512.bin`) and of its
ternary branch (`bit_model_*.bin`).  The float ones are `jaxnmc.models.gpt`
(`as_gpt`); the ternary ones, whose block has no norms, are computed here, only
to be scored beside our own.
"""

import heapq
import pathlib
import struct
import typing

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.evaluate.bits import Score, Scorer
from jaxnmc.models import gpt
from jaxnmc.models.model import Out
from jaxnmc.models.parameters import build
from jaxnmc.ops.transform import reference

BOS = 1
_MAGIC = 0x616B3432
_NAMES = ("wq", "wk", "wv", "wo", "w1", "w2", "w3")
_OURS = {
  **{f"w{name}": f"attn.{name}.weight" for name in "qkvo"},
  "attn_norm": "attn_norm.gain",
  "mlp_norm": "mlp_norm.gain",
  "w1": "mlp.gate.weight",
  "w2": "mlp.down.weight",
  "w3": "mlp.up.weight",
}
_EPS = 1e-5


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
    params: arrays float32; the seven weights are [layers, out, in], the norms
      of the layers [layers, dim] (the ternary kind has none).
  """

  shape: Shape
  params: dict[str, np.ndarray]


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
  params = {}
  if ternary:
    params["norm"] = take.floats(dim)
    params["embed"] = take.floats(shape.vocab, dim)
    for name in _NAMES:
      rows = [take.ternary(*shape.matrix(name)) for _ in range(layers)]
      params[name] = np.stack(rows)
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

  def ternary(self, rows: int, columns: int) -> np.ndarray:
    """scale * codes; four codes a byte, the first in the highest bits."""
    scale = self.floats(1)
    count = rows * columns // 4
    packed = np.frombuffer(self._raw, np.uint8, count, self.position)
    self.position += count
    fields = packed[:, None] >> np.array([6, 4, 2, 0], np.uint8) & 3
    values = np.array([0, 1, 0, -1], np.float32) * scale
    return values[fields].reshape(rows, columns)


def as_gpt(checkpoint: Checkpoint) -> tuple[gpt.Config, dict]:
  """(config, params) of a float checkpoint, as our own transformer.

  Raises:
    ValueError: it is of the ternary kind.
  """
  shape, arrays = checkpoint
  if "attn_norm" not in arrays:
    raise ValueError("a ternary checkpoint has no norms of its blocks")
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
    bos_token_id=BOS,
  )
  leaves = {"embed.weight": arrays["embed"], "norm.gain": arrays["norm"]}
  for layer in range(shape.layers):
    for theirs, ours in _OURS.items():
      leaves[f"layers.{layer}.{ours}"] = arrays[theirs][layer]
  return config, build(leaves)


def _rms(x: jax.Array, gain: jax.Array) -> jax.Array:
  mean = jnp.mean(x * x, axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(mean + _EPS) * gain


def _bitlinear(x: jax.Array, weight: jax.Array) -> jax.Array:
  """Unit rms, 8-bit codes per token, product."""
  x = x * jax.lax.rsqrt(jnp.sum(x * x, -1, keepdims=True)) / x.shape[-1] ** 0.5
  scale = 127 / jnp.max(jnp.abs(x), axis=-1, keepdims=True)
  return jnp.clip(jnp.round(x * scale), -128, 127) / scale @ weight.T


def _rotate(x: jax.Array) -> jax.Array:
  """Rotary positions on neighbouring pairs; x is [B, T, heads, size]."""
  size = x.shape[-1]
  rates = 10000.0 ** (-jnp.arange(0, size, 2) / size)
  angle = jnp.arange(x.shape[1])[:, None, None] * rates
  even, odd = x[..., ::2], x[..., 1::2]
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  pairs = [even * cos - odd * sin, even * sin + odd * cos]
  return jnp.stack(pairs, axis=-1).reshape(x.shape)


def _attention(q, k, v, shape: Shape) -> jax.Array:
  batch, time = q.shape[:2]
  size = shape.dim // shape.heads
  heads = lambda x: x.reshape(batch, time, -1, size)
  share = shape.heads // shape.kv_heads
  q, k = _rotate(heads(q)), jnp.repeat(_rotate(heads(k)), share, 2)
  v = jnp.repeat(heads(v), share, 2)
  scores = jnp.einsum("bthd,bshd->bhts", q, k) * size**-0.5
  seen = jnp.tril(jnp.ones((time, time), bool))
  weights = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), axis=-1)
  return jnp.einsum("bhts,bshd->bthd", weights, v).reshape(q.shape[:2] + (-1,))


def logits(shape: Shape, params, ids: jax.Array) -> jax.Array:
  """float32[B, T, vocab] of a ternary checkpoint, ids int32[B, T]."""
  layers = {k: v for k, v in params.items() if k not in ("embed", "norm")}

  def block(h, p):
    q, k, v = (_bitlinear(h, p[name]) for name in ("wq", "wk", "wv"))
    h = h + _bitlinear(_attention(q, k, v, shape), p["wo"])
    gated = jax.nn.silu(_bitlinear(h, p["w1"])) * _bitlinear(h, p["w3"])
    return h + _bitlinear(gated, p["w2"]), None

  h, _ = jax.lax.scan(block, params["embed"][ids], layers)
  return _rms(h, params["norm"]) @ params["embed"].T


def score(path: str, rows: list[np.ndarray], size: int) -> Score:
  """Scores one checkpoint by the code that scores our own models.

  Args:
    path: a checkpoint of either kind.
    rows: int32 ids of each document, without BOS.
    size: bytes that they stand for.
  """
  shape, params = checkpoint = read_checkpoint(path)
  if "attn_norm" in params:
    config, params = as_gpt(checkpoint)
    return Scorer(reference(gpt.make(config)))(params, rows, size, bos=BOS)

  def run(params, inputs, state):
    return Out(logits(shape, params, inputs["ids"])), state

  # One chunk holds the longest document: nothing is remembered here.
  longest = max(map(len, rows))
  params = jax.tree.map(jnp.asarray, params)
  return Scorer(run)(params, rows, size, bos=BOS, chunk=longest)
