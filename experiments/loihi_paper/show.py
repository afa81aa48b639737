"""The tables of loihi_tables on a terminal."""

import json
import pathlib

from jaxnmc.errors import UserError
from jaxnmc.report import tables

WIDTH = 100
_EVERY = (1, 2, 3, 4, 5, 6, 8, 12, 16, 20, 24)  # chips that are printed
_NOT = "-"


def measured(path: str) -> tuple[float, str]:
  """Share of the messages that is not zero, and where it comes from.

  Args:
    path: JSON of `shape_370m.py`.

  Raises:
    UserError: it cannot be read, or is something else.
  """
  try:
    data = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    walked = data["cost"]["synops_per_token"]["value"]
    chips = data["cost"]["per_chip"]
    share = walked / sum(row["weights"] for row in chips)
    tokens = data["prefill"] + data["decode"]
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(
      f"--activity {path}: no result of shape_370m.py ({error!r}); write one"
      " with its --json FILE"
    ) from error
  return share, f"{tokens} tokens of shape_370m.py, random weights"


def cell(figure) -> str:
  """Value and first letter of the label."""
  if figure.value is None:
    return f"{_NOT} {figure.label[0]}"
  value = figure.value
  if figure.unit == "%":
    return f"{value:+.1f} {figure.label[0]}"
  if float(value).is_integer() and abs(value) < 1e9:
    return f"{int(value):,} {figure.label[0]}"
  return f"{tables.number(float(value))} {figure.label[0]}"


def _best(name: str, cells: list) -> list[str]:
  """Cells with a star at the best one; equal ones have none."""
  shown, values = [cell(c) for c in cells], [c.value for c in cells]
  if len(set(values)) > 1:
    least = name.endswith("mJ")
    best = min(values) if least else max(values)
    shown = [f"*{s}" if v == best else s for s, v in zip(shown, values)]
  return shown


def shown(table) -> list[list[str]]:
  """Rows as text, filled up to the number of columns."""
  out = []
  for name, cells in table.rows:
    if table.name.startswith("scaling") and int(name) not in _EVERY:
      continue
    text = [cell(c) for c in cells]
    if table.name.startswith("lengths"):
      text = _best(name, cells)
    out.append([name, *text, *[""] * (len(table.columns) - 1 - len(cells))])
  return out


def show(config, found: list) -> None:
  """Prints all tables of the model of these sizes."""
  people = tables.console()
  people.width = WIDTH
  people.print(
    f"370M: {config.num_layers} blocks of width {config.hidden_size}, GLU"
    f" {config.mlp_size}; network from these sizes (jaxnmc.chip.outline), no"
    " weights; embedding and head on the host.\n"
    "Every figure: q quoted, f fitted to these rows, p predicted, m modelled.\n"
    "bare: published constants only. F, d, x: shortest step, more on several"
    " chips, more where a vector crosses.\n",
    markup=False,
  )
  for table in found:
    head = (table.columns[0], *(f">{c}" for c in table.columns[1:]))
    people.print(tables.table(table.title, head, shown(table)))
    for note in table.notes:
      people.print(f"* {note}", markup=False)
    people.print()


def prefill_error(found: list) -> float:
  """Percent by which the predicted prefill step of one chip is off."""
  (table,) = (t for t in found if t.name == "prefill_step")
  by_name = dict(table.rows)
  return by_name["predicted step, us"][1].value
