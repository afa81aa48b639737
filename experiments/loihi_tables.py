"""The paper's tables and figures for 370M on Loihi 2, ours beside them.

Claim: one chip's prefill step of a 370M block follows from its stored weights,
their balance over 120 cores and the published time of a synaptic operation,
within 5 % of the published step and without any row of the paper. What does not
follow is printed as fitted, as not identified, or with its error.

  python experiments/loihi_tables.py
  python experiments/loihi_tables.py --json tables.json --plot figures

Comes out: Abreu et al. 2025, Tables 2 to 4 and Figures 4 and 5, beside one
block on one chip, 24 blocks on 24 chips and two larger models. The network is
built from the sizes of the model, without weights (`jaxnmc.chip.outline`), and
priced at full activity; `--activity` takes a result of `shape_370m.py` for a
measured one. The exit status is 1 if the prefill step is off by over 5 %.
"""

import json
import pathlib
import sys

import loihi_more as more
import loihi_rows as rows
from absl import app, flags

from jaxnmc.errors import UserError
from jaxnmc.report import files, tables

_JSON = flags.DEFINE_string("json", None, "Also write all figures here.")
_PLOT = flags.DEFINE_string("plot", None, "Folder for plots (matplotlib).")
_ACTIVITY = flags.DEFINE_string(
  "activity", None, "JSON of shape_370m.py: its measured activity."
)
_SMOKE = flags.DEFINE_bool("smoke", False, "As ever: it takes seconds.")

WIDTH = 100
TOLERANCE = 5.0  # percent
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


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f"unknown arguments: {argv[1:]}")
  try:
    files.check_writable(_JSON.value)
    activity = measured(_ACTIVITY.value) if _ACTIVITY.value else None
    made = rows.Experiment()
    found = made.tables() + more.tables(made, activity)
    show(made.config, found)
    error = prefill_error(found)
    data = {
      "experiment": "loihi_tables",
      "network": "from the sizes of the model, without weights",
      "prefill_step_error_percent": error,
      "tables": rows.plain(found),
    }
    files.write_json(_JSON.value, data)
    if _PLOT.value:
      import loihi_plots

      for path in loihi_plots.save(found, _PLOT.value):
        print(f"wrote {path}")
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
  good = abs(error) <= TOLERANCE
  print(
    f"prefill step of one chip: {error:+.1f} % of the published one"
    f" ({'within' if good else 'not within'} {TOLERANCE:g} %)"
  )
  sys.exit(0 if good else 1)


if __name__ == "__main__":
  app.run(main)
