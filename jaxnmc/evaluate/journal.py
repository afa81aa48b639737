"""A journal of answers, so that an interrupted evaluation goes on.

JSON lines.  The first is the head: what every answer depends on (hashes of task
file, weights and plan, backend, versions).  A journal with another head is
refused, because answers of two models must not become one figure.  A last
line that was being written when the process died is dropped.
"""

import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from jaxnmc.errors import UserError
from jaxnmc.evaluate.choices import Answer
from jaxnmc.evaluate.tasks import Task
from jaxnmc.io import files

FORMAT = "jaxnmc-journal-1"


class JournalError(UserError):
  """A journal is damaged, or belongs to another evaluation."""


class Journal:
  """Answers of one task by one model, in a file.

  Attributes:
    path: the file.
    done: the answers in it, by id.
  """

  def __init__(
    self, path: str | os.PathLike, head: Mapping[str, Any], task: Task
  ):
    """Opens a journal, or begins one.

    Args:
      path: the file; its folder must exist.
      head: JSON object of all that the answers depend on.
      task: whose items are answered, all of them: an item beyond a limit may
        have its answer.

    Raises:
      JournalError: it cannot be read or written, is damaged, or belongs to
        another evaluation.
    """
    self.path = pathlib.Path(path)
    head = {"journal": FORMAT, **json.loads(json.dumps(dict(head)))}
    try:
      data = self.path.read_bytes() if self.path.exists() else b""
      whole = data[: data.rfind(b"\n") + 1]
      lines = whole.splitlines()
      self.done: dict[str, Answer] = {}
      if lines:
        self._check(self._line(lines[0], 1), head)
        self._read(lines[1:], task)
      if whole != data or not lines:
        first = (json.dumps(head) + "\n").encode("utf-8")
        files.write_bytes(self.path, whole or first)
      self._file = self.path.open("ab")
    except OSError as error:
      raise JournalError(
        f"{self.path}: journal cannot be opened ({error.strerror}); name a"
        " folder that can be written"
      ) from error

  def _line(self, line: bytes, number: int) -> dict[str, Any]:
    try:
      data = json.loads(line.decode("utf-8"))
    except ValueError:
      data = None
    if not isinstance(data, dict):
      raise JournalError(
        f"{self.path}: line {number} is no JSON object; the journal is"
        " damaged: delete it to begin again"
      )
    return data

  def _check(self, found: dict[str, Any], head: dict[str, Any]) -> None:
    for field in dict.fromkeys((*head, *found)):
      old, new = found.get(field), head.get(field)
      if old != new:
        raise JournalError(
          f"{self.path}: the journal is of another evaluation: its {field} is"
          f" {_short(old)}, now it is {_short(new)}; name another folder, or"
          " delete the journal to begin again"
        )

  def _read(self, lines: list[bytes], task: Task) -> None:
    items = {item.id: item for item in task.items}
    for number, line in enumerate(lines, start=2):
      data = self._line(line, number)
      try:
        one = Answer(
          data["id"],
          data["label"],
          tuple(map(float, data["log_p"])),
          tuple(map(int, data["bytes"])),
        )
        item = items[one.id]
        right = one.label == item.label and (
          len(one.log_p) == len(one.bytes) == len(item.choices)
        )
      except (KeyError, TypeError, ValueError):
        right = False
      if not right:
        raise JournalError(
          f"{self.path}: line {number} is no answer to an item of"
          f" {task.name}; the journal is damaged: delete it to begin again"
        )
      self.done[one.id] = one

  def write(self, answers: Iterable[Answer]) -> None:
    """Appends answers; they are on the disk when this returns.

    Raises:
      JournalError: the system refuses.
    """
    try:
      for one in answers:
        record = {
          "id": one.id,
          "label": one.label,
          "log_p": one.log_p,
          "bytes": one.bytes,
        }
        self._file.write((json.dumps(record) + "\n").encode("utf-8"))
      self._file.flush()
      os.fsync(self._file.fileno())
    except OSError as error:
      raise JournalError(
        f"{self.path}: journal cannot be written ({error.strerror}); make room"
        " and call again: it goes on from here"
      ) from error

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


def _short(value: Any) -> str:
  text = json.dumps(value)
  return text if len(text) <= 80 else text[:77] + "..."
