"""Run logs: JSONL always, TensorBoard and a progress bar when asked."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from jaxnmc import _extras
from jaxnmc.io import files


class JsonLines:
  """One JSON object a line, each with a `step`; continued after a restart."""

  def __init__(self, path: str | os.PathLike, done: int):
    """Opens the log and drops what will be computed again.

    Args:
      path: the file.
      done: steps already done; later records are dropped, and so is a last
        line that a killed process left unfinished.
    """
    path = pathlib.Path(path)
    if path.exists():
      kept = [
        line
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True)
        if line.endswith("\n") and _step_of(line) <= done
      ]
      files.write_bytes(path, "".join(kept).encode("utf-8"))
    self._file = path.open("a", encoding="utf-8")

  def write(self, **record: Any) -> None:
    """Appends a record; it is in the file when this returns."""
    self._file.write(json.dumps(record) + "\n")
    self._file.flush()

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


def _step_of(line: str) -> float:
  try:
    return json.loads(line)["step"]
  except (ValueError, KeyError, TypeError):
    return float("inf")


class TensorBoard:
  """Scalars for TensorBoard (extra `track`)."""

  def __init__(self, directory: str | os.PathLike, done: int):
    """Continues after step `done`.

    Raises:
      MissingExtra: without the package `tensorboardX`.
    """
    writer = _extras.need("tensorboardX", "track").SummaryWriter
    # TensorBoard itself then hides what an interrupted run had logged later.
    self._writer = writer(str(directory), purge_step=done + 1)

  def write(self, step: int, **scalars: float) -> None:
    """Adds scalars of one step."""
    for name, value in scalars.items():
      if isinstance(value, int | float):
        self._writer.add_scalar(name, value, step)

  def close(self) -> None:
    """Flushes and closes."""
    self._writer.close()


@contextlib.contextmanager
def progress(total: int, done: int, show: bool) -> Iterator[Any]:
  """Draws a bar on stderr.

  Args:
    total: steps in all.
    done: steps done before.
    show: whether to draw it.

  Yields:
    `advance(step, tokens_per_s, mfu, **shown)`; `mfu` is a share, or None.
  """
  if not show:
    yield lambda step, tokens_per_s, mfu, **shown: None
    return
  from rich import console
  from rich import progress as bars

  columns = (
    bars.TextColumn("step"),
    bars.MofNCompleteColumn(),
    bars.BarColumn(),
    bars.TextColumn("{task.fields[speed]}  {task.fields[shown]}"),
    bars.TextColumn("ETA"),
    bars.TimeRemainingColumn(),
  )
  with bars.Progress(*columns, console=console.Console(stderr=True)) as bar:
    task = bar.add_task(
      "train", total=total, completed=done, speed="- tokens/s", shown=""
    )

    def advance(
      step: int, tokens_per_s: float, mfu: float | None, **shown: float
    ) -> None:
      speed = f"{tokens_per_s:,.0f} tokens/s"
      if mfu is not None:
        speed += f"  {mfu:.1%} of peak"
      text = "  ".join(f"{k} {v:.3f}" for k, v in shown.items())
      bar.update(task, completed=step, speed=speed, shown=text)

    yield advance
