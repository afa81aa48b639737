"""lm-evaluation-harness: its answers are our own, and its requests are met."""

import importlib.util
import json
import types

import numpy as np
import pytest

import jaxnmc
from jaxnmc import errors
from jaxnmc.evaluate import choices, harness, tasks
from jaxnmc.io import zoo
from jaxnmc.report import backends
from tests.evaluate import small


def _answers(kind: str, **changes):
  """The adapter without its base class, which is the harness's."""
  one = small.subject(kind, **changes)
  return harness._Answers(one, 4, 8)


def _requests(*args):
  return [types.SimpleNamespace(args=one) for one in args]


def _whole(kind: str, text: str) -> float:
  ids = small.TOKENIZER.encode(text)
  inputs = np.concatenate([[small.BOS], ids[:-1]]).astype(np.int32)
  return small.log_p(kind, inputs)[np.arange(len(ids)), ids].sum()


def test_rolling_is_the_whole_text():
  texts = ("short", "a text of more than one chunk")
  found = _answers("recurrent").loglikelihood_rolling(
    _requests(*((text,) for text in texts))
  )
  want = [_whole("recurrent", text) for text in texts]
  assert found == pytest.approx(want, rel=1e-5)


def test_rolling_over_a_bounded_context():
  (found,) = _answers("stateless", context=8).loglikelihood_rolling(
    _requests(("a text of more",))
  )
  ids = small.TOKENIZER.encode("a text of more")
  whole = np.concatenate([[small.BOS], ids]).astype(np.int32)
  first = small.log_p("stateless", whole[:8])[np.arange(8), ids[:8]]
  rest = small.log_p("stateless", whole[8:-1])[np.arange(6), ids[8:]]
  assert found == pytest.approx(first.sum() + rest.sum(), rel=1e-5)


def _greedy(kind: str, text: str, tokens: int) -> list[int]:
  inputs, new = [small.BOS, *small.TOKENIZER.encode(text)], []
  for _ in range(tokens):
    new.append(int(small.log_p(kind, np.array(inputs + new))[-1].argmax()))
  return new


@pytest.mark.parametrize("kind", ["recurrent", "stateless"])
def test_text_is_written_greedily(kind):
  prompts = ("ab", "a prompt of ten")
  options = {"until": [], "max_gen_toks": 6}
  found = _answers(kind).generate_until(
    _requests(*((prompt, options) for prompt in prompts))
  )
  for prompt, text in zip(prompts, found):
    ids = _greedy(kind, prompt, 6)
    if small.TOKENIZER.eos_id in ids:
      ids = ids[: ids.index(small.TOKENIZER.eos_id)]
    assert text == small.TOKENIZER.decode(ids)


@pytest.mark.parametrize(
  ("until", "text"),
  [("c", "ab"), (["c", "bc"], "a"), ([], "abcde"), (["", "z"], "abcde")],
)
def test_text_ends_before_the_first_stop(monkeypatch, until, text):
  answers = _answers("stateless")
  written = small.TOKENIZER.encode("abcdefg")
  monkeypatch.setattr(answers, "_greedy", lambda ids: iter(written.tolist()))
  options = {"until": until, "max_gen_toks": 5}
  assert answers.generate_until(_requests(("Once", options))) == [text]


def test_sampling_is_refused():
  options = {"until": [], "do_sample": True, "temperature": 0.7}
  with pytest.raises(errors.ConfigError, match="greedy"):
    _answers("recurrent").generate_until(_requests(("a", options)))
  options = {"until": [], "max_gen_toks": 8}
  with pytest.raises(errors.ConfigError, match="takes 8 positions"):
    _answers("recurrent", context=8).generate_until(_requests(("a", options)))


# --- with the harness itself

HAVE = importlib.util.find_spec("lm_eval") is not None
need = pytest.mark.skipif(not HAVE, reason="lm_eval (extra eval) not installed")

ITEMS = [
  ("Which is an animal?", ["a dog that barks", "a stone", "a red ball"], 0),
  ("What did the girl eat", ["an apple.", "the big, big moon of cheese."], 0),
  ("The sun is", ["hot", "caf\u00e9 au lait", "a cold, dark place", "wet"], 2),
  ("Tom was sad because", ["he lost his toy", "he found his toy"], 1),
]
BLANKS = [
  ("Lily gave the ball to Tom because _ was kind.", ["Lily", "Tom"], 0),
  ("The cup did not fit in the box because the _ was big.", ["cup", "box"], 1),
]
YAML = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {path}}}
test_split: test
output_type: multiple_choice
doc_to_text: {text}
doc_to_target: {target}
doc_to_choice: {choice}
metric_list:
  - metric: acc
  - metric: acc_bytes
metadata:
  version: 1
"""
# How each form is said to the harness.
FORMS = {
  "plain": ('"{{question}}"', "label", '"choices"'),
  "question": ('"Question: {{question}}\\nAnswer:"', "label", '"choices"'),
  "blank": (
    "label",
    "\"{{question.split('_')[1].strip()}}\"",
    "\"{{[question.split('_')[0] + choices[0],"
    " question.split('_')[0] + choices[1]]}}\"",
  ),
}


@pytest.fixture
def files(tmp_path, monkeypatch):
  """{form: path} of a task file, and a YAML beside each; no network."""
  for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
    monkeypatch.setenv(name, "1")
  monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
  made = {}
  for form, (text, target, choice) in FORMS.items():
    items = BLANKS if form == "blank" else ITEMS
    lines = [
      json.dumps({"id": str(k), "question": q, "choices": c, "label": y})
      for k, (q, c, y) in enumerate(items)
    ]
    path = tmp_path / f"own_{form}.jsonl"
    path.write_text("\n".join(lines) + "\n")
    page = YAML.format(
      name=f"own_{form}", path=path, text=text, target=target, choice=choice
    )
    (tmp_path / f"own_{form}.yaml").write_text(page)
    made[form] = str(path)
  return made


def _same_answers(subject, files, tmp_path):
  import lm_eval
  from lm_eval.tasks import TaskManager

  manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
  found = lm_eval.simple_evaluate(
    model=harness.adapter(subject),
    tasks=[f"own_{form}" for form in files],
    task_manager=manager,
    bootstrap_iters=0,
    log_samples=True,
  )
  likelihood = subject.likelihood()
  for form, path in files.items():
    task = tasks.read(path, form)
    own = choices.answer(likelihood, subject.tokenizer, task)
    samples = sorted(found["samples"][f"own_{form}"], key=_number)
    assert len(samples) == len(own)
    for sample, one in zip(samples, own):
      theirs = [float(response[0][0]) for response in sample["resps"]]
      assert theirs == list(one.log_p)
    score = found["results"][f"own_{form}"]
    result = choices.result(task, own)
    assert score["acc,none"] == pytest.approx(result.acc.value)
    if form != "blank":  # there the harness divides by the wrong text
      norm = result.acc_norm.value
      assert score["acc_bytes,none"] == pytest.approx(norm)


def _number(sample):
  return sample["doc_id"]


@need
@pytest.mark.parametrize("name", ["float", "loihi"])
def test_the_harness_gives_our_answers(name, files, tmp_path):
  params = zoo.rounded(small.CONFIG, small.recurrent()[1])
  model = jaxnmc.Model(
    *("small", small.CONFIG, params, small.recurrent()[0], None),
    tokenizer=small.TOKENIZER,
  )
  backend = backends.prepare(model, name)
  _same_answers(backends.subject(model, backend), files, tmp_path)


@need
@pytest.mark.slow
@pytest.mark.parametrize("name", ["float", "loihi"])
def test_the_harness_on_the_shipped_model(name, files, tmp_path):
  model = jaxnmc.load("stories-mmf")
  backend = backends.prepare(model, name)
  _same_answers(backends.subject(model, backend), files, tmp_path)


@pytest.mark.skipif(HAVE, reason="lm_eval is installed")
def test_without_the_harness_the_extra_is_named():
  with pytest.raises(errors.MissingExtra, match=r"jaxnmc\[eval\]"):
    harness.adapter(small.subject("recurrent"))
