"""A journal of results, so that an interrupted evaluation goes on.

JSON lines.  The first is the head: what every result depends on (hashes of text
or task file, weights and plan, backend, versions).  A journal with another head
is refused, because results of two models must not become one figure.  A last
line that was being written when the process died is dropped.
"""

import json
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

from jaxnmc.errors import UserError
from jaxnmc.evaluate.bits import Part
from jaxnmc.evaluate.choices import Answer
from jaxnmc.evaluate.tasks import Task
from jaxnmc.io import files

FORMAT = "jaxnmc-journal-1"

K = TypeVar("K")
V = TypeVar("V")


class JournalError(UserError):
  """A journal is damaged, or belongs to another evaluation."""


class Journal(Generic[K, V]):
  """Results of one evaluation, in a file; see `answers` and `parts`.

  Attributes:
    path: the file.
    done: the results in it, by key.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    head: Mapping[str, Any],
    parse: Callable[[dict[str, Any]], tuple[K, V]],
  ):
    """Opens a journal, or begins one.

    Args:
      path: the file; its folder must exist.
      head: JSON object of all that the results depend on.
      parse: key and result of a record; a KeyError, TypeError or ValueError
        where it is none.

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
      self.done: dict[K, V] = {}
      if lines:
        self._check(self._line(lines[0], 1), head)
        self._read(lines[1:], parse)
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

  def _read(self, lines: list[bytes], parse: Callable) -> None:
    for number, line in enumerate(lines, start=2):
      data = self._line(line, number)
      try:
        key, value = parse(data)
      except (KeyError, TypeError, ValueError) as error:
        raise JournalError(
          f"{self.path}: line {number} is no result of this evaluation; the"
          " journal is damaged: delete it to begin again"
        ) from error
      self.done[key] = value

  def write(self, records: Iterable[Mapping[str, Any]]) -> None:
    """Appends records; they are on the disk when this returns.

    Raises:
      JournalError: the system refuses.
    """
    try:
      for record in records:
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


class Answers(Journal[str, Answer]):
  """Answers to the items of a task, by id."""

  def __init__(
    self, path: str | os.PathLike, head: Mapping[str, Any], task: Task
  ):
    """Opens or begins the journal of a task.

    Args:
      path: as for `Journal`.
      head: as for `Journal`.
      task: whose items are answered, all of them: an item beyond a limit may
        have its answer.
    """
    items = {item.id: item for item in task.items}

    def parse(data: dict[str, Any]) -> tuple[str, Answer]:
      one = Answer(
        data["id"],
        data["label"],
        tuple(map(float, data["log_p"])),
        tuple(map(int, data["bytes"])),
      )
      item = items[one.id]
      sizes = {len(one.log_p), len(one.bytes), len(item.choices)}
      if one.label != item.label or len(sizes) > 1:
        raise ValueError("an answer to another item")
      return one.id, one

    super().__init__(path, head, parse)

  def keep(self, answers: Iterable[Answer]) -> None:
    """Appends answers."""
    self.write(
      {"id": a.id, "label": a.label, "log_p": a.log_p, "bytes": a.bytes}
      for a in answers
    )


class Parts(Journal[int, Part]):
  """Scores of the documents or windows of a text, by place."""

  def __init__(self, path: str | os.PathLike, head: Mapping[str, Any]):
    """Opens or begins the journal of a text; arguments as for `Journal`."""

    def parse(data: dict[str, Any]) -> tuple[int, Part]:
      digest = data["digest"]
      if digest is not None and len(bytes.fromhex(digest)) != 32:
        raise ValueError("no SHA-256")
      numbers = (int(data["ids"]), int(data["integers"]))
      return int(data["place"]), Part(float(data["nats"]), *numbers, digest)

    super().__init__(path, head, parse)

  def keep(self, parts: Mapping[int, Part]) -> None:
    """Appends scores."""
    self.write(
      {"place": place, **part._asdict()} for place, part in parts.items()
    )


def _short(value: Any) -> str:
  text = json.dumps(value)
  return text if len(text) <= 80 else text[:77] + "..."
