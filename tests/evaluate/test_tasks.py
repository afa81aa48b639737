"""Task files: what is asked, and one clear error for what cannot be."""

import gzip
import json
import re

import pytest

from jaxnmc import evaluate
from jaxnmc.cli import parser
from jaxnmc.evaluate import tasks

ITEM = {"id": "a", "question": "Why?", "choices": ["So.", "Or so."], "label": 1}


def _write(path, *items) -> str:
  lines = [x if isinstance(x, str) else json.dumps(x) for x in items]
  path.write_text("\n".join(lines) + "\n", encoding="utf-8")
  return str(path)


def test_reads_items_in_order(tmp_path):
  other = ITEM | {"id": 7, "question": "Wie\u2028geht's?", "more": 1}
  path = _write(tmp_path / "set.jsonl", ITEM, "", other)
  task = tasks.read(path)
  assert (task.name, task.form, task.path) == ("set", "plain", path)
  assert [item.id for item in task.items] == ["a", "7"]
  assert task.items[1].question == "Wie\u2028geht's?"
  assert task.items[0] == ("a", "Why?", ("So.", "Or so."), 1)
  packed = tmp_path / "piqa.jsonl.gz"
  packed.write_bytes(gzip.compress((tmp_path / "set.jsonl").read_bytes()))
  again = tasks.read(str(packed))
  assert (again.name, again.form) == ("piqa", "question")
  assert again.items == task.items
  assert again.sha256 != task.sha256


@pytest.mark.parametrize(
  ("line", "message"),
  [
    ("{", "is no JSON"),
    ("[1]", "found a JSON list"),
    ({k: v for k, v in ITEM.items() if k != "label"}, "'label' is missing"),
    ({k: v for k, v in ITEM.items() if k != "choices"}, "'choices' is missing"),
    (ITEM | {"label": 2}, "'label': found 2; .*0 to 1"),
    (ITEM | {"label": -1}, "'label': found -1"),
    (ITEM | {"label": "1"}, "'label': found '1'"),
    (ITEM | {"label": True}, "'label': found True"),
    (ITEM | {"choices": ["So."]}, "'choices': .*two texts or more"),
    (ITEM | {"choices": "ab"}, "'choices': .*two texts or more"),
    (ITEM | {"choices": ["So.", " "]}, r"'choices\[1\]': .*not empty"),
    (ITEM | {"choices": ["So.", 3]}, r"'choices\[1\]'"),
    (ITEM | {"question": ""}, "'question': .*not empty"),
    (ITEM | {"question": "\udc80"}, "'question': .*surrogate"),
    (ITEM | {"id": None}, "'id'"),
    (ITEM | {"id": "first"}, "'first' is that of line 1"),
  ],
)
def test_a_bad_line_has_file_line_and_field(tmp_path, line, message):
  path = _write(tmp_path / "set.jsonl", ITEM | {"id": "first"}, "", line)
  with pytest.raises(evaluate.DataError, match=message) as error:
    tasks.read(path)
  assert str(error.value).startswith(f"{path}: line 3")


def test_bad_files(tmp_path):
  with pytest.raises(evaluate.DataError, match="no item"):
    tasks.read(_write(tmp_path / "empty.jsonl", ""))
  with pytest.raises(evaluate.DataError, match="cannot be read"):
    tasks.read(str(tmp_path / "none.jsonl"))
  path = _write(tmp_path / "winogrande.jsonl", ITEM)
  with pytest.raises(evaluate.DataError, match="found 0 times '_'"):
    tasks.read(path)
  path = _write(tmp_path / "winogrande.jsonl", ITEM | {"question": "It is _ "})
  with pytest.raises(evaluate.DataError, match="nothing follows"):
    tasks.read(path)
  with pytest.raises(evaluate.DataError, match="allowed are plain"):
    tasks.read(path, "other")


def test_forms():
  item = tasks.Item("a", "Why _ so?", ("\u00fc", "it is"), 0)
  ask = lambda form: tasks.queries(item, form)
  assert ask("plain") == [
    ("Why _ so?", " \u00fc", 2),
    ("Why _ so?", " it is", 5),
  ]
  assert ask("question")[1][:2] == ("Question: Why _ so?\nAnswer:", " it is")
  assert ask("blank") == [("Why \u00fc", " so?", 3), ("Why it is", " so?", 3)]
  wiki = tasks.Item("b", " How to: do [header] x [title] y", ("[step] z",), 0)
  assert tasks.queries(wiki, "hellaswag") == [
    ("How to: do x. y", "  z", 2),
  ]


def test_the_parser_knows_all_forms():
  assert parser.FORMS == tasks.FORMS


def test_the_sets_at_hand(shared_dir):
  folder = shared_dir / "data" / "zero-shot"
  counts = {
    p.stem: len(tasks.read(str(p)).items)
    for p in folder.iterdir()
    if p.suffix == ".jsonl"
  }
  table = (folder / "README.md").read_text()
  for name, count in counts.items():
    (dev,) = re.findall(rf"`{name}.jsonl` \| \(\d+, (\d+),", table)
    assert count == int(dev)
  assert len(counts) == 6
