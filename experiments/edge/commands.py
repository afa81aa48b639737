"""Spoken commands: files of them, as text with the intent behind it.

A document is `turn on the lights<|intent|><|iot_hue_lighton|>`: whoever reads
as far as `<|intent|>` has the intent as the next token. What has no intent we
know of is text alone, and teaches how commands go on.
"""

import csv
import dataclasses
import io
import json
import random
import re
from collections.abc import Sequence

from jaxnmc.errors import UserError
from jaxnmc.evaluate.text import read_text
from jaxnmc.train import data

ASK = "intent"  # the label that asks for one
SPARE = 16  # labels for commands that a user teaches later
_BLANK = re.compile(r"<(\w+)>")


class CommandError(UserError):
  """A file of commands cannot be used."""


@dataclasses.dataclass(frozen=True)
class Command:
  """What was said and what was meant."""

  text: str
  intent: str


def spare(k: int) -> str:
  """The label of the k-th new command."""
  return f"user_{k}"


def read(path: str) -> list[Command]:
  """Commands of a JSON-lines file (.gz allowed) with `text` and `intent`.

  Raises:
    CommandError: a line is no such object; it names the line.
  """
  found = []
  for number, line in enumerate(read_text(path).splitlines(), 1):
    try:
      row = json.loads(line)
      command = Command(row["text"], row["intent"])
      if not (command.text and isinstance(command.text, str)):
        raise ValueError("empty")
      if not re.fullmatch(r"\w+", command.intent, re.ASCII):
        raise ValueError("intent")
    except (ValueError, KeyError, TypeError) as error:
      raise CommandError(
        f"{path}: line {number}: found {line[:60]!r}, allowed is a JSON object"
        " with 'text' and 'intent' (a word of letters, digits and _)"
      ) from error
    found.append(command)
  if not found:
    raise CommandError(f"{path}: has no commands; give a file with some")
  return found


def phrases(path: str, rng: random.Random) -> list[str]:
  """Column `phrase` of a CSV file; blanks like `<temp_f>` are filled in.

  Raises:
    CommandError: there is no such column.
  """
  rows = list(csv.DictReader(io.StringIO(read_text(path))))
  if not rows or "phrase" not in rows[0]:
    raise CommandError(
      f"{path}: found the columns {list(rows[0]) if rows else []}, allowed is a"
      " CSV file with a column 'phrase'"
    )
  return [_filled(row["phrase"], rng) for row in rows]


def _filled(phrase: str, rng: random.Random) -> str:
  rooms = ("kitchen", "bedroom", "garage", "hall", "office", "porch")
  things = ("light", "lamp", "fan", "blinds", "heater", "speaker", "door")
  numbers = {"temp_f": (60, 85), "temp_c": (16, 28), "brightness": (1, 100)}

  def value(match) -> str:
    name = match[1]
    if name in numbers:
      return str(rng.randint(*numbers[name]))
    if name == "device_name":
      return f"{rng.choice(rooms)} {rng.choice(things)}"
    return name.replace("_", " ")

  return _BLANK.sub(value, phrase)


def document(command: Command) -> str:
  """A command as the model is trained on it."""
  return f"{question(command.text)}<|{command.intent}|>"


def question(text: str) -> str:
  """What is asked; the next token is the intent."""
  return f"{text}<|{ASK}|>"


@dataclasses.dataclass(frozen=True)
class Corpus:
  """All text of a run.

  Attributes:
    intents: their names, in order.
    train: commands to learn.
    test: a tenth of them, of which nothing is learned.
    more: text without intents.
    general: text about other things.
    new: commands that come later, for learning on the chip.
    new_test: such commands, to see what was learned.
  """

  intents: tuple[str, ...]
  train: Sequence[Command]
  test: Sequence[Command]
  more: Sequence[str]
  general: Sequence[str]
  new: Sequence[Command] = ()
  new_test: Sequence[Command] = ()

  @property
  def labels(self) -> tuple[str, ...]:
    """Of the tokenizer."""
    return (ASK, *self.intents, *(spare(k) for k in range(SPARE)))

  @property
  def new_intents(self) -> tuple[str, ...]:
    """What is learned on the chip; the k-th gets the label `spare(k)`."""
    return tuple(sorted({command.intent for command in self.new}))

  def documents(self, seed: int = 0) -> list[str]:
    """All that is trained on, mixed."""
    found = [document(command) for command in self.train]
    found += [*self.more, *self.general]
    random.Random(seed).shuffle(found)
    return found


def split(commands: Sequence[Command]) -> tuple[list[Command], list[Command]]:
  """(nine tenths, one tenth), chosen by a hash of the text."""
  _, held = data.hold_out([command.text for command in commands], 0.1)
  tenth = set(held)
  parts: tuple[list[Command], list[Command]] = ([], [])
  for command in commands:
    parts[command.text in tenth].append(command)
  return parts


def read_corpus(
  labelled: str,
  more: Sequence[str],
  general: Sequence[str],
  new: tuple[str, str] | None,
  new_intents: Sequence[str],
  most_more: int,
  most_general: int,
  seed: int = 0,
) -> Corpus:
  """Reads the files of a run.

  Args:
    labelled: commands with the intents to learn; a tenth becomes the test.
    more: commands (JSON lines) or phrases (CSV) whose text is read.
    general: plain text.
    new: (training, test) files with the new commands, or None.
    new_intents: which of their intents are new; of no other file is a text of
      them read.
    most_more: texts of each file of `more`.
    most_general: bytes of each file of `general`.
    seed: of the choice.

  Raises:
    UserError: a file is missing or has something else in it; an intent that
      was never seen.
  """
  rng = random.Random(seed)
  train, test = split(read(labelled))
  intents = tuple(sorted({command.intent for command in train}))
  unseen = {c.intent for c in test} - set(intents)
  if unseen:
    raise CommandError(
      f"{labelled}: the intents {sorted(unseen)} are in the held-out tenth only"
      " and would never be learned; give more examples of them, or drop them"
    )
  tested = {c.text for c in test}
  texts = []
  for path in more:
    if path.endswith(".csv"):
      found = phrases(path, rng)
    else:
      found = [c.text for c in read(path) if c.intent not in new_intents]
    found = [text for text in dict.fromkeys(found) if text not in tested]
    texts += rng.sample(found, min(most_more, len(found)))
  prose = []
  for path in general:
    lines = (line.strip() for line in read_text(path).splitlines())
    size = 0
    for line in lines:
      if len(line) > 80:
        prose.append(line)
        size += len(line.encode())
      if size > most_general:
        break
  later: list[list[Command]] = [[], []]
  for k, path in enumerate(new or ()):
    later[k] = [c for c in read(path) if c.intent in new_intents]
    missing = set(new_intents) - {c.intent for c in later[k]}
    if missing:
      raise CommandError(
        f"{path}: has no commands of the new intents {sorted(missing)}; allowed"
        " are intents of the file"
      )
  if len(set(new_intents)) > SPARE:
    raise CommandError(
      f"new intents: found {len(set(new_intents))}, allowed are at most {SPARE}"
    )
  return Corpus(intents, train, test, texts, prose, *later)
