"""What is not the same on the two sides of a NIR file, node by node."""

import dataclasses

__all__ = ["Note", "Report"]


@dataclasses.dataclass(frozen=True)
class Note:
  """One thing that NIR cannot say, or that our integers cannot hold.

  Attributes:
    node: name of the node, population or connection.
    kind: its type.
    what: what is lost or changed.
  """

  node: str
  kind: str
  what: str

  def __str__(self) -> str:
    return f"{self.node} ({self.kind}): {self.what}"


@dataclasses.dataclass
class Report:
  """Notes in the order in which they were made.

  Attributes:
    lost: what the result does not do as the original does.
    rules: conventions that hold and lose nothing (a step of lag, a new name).
  """

  lost: list[Note] = dataclasses.field(default_factory=list)
  rules: list[Note] = dataclasses.field(default_factory=list)

  def lose(self, node: str, kind: str, what: str) -> None:
    """Adds a note on something lost, once."""
    note = Note(node, kind, what)
    if note not in self.lost:
      self.lost.append(note)

  def tell(self, node: str, kind: str, what: str) -> None:
    """Adds a note on a convention."""
    self.rules.append(Note(node, kind, what))

  def __str__(self) -> str:
    lines = [f"lost: {len(self.lost)}", *(f"  {n}" for n in self.lost)]
    lines += [f"conventions: {len(self.rules)}"]
    return "\n".join([*lines, *(f"  {n}" for n in self.rules)])
