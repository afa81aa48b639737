"""Multiple-choice tasks: files of items, and what of an item is scored.

A file has one JSON object a line, `{"id", "question", "choices", "label"}`;
`label` is the index of the right choice.  A form says which text is given and
which is scored; those here are the forms of lm-evaluation-harness, so that
figures can be put beside published ones:

| form        | given                          | scored for each choice      |
| ----------- | ------------------------------ | --------------------------- |
| `plain`     | the question                   | blank, choice               |
| `question`  | `Question: ... Answer:`        | blank, choice               |
| `blank`     | up to `_`, the choice in place | blank, rest of the sentence |
| `hellaswag` | the question, marks taken out  | blank, choice, marks out    |
"""

import json
import pathlib
import re
from typing import Any, NamedTuple

from jaxnmc.evaluate import provenance
from jaxnmc.evaluate.text import DataError, read_text

FORMS = ("plain", "question", "blank", "hellaswag")
# How well-known sets are asked, by the names of their files.
_KNOWN = {
  "arc_easy": "question",
  "arc_challenge": "question",
  "hellaswag": "hellaswag",
  "openbookqa": "plain",
  "piqa": "question",
  "winogrande": "blank",
}
_FIELDS = ("id", "question", "choices", "label")
_ALLOWED = 'allowed is {"id", "question", "choices", "label"}'
_BLANK = "_"


class Item(NamedTuple):
  """One question.

  Attributes:
    id: its name, once in a file.
    question: text.
    choices: two texts or more, none of them empty.
    label: index of the right choice.
  """

  id: str
  question: str
  choices: tuple[str, ...]
  label: int


class Task(NamedTuple):
  """The items of a file.

  Attributes:
    name: of the file, without its ending.
    path: of the file.
    form: one of `FORMS`.
    sha256: of the file, hex.
    items: in the order of the file.
  """

  name: str
  path: str
  form: str
  sha256: str
  items: tuple[Item, ...]


class Query(NamedTuple):
  """What is scored for one choice: ln p(continuation | context).

  Attributes:
    context: text that is given.
    continuation: text to score, its blank in front.
    size: UTF-8 bytes of the continuation without that blank.
  """

  context: str
  continuation: str
  size: int


def form_of(name: str) -> str:
  """The form of a set of this name; `plain` for one that is not known."""
  return _KNOWN.get(name, "plain")


def read(path: str, form: str | None = None) -> Task:
  """Reads a task file, plain or `.gz`.

  Args:
    path: the file.
    form: one of `FORMS`; None: by the name of the file.

  Returns:
    The task.

  Raises:
    DataError: the file cannot be read, or an item of it cannot be used; the
      message has the line and the field.
  """
  name = pathlib.Path(path).name.removesuffix(".gz").removesuffix(".jsonl")
  form = form_of(name) if form is None else form
  if form not in FORMS:
    raise DataError(
      f"form of task {name}: found {form!r}, allowed are {', '.join(FORMS)}"
    )
  items: list[Item] = []
  lines: dict[str, int] = {}
  # Only line ends part lines: U+2028, say, may stand inside of a text.
  for number, line in enumerate(read_text(path).split("\n"), start=1):
    if not line.strip():
      continue
    where = f"{path}: line {number}"
    item = _item(line, where, form)
    if item.id in lines:
      raise DataError(
        f"{where}: field 'id': {item.id!r} is that of line {lines[item.id]},"
        " too; allowed is one item of a name"
      )
    lines[item.id] = number
    items.append(item)
  if not items:
    raise DataError(f"{path}: found no item; allowed is one JSON object a line")
  return Task(name, str(path), form, provenance.file_sha256(path), tuple(items))


def _item(line: str, where: str, form: str) -> Item:
  try:
    data = json.loads(line)
  except (ValueError, RecursionError) as error:
    raise DataError(f"{where}: is no JSON ({error}); {_ALLOWED}") from error
  if not isinstance(data, dict):
    kind = type(data).__name__
    raise DataError(f"{where}: found a JSON {kind}; {_ALLOWED}")
  for field in _FIELDS:
    if field not in data:
      raise DataError(f"{where}: field {field!r} is missing; {_ALLOWED}")
  item = Item(
    _name(data["id"], where),
    _text(data["question"], where, "question"),
    _choices(data["choices"], where),
    data["label"],
  )
  label, last = item.label, len(item.choices) - 1
  if type(label) is not int or not 0 <= label <= last:
    raise DataError(
      f"{where}: field 'label': found {label!r}; allowed is the index of the"
      f" right choice, 0 to {last}"
    )
  if form == "blank" and item.question.count(_BLANK) != 1:
    raise DataError(
      f"{where}: field 'question': found {item.question.count(_BLANK)} times"
      f" {_BLANK!r}; form 'blank' puts the choices in place of exactly one"
    )
  if form == "blank" and not item.question.partition(_BLANK)[2].strip():
    raise DataError(
      f"{where}: field 'question': nothing follows {_BLANK!r}; form 'blank'"
      " scores what does"
    )
  return item


def _name(value: Any, where: str) -> str:
  if isinstance(value, int) and not isinstance(value, bool):
    return str(value)
  return _text(value, where, "id")


def _text(value: Any, where: str, field: str) -> str:
  if not isinstance(value, str) or not value.strip():
    raise DataError(
      f"{where}: field {field!r}: found {value!r}; allowed is a text that is"
      " not empty"
    )
  try:
    value.encode("utf-8")
  except UnicodeEncodeError as error:
    raise DataError(
      f"{where}: field {field!r}: character {error.start} is half of a"
      " surrogate pair, which has no UTF-8 form; write the whole character"
    ) from error
  return value


def _choices(value: Any, where: str) -> tuple[str, ...]:
  if not isinstance(value, list) or len(value) < 2:
    raise DataError(
      f"{where}: field 'choices': found {value!r}; allowed is a list of two"
      " texts or more"
    )
  return tuple(
    _text(choice, where, f"choices[{k}]") for k, choice in enumerate(value)
  )


def _without_marks(text: str) -> str:
  """HellaSwag's own text: WikiHow left marks in brackets in it."""
  text = text.strip().replace(" [title]", ". ")
  return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def queries(item: Item, form: str) -> list[Query]:
  """What is scored for each choice of an item.

  Args:
    item: the item.
    form: one of `FORMS`.
  """
  if form == "blank":
    before, _, rest = item.question.partition(_BLANK)
    rest = rest.strip()
    return [_query(before + choice, rest) for choice in item.choices]
  question, choices = item.question, item.choices
  if form == "question":
    question = f"Question: {question}\nAnswer:"
  elif form == "hellaswag":
    question = _without_marks(question)
    choices = tuple(map(_without_marks, choices))
  return [_query(question, choice) for choice in choices]


def _query(context: str, text: str) -> Query:
  return Query(context, f" {text}", len(text.encode("utf-8")))
