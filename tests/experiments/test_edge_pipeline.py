"""The edge pipeline: its parts, what it refuses, all of it on a tiny model."""

import gzip
import importlib
import importlib.util
import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest

from jaxnmc.errors import ConfigError, UserError

STAGES = ["baseline", "prune", "quantise", "spikes", "thresholds", "cores"]
STAGES += ["reading", "claims", "vocabulary", "learning"]


@pytest.fixture(scope="module")
def edge(repo_root):
  """A function from a name to the module of the package beside the script."""
  path = str(repo_root / "experiments")
  sys.path.insert(0, path)
  yield lambda name: importlib.import_module(f"edge.{name}")
  sys.path.remove(path)


def write(path, *rows):
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return str(path)


def said(count, intent, word="turn"):
  return [
    {"text": f"{word} {intent} number {k}", "intent": intent}
    for k in range(count)
  ]


# --- commands


def test_a_tenth_is_held_out_and_nothing_of_it_is_read(edge, tmp_path):
  commands = edge("commands")
  rows = said(200, "on") + said(200, "off")
  labelled = write(tmp_path / "a.jsonl", *rows)
  # The same sentences come again as text without intents.
  with gzip.open(tmp_path / "more.jsonl.gz", "wt") as file:
    file.writelines(json.dumps(row) + "\n" for row in rows)
  new = write(tmp_path / "n.jsonl", *said(5, "sing"), *said(5, "hum"))
  found = commands.read_corpus(
    *(labelled, [str(tmp_path / "more.jsonl.gz"), new], []),
    *((new, new), ["sing"], 1000, 0),
  )
  assert found.intents == ("off", "on")
  assert 20 <= len(found.test) <= 60
  assert len(found.train) + len(found.test) == 400
  documents = found.documents()
  texts = {document.split("<|")[0] for document in documents}
  assert not texts & {command.text for command in found.test}
  assert not any("sing" in document for document in documents)
  assert any("hum" in document for document in documents)
  assert found.new_intents == ("sing",)
  assert documents != found.documents(seed=1)
  assert sorted(documents) == sorted(found.documents(seed=1))


def test_blanks_of_phrases_are_filled(edge, tmp_path):
  commands = edge("commands")
  path = tmp_path / "p.csv"
  path.write_text("phrase,x\nSet <device_name> to <temp_f>,1\nStop <it>,2\n")
  one, two = commands.phrases(str(path), random.Random(0))
  assert "<" not in one
  assert 60 <= int(one.split()[-1]) <= 85
  assert two == "Stop it"


@pytest.mark.parametrize(
  ("text", "said"),
  [
    ('{"text": "a", "intent": "b"}\n{"text": "a"}\n', "line 2: found"),
    ('{"text": "", "intent": "b"}\n', "line 1: found"),
    ('{"text": "a", "intent": "not a word"}\n', "line 1: found"),
    ("[1]\n", "line 1: found"),
    ("", "has no commands"),
  ],
)
def test_a_bad_file_is_named_with_its_line(edge, tmp_path, text, said):
  path = tmp_path / "bad.jsonl"
  path.write_text(text)
  with pytest.raises(UserError, match=said) as error:
    edge("commands").read(str(path))
  assert str(path) in str(error.value)


def test_an_intent_nobody_said_is_refused(edge, tmp_path):
  commands = edge("commands")
  labelled = write(tmp_path / "a.jsonl", *said(50, "on"))
  new = write(tmp_path / "n.jsonl", *said(5, "sing"))
  read = lambda intents: commands.read_corpus(
    labelled, [], [], (new, new), intents, 10, 0
  )
  with pytest.raises(UserError, match=r"no commands of the new intents \['hop"):
    read(["sing", "hop"])
  # All examples of a rare one may lie in the tenth that is held out.
  rare = next(
    row
    for row in said(100, "rare")
    if commands.split([commands.Command(**row)])[1]
  )
  labelled = write(tmp_path / "b.jsonl", *said(50, "on"), rare)
  with pytest.raises(UserError, match=r"\['rare'\] are in the held-out tenth"):
    read(["sing"])


# --- stages


def run_of(edge, folder, **settings):
  """Names of the stages whose work was done; the second one needs the first."""
  run, worked = edge("stages").Run(folder, 2), []

  def work(name, result):
    worked.append(name)
    return result

  one = run.stage("one", settings, lambda place: work("one", {"x": [1, 2]}))
  two = run.stage("two", {}, lambda place: work("two", one["x"][1] + 1))
  assert (one, two) == ({"x": [1, 2]}, 3)
  return worked


def test_a_stage_is_done_once(edge, tmp_path):
  assert run_of(edge, tmp_path, steps=3) == ["one", "two"]
  assert run_of(edge, tmp_path, steps=3) == []


def test_a_stage_that_was_killed_is_done_again(edge, tmp_path):
  run = edge("stages").Run(tmp_path, 2)
  run.stage("one", {"steps": 3}, lambda place: {"x": [1, 2]})

  def killed(place):
    (place / "half").write_text("written")
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    run.stage("two", {}, killed)
  assert run_of(edge, tmp_path, steps=3) == ["two"]
  assert (tmp_path / "02-two" / "half").exists()


def test_other_settings_are_refused_by_name(edge, tmp_path):
  run_of(edge, tmp_path, steps=3)
  with pytest.raises(UserError, match=r"01-one: .* steps 3, now it is 4"):
    run_of(edge, tmp_path, steps=4)
  # A later stage depends on the settings of those before it.
  (tmp_path / "01-one" / "stage.json").unlink()
  (tmp_path / "01-one" / "settings.json").unlink()
  with pytest.raises(UserError, match=r"02-two: was made with steps 3"):
    run_of(edge, tmp_path, steps=4)


def test_a_damaged_stage_says_so(edge, tmp_path):
  run_of(edge, tmp_path, steps=3)
  (tmp_path / "02-two" / "stage.json").write_text("{")
  with pytest.raises(UserError, match=r"02-two.stage.json: is no file of a st"):
    run_of(edge, tmp_path, steps=3)


def test_the_rate_keeps_what_was_known(edge):
  rows = [
    {"rate": -9, "new": 0.6, "old": 0.80},
    {"rate": -8, "new": 0.7, "old": 0.79},
    {"rate": -7, "new": 0.9, "old": 0.77},
  ]
  best = edge("personal").best
  assert best(rows, 0.80) == -8
  assert best(rows, 0.90) == -9


def test_softmax_that_sees_all_alike_is_not_sparse(edge):
  """Of queries that are 0 every token sees t + 1 tokens alike."""
  import jax

  from jaxnmc.models import gpt

  tiny = edge("tiny_gpt")
  tokenizer = tiny.BPETokenizer.train(["a"], 259)
  config = tiny.config(tokenizer, hidden_size=8, num_layers=1, num_heads=2)
  params = gpt.init_params(config, jax.random.key(0))
  params["layers"][0]["attn"]["q"]["weight"] *= 0
  ids = np.arange(16).reshape(1, 16)
  found = edge("claims").softmax_sparsity(config, params, ids)
  assert found["near_zero"] == 0
  assert found["effective"] == pytest.approx(np.mean(np.arange(8, 17)))
  assert found["strongest"] == pytest.approx(np.mean(1 / np.arange(8, 17)))


# --- all of it


@pytest.mark.parametrize(
  ("flags", "said"),
  [
    ((), "error: --labelled: name a file"),
    (("--labelled", "a.jsonl", "--new", "n.jsonl"), "give all, or none"),
  ],
)
def test_flags_that_need_each_other(repo_root, tmp_path, flags, said):
  script = [sys.executable, "experiments/edge_pipeline.py"]
  done = subprocess.run(
    [*script, "--workdir", str(tmp_path), *flags],
    cwd=repo_root,
    env={**os.environ, "PYTHONPATH": str(repo_root)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 2
  assert said in done.stderr
  assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
  ("flag", "said"),
  [("prune_heads", "heads"), ("prune_units", "units")],
)
def test_a_share_that_leaves_nothing(edge, tmp_path, flag, said):
  """The pruning stage passes on what the library refuses."""
  import jax

  from jaxnmc.models import gpt

  bench, stages, tiny = edge("bench"), edge("stages"), edge("tiny_gpt")
  tokenizer = tiny.BPETokenizer.train(["a"], 259)
  config = tiny.config(tokenizer, hidden_size=8, num_layers=2, num_heads=2)
  run = stages.Run(tmp_path, 2)
  params = gpt.init_params(config, jax.random.key(0))

  def first(place):
    stages.keep(place, config, params)

  run.stage("baseline", {}, first)
  options = bench.Options(**{flag: 0.99})
  made = bench.Bench(options, None, tokenizer, None, run)
  with pytest.raises(ConfigError, match=said):
    edge("floats").prune(made, "baseline", tmp_path)


@pytest.mark.slow
def test_smoke(smoke, tmp_path):
  path, work = tmp_path / "found.json", tmp_path / "run"
  flags = ["--workdir", work, "--json", path]
  drawn = importlib.util.find_spec("matplotlib") is not None
  if drawn:
    flags += ["--plot", tmp_path]
  done = smoke("edge_pipeline", *flags)
  found = json.loads(path.read_text())
  assert [name for name in found if name in STAGES] == STAGES
  assert found["baseline"]["score"]["accuracy"] > 0.9
  assert sum(found["prune"]["left"]["heads"]) == 8 - 3
  refused = found["quantise"]["W8A8"]["export"]["refused"]
  assert "k_memory" in refused
  cores = found["cores"]["cores"]
  assert cores["equal"] == cores["integers"] > 0
  assert found["thresholds"]["after"]["spikes"] <= found["thresholds"]["budget"]
  potential = found["reading"]["potential"]
  assert potential["same"] == potential["positions"] > 0
  assert found["learning"]["new_points"] >= 20
  assert max(map(len, done.stdout.splitlines())) <= 80
  assert (tmp_path / "edge_pipeline.png").exists() == drawn
  again = smoke("edge_pipeline", *flags)
  assert again.stderr.count("done before") == len(STAGES)
  assert json.loads(path.read_text()) == found
