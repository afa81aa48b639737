"""The parameters of every family of models, as data.

Of the MatMul-free model also which tensor of a Hugging Face checkpoint is
which: state dict of `HGRNBitForCausalLM` (one `weight` each, no biases, stored
[out, in]).  A row is (our path, their key, shape, kind).
Shapes are spelled with the sizes of the configuration: V vocabulary, D hidden,
E recurrent, I GLU, L layers; G = 2 I (gate rows first, then up rows).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxnmc.errors import CheckpointError
from jaxnmc.models import gpt, matmulfree
from jaxnmc.models.families import family_of
from jaxnmc.models.parameters import build

_TABLES = (
  ("embed.weight", "model.embeddings.weight", "VD", "table"),
  ("lower_bounds", "model.lower_bounds", "LD", "bounds"),
)
_LAYER = (
  ("attn_norm", "attn_norm.weight", "D", "gain"),
  ("attn.i.weight", "attn.i_proj.weight", "ED", "matrix"),
  ("attn.i.norm", "attn.i_proj.norm.weight", "D", "gain"),
  ("attn.f.weight", "attn.f_proj.weight", "ED", "matrix"),
  ("attn.f.norm", "attn.f_proj.norm.weight", "D", "gain"),
  ("attn.g.weight", "attn.g_proj.weight", "ED", "matrix"),
  ("attn.g.norm", "attn.g_proj.norm.weight", "D", "gain"),
  ("attn.g_norm", "attn.g_norm.weight", "E", "gain"),
  ("attn.o.weight", "attn.o_proj.weight", "DE", "matrix"),
  ("attn.o.norm", "attn.o_proj.norm.weight", "E", "gain"),
  ("mlp_norm", "mlp_norm.weight", "D", "gain"),
  ("mlp.gate.weight", "mlp.gate_proj.weight", "GD", "matrix"),
  ("mlp.gate.norm", "mlp.gate_proj.norm.weight", "D", "gain"),
  ("mlp.down.weight", "mlp.down_proj.weight", "DI", "matrix"),
  ("mlp.down.norm", "mlp.down_proj.norm.weight", "I", "gain"),
)
_HEAD = (
  ("norm", "model.norm.weight", "D", "gain"),
  ("head.weight", "lm_head.weight", "VD", "matrix"),
  ("head.norm", "lm_head.norm.weight", "D", "gain"),
)

HEAD_KEY = "lm_head.weight"
EMBED_KEY = "model.embeddings.weight"


@dataclasses.dataclass(frozen=True)
class Entry:
  """One parameter.

  Attributes:
    path: our name, e.g. "layers.0.attn.i.weight".
    key: name in the Hugging Face state dict; ours, where there is none.
    shape: shape in both.
    kind: "table", "bounds", "gain", "matrix" (ternary), "dense", "bias",
      "threshold" or "table of thresholds".
  """

  path: str
  key: str
  shape: tuple[int, ...]
  kind: str


def _matmulfree(config: matmulfree.Config) -> tuple[Entry, ...]:
  sizes = {
    "V": config.vocab_size,
    "D": config.hidden_size,
    "E": config.state_size,
    "I": config.mlp_size,
    "G": 2 * config.mlp_size,
    "L": config.num_layers,
  }

  def rows(table, path="", key=""):
    for ours, theirs, shape, kind in table:
      dims = tuple(sizes[symbol] for symbol in shape)
      yield Entry(path + ours, key + theirs, dims, kind)

  out = list(rows(_TABLES))
  if not config.use_lower_bound:
    out = [e for e in out if e.kind != "bounds"]
  for i in range(config.num_layers):
    out += rows(_LAYER, f"layers.{i}.", f"model.layers.{i}.")
  return (*out, *rows(_HEAD))


def _gpt(config: gpt.Config) -> tuple[Entry, ...]:
  rows = gpt.parameters(config)
  return tuple(Entry(p.path, p.path, p.shape, p.kind) for p in rows)


_ENTRIES: dict[str, Callable[[Any], tuple[Entry, ...]]] = {
  "matmulfree": _matmulfree,
  "gpt": _gpt,
}


def entries(config: Any) -> tuple[Entry, ...]:
  """Every parameter of a model, in the order of the network."""
  return _ENTRIES[family_of(config).name](config)


def get(params: Any, path: str) -> Any:
  """The leaf at a path such as "layers.0.attn.i.weight".

  Raises:
    CheckpointError: there is none.
  """
  node = params
  for part in path.split("."):
    try:
      node = node[int(part)] if part.isdigit() else node[part]
    except (KeyError, IndexError, TypeError):
      raise CheckpointError(
        f"parameter {path}: not in the tree (nothing at {part!r}); allowed is"
        " the full tree of init_params of its family (jaxnmc.models)"
      ) from None
  return node


def checked(leaves: dict[str, Any], config: Any, name: str) -> dict[str, Any]:
  """Builds the tree of a config from named leaves.

  Args:
    leaves: path -> array or `Ternary`.
    config: sizes and options.
    name: file name for messages.

  Returns:
    Nested dicts and lists of the leaves.

  Raises:
    CheckpointError: leaves are missing, left over, or of another shape.
  """
  wanted = {e.path: e.shape for e in entries(config)}
  missing = sorted(wanted.keys() - leaves.keys())
  unused = sorted(leaves.keys() - wanted.keys())
  if missing or unused:
    raise CheckpointError(
      f"{name}: parameters missing: {', '.join(missing) or 'none'}; without a"
      f" place: {', '.join(unused) or 'none'}; the parameters do not belong to"
      " the config beside them"
    )
  for path, shape in wanted.items():
    if tuple(leaves[path].shape) != shape:
      raise CheckpointError(
        f"{name}: parameter {path}: found shape {list(leaves[path].shape)},"
        f" expected {list(shape)}; the parameters do not belong to the config"
        " beside them"
      )
  return build({path: leaves[path] for path in wanted})
