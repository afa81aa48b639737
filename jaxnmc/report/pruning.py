"""What pruning took from a transformer, layer by layer."""

from collections.abc import Mapping
from typing import Any

from jaxnmc.compress import masks
from jaxnmc.models import gpt
from jaxnmc.report import tables

__all__ = ["layers", "show", "totals"]

_BYTES = 4  # of a float32


def _sizes(config: gpt.Config) -> dict[str, int]:
  """Number of parameters by layer ("0", "1", ...), and of the "rest"."""
  found = {str(index): 0 for index in range(config.num_layers)} | {"rest": 0}
  for row in gpt.parameters(config):
    first, second = row.path.split(".")[:2]
    size = 1
    for n in row.shape:
      size *= n
    found[second if first == "layers" else "rest"] += size
  return found


def layers(
  before: gpt.Config, after: gpt.Config, params: Mapping
) -> list[dict[str, Any]]:
  """A row per layer; pairs are [before, after].

  Args:
    before: config of the model that was pruned.
    after: of what came out.
    params: its parameters.

  Returns:
    layer, heads (query heads), units, parameters, bytes (as float32), all
    measured; zeros: share of zero weights of its projections, after.
  """
  sizes = [_sizes(config) for config in (before, after)]
  zero = masks.zeros(params)
  rows = []
  for index, both in enumerate(zip(before.layers, after.layers, strict=True)):
    own = [v for k, v in zero.items() if k.startswith(f"layers.{index}.")]
    count = [size[str(index)] for size in sizes]
    rows.append(
      {
        "layer": index,
        "heads": [here.num_heads for here in both],
        "units": [here.mlp_size for here in both],
        "parameters": count,
        "bytes": [_BYTES * n for n in count],
        "zeros": sum(z for z, _ in own) / sum(n for _, n in own),
      }
    )
  return rows


def totals(
  before: gpt.Config, after: gpt.Config, params: Mapping
) -> dict[str, Any]:
  """Of the whole model: as a row of `layers`, embeddings and head included."""
  rows = layers(before, after, params)
  zero = masks.zeros(params).values()
  count = [config.num_params for config in (before, after)]
  return {
    "heads": [sum(row["heads"][i] for row in rows) for i in (0, 1)],
    "units": [sum(row["units"][i] for row in rows) for i in (0, 1)],
    "parameters": count,
    "bytes": [_BYTES * n for n in count],
    "zeros": sum(z for z, _ in zero) / sum(n for _, n in zero),
  }


def show(people, data: Mapping[str, Any]) -> None:
  """Prints the table.

  Args:
    people: a console.
    data: {"layers": of `layers`, "total": of `totals`}; "all" is the whole
      model, with embeddings and head.
  """
  pair = lambda both: f"{both[0]} → {both[1]}"
  body = [
    (
      name,
      pair(row["heads"]),
      pair(row["units"]),
      f"{row['parameters'][1]:,}",
      f"{100 * row['parameters'][1] / row['parameters'][0]:.1f}",
      f"{row['bytes'][1] / 1e6:.2f}",
      f"{100 * row['zeros']:.1f}",
    )
    for name, row in (
      *((row["layer"], row) for row in data["layers"]),
      ("all", data["total"]),
    )
  ]
  before = {name: data["total"][name][0] for name in ("parameters", "bytes")}
  people.print(
    tables.table(
      f"What is left of {before['parameters']:,} parameters,"
      f" {tables.size(before['bytes'])} as float32 (measured)",
      (
        *("layer", ">heads", ">units", ">parameters", ">left, %"),
        *(">MB", ">zeros, %"),
      ),
      body,
    )
  )
