"""Tables of 80 columns."""

import sys
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

WIDTH = 80


def console(stderr: bool = False) -> Console:
  """A console of 80 columns; plain text where it is no terminal."""
  file = sys.stderr if stderr else sys.stdout
  return Console(file=file, width=WIDTH, highlight=False, soft_wrap=False)


def table(
  title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> Group:
  """A table; a column name that begins with '>' is right-aligned.

  Args:
    title: shown above.
    columns: names.
    rows: cells, shown with `number`.

  Returns:
    A title and a table that folds long cells rather than cutting them.
  """
  found = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
  for name in columns:
    right = name.startswith(">")
    found.add_column(
      name.removeprefix(">"),
      justify="right" if right else "left",
      overflow="fold",
      no_wrap=right,
    )
  for row in rows:
    found.add_row(*(Text(number(cell)) for cell in row))
  return Group(Text(title, style="bold"), found, Text())


def number(value: Any) -> str:
  """A value for people: thousands separators, four significant digits."""
  if value is None:
    return "unknown"
  if isinstance(value, bool):
    return "yes" if value else "no"
  if isinstance(value, int):
    return f"{value:,}"
  if isinstance(value, float):
    if value == 0:
      return "0"
    if abs(value) >= 1e15 or abs(value) < 1e-3:
      return f"{value:.3g}"
    if abs(value) >= 1000:
      return f"{value:,.0f}"
    return f"{value:.4g}"
  return str(value)


def size(count: int | float) -> str:
  """Bytes for people, in units of 1000: 1.50 kB."""
  if count < 1000:
    return f"{count:.0f} B"
  for unit in ("kB", "MB"):
    count /= 1000
    if count < 1000:
      return f"{count:.2f} {unit}"
  return f"{count / 1000:.2f} GB"
