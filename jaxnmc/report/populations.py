"""The populations of a placed network: who they are, and how much of them."""

from typing import Any

import numpy as np

from jaxnmc.chip.placement.tiles import layer_text
from jaxnmc.report import tables

_COLUMNS = {
  "role": "population",
  "layers": "layers",
  "neurons": ">neurons",
  "ports": ">ports",
  "words": ">words",
  "tiles": ">tiles",
  "weights": ">weights",
}


def population_rows(placement) -> list[dict[str, Any]]:
  """Populations of a placement, those of one role in one row, ready for JSON.

  Args:
    placement: result of `place`.

  Returns:
    Rows in order of the network.  Keys: role (the name, the layer replaced by
    `*`), where (cores or host), populations (how many), layers; then of all of
    them neurons, tiles and weights (stored on cores), and of one neuron ports
    (accumulators), states (recurrent words) and words (with what waits).
  """
  groups: dict[tuple, list] = {}
  for p, mine in zip(placement.network.populations, placement.tiles_of):
    where = "cores" if len(mine) else "host"
    shape = (p.width, len(p.ports), len(p.states), p.words)
    groups.setdefault((p.role, where, *shape), []).append((p, mine))
  rows = []
  for (role, where, width, ports, states, words), found in groups.items():
    tiles = np.concatenate([np.asarray(mine, int) for _, mine in found])
    rows.append(
      {
        "role": role,
        "where": where,
        "populations": len(found),
        "layers": layer_text(p for p, _ in found if p.layer is not None),
        "neurons": width * len(found),
        "ports": ports,
        "states": states,
        "words": words,
        "tiles": len(tiles),
        "weights": int(placement.stored[tiles].sum()) if len(tiles) else 0,
      }
    )
  return rows


def population_table(rows: list[dict[str, Any]]):
  """The rows of `population_rows` for a terminal."""

  def shown(row: dict[str, Any]) -> list:
    row = {**row, "role": row["role"].removeprefix("layers.*.")}
    if row["where"] == "host":
      row |= {"tiles": "host", "weights": ""}
    return [row[key] for key in _COLUMNS]

  return tables.table(
    "Populations by role, all layers together (ports and words of one neuron)",
    list(_COLUMNS.values()),
    list(map(shown, rows)),
  )
