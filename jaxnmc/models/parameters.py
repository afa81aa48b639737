"""Parameters of a model as a list: path, shape, kind."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Parameter:
  """One parameter.

  Attributes:
    path: e.g. "layers.0.attn.q.weight".
    shape: of the array.
    kind: "table" (embeddings), "matrix" (ternary), "dense", "gain", "bias",
      "threshold" (its logarithm) or "table of thresholds".
    std: standard deviation of its first values; 0 for gains and biases.
  """

  path: str
  shape: tuple[int, ...]
  kind: str
  std: float = 0.0


def build(leaves: dict[str, Any], separator: str = ".") -> dict[str, Any]:
  """{"layers.0.norm": x, ...} -> nested dicts, lists where keys are numbers."""
  nested: dict[str, Any] = {}
  for path, leaf in leaves.items():
    *parents, last = path.split(separator)
    node = nested
    for parent in parents:
      node = node.setdefault(parent, {})
    node[last] = leaf
  return _lists(nested)


def _lists(node: Any) -> Any:
  if not isinstance(node, dict):
    return node
  if node and all(key.isdigit() for key in node):
    return [_lists(node[key]) for key in sorted(node, key=int)]
  return {key: _lists(value) for key, value in node.items()}
