"""Where a command says things: tables to people, JSON to programs."""

import contextlib
import sys

from jaxnmc.report import files, tables


class Output:
  """Tables and lines on standard output; on stderr if JSON goes there."""

  def __init__(self, args):
    """Takes parsed arguments; refuses an impossible output file at once."""
    self.json = args.json
    files.check_writable(self.json)
    self.people = tables.console(stderr=self.json == "-")
    self.errors = tables.console(stderr=True)

  def table(self, title, columns, rows) -> None:
    """Prints a table."""
    self.people.print(tables.table(title, columns, rows))

  def line(self, text: str = "") -> None:
    """Prints text as it is."""
    self.people.print(text, markup=False, soft_wrap=True)

  def raw(self, text: str) -> None:
    """Writes text without a line end, at once."""
    self.people.file.write(text)
    self.people.file.flush()

  def notes(self, notes) -> None:
    """Notes go to stderr."""
    for note in notes:
      self.errors.print(f"note: {note}", markup=False, soft_wrap=True)

  def result(self, data) -> None:
    """Writes the JSON where it was asked for.

    Raises:
      OutputError: the file cannot be written.
    """
    files.write_json(self.json, data)

  def answer(self, data, indent: int | None = 1) -> None:
    """Writes the JSON to standard output, and to a file if one was asked for.

    Raises:
      OutputError: the file cannot be written.
    """
    files.write_json("-", data, indent)
    if self.json != "-":
      self.result(data)


def is_terminal() -> bool:
  """Whether a progress bar on stderr would be seen."""
  return sys.stderr.isatty()


@contextlib.contextmanager
def bar(what: str, total: int):
  """Yields `advance(n)`; draws a bar with an ETA on a terminal's stderr."""
  if not is_terminal():
    yield lambda ids: None
    return
  from rich import console, progress

  columns = (
    progress.TextColumn(what),
    progress.MofNCompleteColumn(),
    progress.BarColumn(),
    progress.TextColumn("ETA"),
    progress.TimeRemainingColumn(),
  )
  with progress.Progress(
    *columns, console=console.Console(stderr=True), transient=True
  ) as shown:
    task = shown.add_task(what, total=total)
    yield lambda ids: shown.advance(task, ids)
