"""Journals: answers survive, and nobody else's are taken for them."""

import json

import pytest

from jaxnmc.evaluate import choices, tasks
from jaxnmc.evaluate.bits import Part
from jaxnmc.evaluate.journal import Answers, JournalError, Parts

ITEMS = tuple(tasks.Item(str(k), "q", ("a", "b"), k % 2) for k in range(4))
TASK = tasks.Task("set", "set.jsonl", "plain", "0" * 64, ITEMS)
HEAD = {"task_sha256": "0" * 64, "weights_sha256": "w", "versions": {"a": "1"}}


def _answer(k: int) -> choices.Answer:
  return choices.Answer(str(k), k % 2, (-1 / 3 - k, -2e-9), (3, 4))


def _begun(path) -> bytes:
  journal = Answers(path, HEAD, TASK)
  assert journal.done == {}
  journal.keep([_answer(0), _answer(1)])
  journal.keep([_answer(2)])
  journal.close()
  return path.read_bytes()


def test_answers_come_back_to_the_bit(tmp_path):
  path = tmp_path / "j.jsonl"
  before = _begun(path)
  journal = Answers(path, HEAD, TASK)
  assert journal.done == {str(k): _answer(k) for k in range(3)}
  assert path.read_bytes() == before
  journal.keep([_answer(3)])
  journal.close()
  assert path.read_bytes().startswith(before)
  assert len(Answers(path, HEAD, TASK).done) == 4


def test_a_half_written_line_is_dropped(tmp_path):
  path = tmp_path / "j.jsonl"
  whole = _begun(path)
  head = whole.split(b"\n")[0]
  for end in range(len(head) + 1, len(whole)):
    path.write_bytes(whole[:end])
    journal = Answers(path, HEAD, TASK)
    lines = whole[:end].count(b"\n") - 1
    assert len(journal.done) == lines
    journal.keep([_answer(3)])
    journal.close()
    assert len(Answers(path, HEAD, TASK).done) == lines + 1


def test_a_half_written_head_begins_again(tmp_path):
  path = tmp_path / "j.jsonl"
  whole = _begun(path)
  for end in (0, 1, whole.index(b"\n")):
    path.write_bytes(whole[:end])
    Answers(path, HEAD, TASK).close()
    assert path.read_bytes() == whole[: whole.index(b"\n") + 1]


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"weights_sha256": "v"}, 'its weights_sha256 is "w", now it is "v"'),
    ({"task_sha256": "1"}, "its task_sha256 is"),
    ({"versions": {"a": "2"}}, "its versions is"),
    ({"more": 1}, "its more is null, now it is 1"),
  ],
)
def test_another_evaluation_is_refused(tmp_path, change, message):
  path = tmp_path / "j.jsonl"
  whole = _begun(path)
  with pytest.raises(JournalError, match=message):
    Answers(path, HEAD | change, TASK)
  assert path.read_bytes() == whole


@pytest.mark.parametrize(
  "line",
  [
    "{",
    "[]",
    "{}",
    json.dumps({"id": "9", "label": 0, "log_p": [0, 0], "bytes": [1, 1]}),
    json.dumps({"id": "1", "label": 0, "log_p": [0, 0], "bytes": [1, 1]}),
    json.dumps({"id": "1", "label": 1, "log_p": [0], "bytes": [1]}),
    json.dumps({"id": "1", "label": 1, "log_p": "no", "bytes": [1, 1]}),
  ],
)
def test_damage_is_refused_with_its_line(tmp_path, line):
  path = tmp_path / "j.jsonl"
  _begun(path)
  with path.open("a") as file:
    file.write(line + "\n")
  with pytest.raises(JournalError, match=r"j\.jsonl: line 5 is no"):
    Answers(path, HEAD, TASK)


def test_a_folder_that_is_not_there(tmp_path):
  with pytest.raises(JournalError, match="cannot be opened"):
    Answers(tmp_path / "no" / "j.jsonl", HEAD, TASK)
  with pytest.raises(JournalError, match="cannot be opened"):
    Answers(tmp_path, HEAD, TASK)


def test_parts_of_a_text_come_back(tmp_path):
  path = tmp_path / "p.jsonl"
  parts = {3: Part(1 / 3, 5, 0, None), 0: Part(2.5, 2, 8, "ab" * 32)}
  journal = Parts(path, HEAD)
  journal.keep(parts)
  journal.close()
  assert Parts(path, HEAD).done == parts
  for damage in ({"digest": "ab"}, {"digest": 1}, {"ids": None}):
    record = {"place": 1, **parts[0]._asdict(), **damage}
    with path.open("a") as file:
      file.write(json.dumps(record) + "\n")
    with pytest.raises(JournalError, match="line 4 is no result"):
      Parts(path, HEAD)
    path.write_text("\n".join(path.read_text().splitlines()[:3]) + "\n")
