"""`jaxnmc evaluate`: windows, tasks, and going on after an interrupt."""

import json

import pytest

from jaxnmc.evaluate import choices, journal

ITEMS = [
  {"id": f"i{k}", "question": q, "choices": list(c), "label": k % 2}
  for k, (q, c) in enumerate(
    [("Is it a cat?", ("yes", "no")), ("Or a dog", ("a dog.", "a hat."))] * 20
  )
]


@pytest.fixture
def task(tmp_path):
  """A file of forty items."""
  path = tmp_path / "animals.jsonl"
  path.write_text("".join(json.dumps(item) + "\n" for item in ITEMS))
  return path


@pytest.fixture
def text(tmp_path):
  """A text of two documents."""
  path = tmp_path / "text.txt"
  path.write_text("Once there was\na cat.\n<|endoftext|>\nThe end.\n")
  return path


def test_windows(as_json, folders, text):
  tiny = folders["tiny"]
  whole = as_json("evaluate", tiny, "--text", text)
  assert (whole["words"], whole["range"]["window"]) == (5 + 1 + 2, None)
  wide = as_json("evaluate", tiny, "--text", text, "--window", 64)
  assert wide["range"]["stride"] == 32
  assert wide["nats"] == pytest.approx(whole["nats"], rel=1e-6)
  assert wide["ids"] == whole["ids"]
  narrow = as_json(
    "evaluate", tiny, "--text", text, "--window", 4, "--stride", 1
  )
  assert narrow["ids"] == whole["ids"]
  assert narrow["nats"] != pytest.approx(whole["nats"], rel=1e-6)
  assert narrow["word_perplexity"] == pytest.approx(
    narrow["perplexity"] ** (narrow["ids"] / narrow["words"])
  )


def test_tasks_on_both_backends(run, as_json, folders, task):
  status, out, err = run("evaluate", folders["tiny"], "--task", task)
  assert status == 0
  assert "chance %" in err
  assert max(map(len, err.splitlines())) <= 80
  one = json.loads(out)
  (found,) = one["tasks"]
  assert (found["task"], found["form"], found["items"]) == (
    *("animals", "plain"),
    40,
  )
  assert found["chance"] == 0.5
  low, high = found["acc_interval"]
  assert low <= found["acc"] <= high
  assert {"weights_sha256", "tokenizer_sha256", "versions"} <= set(one)
  two = as_json(
    *("evaluate", folders["tiny"], "--task", task, "--backend", "loihi"),
    *("--limit", 5, "--form", "question"),
  )
  assert two["plan_sha256"]
  (found,) = two["tasks"]
  assert (found["items"], found["items_in_file"]) == (5, 40)
  assert found["form"] == "question"


def _strip(data):
  return [{k: v for k, v in one.items() if k != "seconds"} for one in data]


def test_an_interrupted_call_goes_on(
  run, as_json, refused, folders, task, tmp_path, monkeypatch
):
  folder = tmp_path / "journal"
  call = ("evaluate", folders["tiny"], "--task", task, "--journal", folder)
  score = choices.Likelihood.__call__
  calls = []

  def interrupted(self, pairs, progress=None):
    calls.append(len(pairs))
    if len(calls) == 2:
      raise KeyboardInterrupt
    return score(self, pairs, progress)

  with monkeypatch.context() as patch:
    patch.setattr(choices.Likelihood, "__call__", interrupted)
    assert run(*call)[0] == 130
  (path,) = folder.iterdir()
  assert len(path.read_text().splitlines()) == 1 + calls[0] // 2
  # As if it had died while it wrote.
  with path.open("a") as file:
    file.write('{"id": "i3')

  (resumed,) = as_json(*call)["tasks"]
  (fresh,) = as_json(*call[:-2])["tasks"]
  assert resumed.pop("items_from_journal") == calls[0] // 2 > 0
  assert fresh.pop("items_from_journal") == 0
  assert _strip([resumed]) == _strip([fresh])
  (again,) = as_json(*call, "--limit", 3)["tasks"]
  assert (again["items"], again["items_from_journal"]) == (3, 3)

  # The answers of this model and file are nobody else's.
  assert "its batch is 16, now it is 4" in refused(*call, "--batch", 4)
  task.write_text(task.read_text() + json.dumps(ITEMS[0] | {"id": "new"}))
  assert "its task_sha256 is" in refused(*call)


@pytest.mark.parametrize("window", [(), ("--window", 8)])
def test_an_interrupted_text_goes_on(
  run, as_json, refused, folders, text, tmp_path, monkeypatch, window
):
  folder = tmp_path / "journal"
  call = ("evaluate", folders["tiny"], "--text", text, "--batch", 1, *window)
  kept = journal.Parts.keep
  calls = []

  def interrupted(self, parts):
    kept(self, parts)
    calls.append(parts)
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(journal.Parts, "keep", interrupted)
    assert run(*call, "--journal", folder)[0] == 130
  assert len(calls) == 1
  fresh = as_json(*call)
  more = []
  with monkeypatch.context() as patch:
    patch.setattr(journal.Parts, "keep", lambda self, parts: more.extend(parts))
    resumed = as_json(*call, "--journal", folder)
  assert len(more) == (6 if window else 2) - 1  # windows, documents
  assert not set(calls[0]) & set(more)
  assert resumed.pop("parts_from_journal") == 1
  assert fresh.pop("parts_from_journal") == 0
  assert _strip([resumed]) == _strip([fresh])
  reason = refused(*call, "--journal", folder, "--max_ids", 3)
  assert "its max_ids is null, now it is 3" in reason


def test_bad_input(refused, folders, task, text, tmp_path):
  tiny = folders["tiny"]
  call = lambda *argv: refused("evaluate", tiny, *argv)
  assert "--text --task is required" in call()
  assert "not allowed with" in call("--text", text, "--task", task)
  assert "--limit is about --task" in call("--text", text, "--limit", 3)
  assert "--window is about --text" in call("--task", task, "--window", 3)
  assert "give --window, too" in call("--text", text, "--stride", 3)
  assert "1 <= stride" in call("--text", text, "--window", 3, "--stride", 4)
  assert "one file of a name" in call("--task", task, task)
  assert "animals.jsonl" in call("--task", tmp_path / "no" / "animals.jsonl")
  assert "found 0 times" in call("--task", task, "--form", "blank")
  assert "is no folder" in call("--task", task, "--journal", task)
  task.write_text(json.dumps(ITEMS[0] | {"label": 2}) + "\n")
  assert "line 1: field 'label': found 2" in call("--task", task)
