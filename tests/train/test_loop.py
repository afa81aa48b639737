"""The loop, its logs and the script around it."""

import io
import json
import logging
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

import jaxnmc
from jaxnmc.errors import CheckpointError, ConfigError, MissingExtra
from jaxnmc.io import tokenizer as tokenizers
from jaxnmc.models import families, matmulfree
from jaxnmc.train import data, export, logs, loop

SIZES = {
  "vocab_size": 259,
  "hidden_size": 16,
  "num_layers": 1,
  "intermediate_size": 24,
}
CONFIG = matmulfree.Config(**SIZES)
DOCS = [f"The {w} has {n} legs." for n in range(9) for w in ("cat", "ox")]


def _train(workdir, documents=None, held=("The dog has 4 legs.",), **kwargs):
  rhythm = {"checkpoint_every": 3, "log_every": 1, "eval_every": 3}
  rhythm |= {"progress": False, **kwargs.pop("rhythm", {})}
  teacher = kwargs.pop("teacher", None)
  init = kwargs.pop(
    "init", lambda: matmulfree.init_params(CONFIG, jax.random.key(0))
  )
  recipe = {"steps": 6, "batch": 2, "seq": 16, "warmup": 2, **kwargs}
  return loop.train(
    fn=matmulfree.make(CONFIG),
    init_params=init,
    model_config=SIZES,
    tokenizer=tokenizers.ByteTokenizer(),
    documents=documents or DOCS,
    held=list(held),
    recipe=loop.Recipe(**recipe),
    rhythm=loop.Rhythm(**rhythm),
    workdir=str(workdir),
    teacher=teacher,
  )


def _records(workdir):
  text = (workdir / "log.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


def _logged(workdir):
  """Records of steps, without the one that says what runs."""
  return [r for r in _records(workdir) if "loss" in r]


class _FakeWriter:
  made = []

  def __init__(self, directory, purge_step):
    self.purge_step, self.values, self.closed = purge_step, [], False
    self.made.append(self)

  def add_scalar(self, name, value, step):
    self.values.append((name, step))

  def close(self):
    self.closed = True


def test_a_run(tmp_path, monkeypatch):
  fake = type(sys)("tensorboardX")
  fake.SummaryWriter = _FakeWriter
  monkeypatch.setitem(sys.modules, "tensorboardX", fake)
  monkeypatch.setattr(_FakeWriter, "made", [])
  stderr = io.StringIO()
  monkeypatch.setattr(sys, "stderr", stderr)
  result = _train(tmp_path, rhythm={"tensorboard": True, "progress": True})
  (board,) = _FakeWriter.made
  monkeypatch.undo()

  records = _records(tmp_path)
  assert [r["step"] for r in records if "loss" in r] == [1, 2, 3, 4, 5, 6]
  held = {r["step"]: r["held_bpb"] for r in records if "held_bpb" in r}
  assert list(held) == [3, 6]
  assert result["held_bpb"] == min(held.values())
  assert held[result["best_step"]] == result["held_bpb"]
  assert result["epochs"] == pytest.approx(12 / 36)
  # Bits per byte of the log are the nats of the log.
  stream = data.pack(DOCS, tokenizers.ByteTokenizer())
  first = _logged(tmp_path)[0]
  want = first["nats"] / np.log(2) / stream.bytes_per_id
  assert first["bpb"] == pytest.approx(want)
  assert board.closed
  assert board.purge_step == 1
  assert ("bpb", 6) in board.values
  assert ("held_bpb", 3) in board.values
  assert "6/6" in stderr.getvalue()
  assert "tokens/s" in stderr.getvalue()
  assert "% of peak" in stderr.getvalue()

  params, meta = export.load(tmp_path / "best.npz")
  assert meta["config"] == SIZES
  assert meta["best"]["step"] == result["best_step"]
  assert matmulfree.Config(**meta["config"]) == CONFIG
  assert params["layers"][0]["attn"]["i"]["weight"].shape == (16, 16)

  # Started again, a finished run does nothing and says the same.
  again = _train(tmp_path)
  assert again["params_digest"] == result["params_digest"]
  assert _records(tmp_path) == records


def test_speed_is_measured(tmp_path):
  result = _train(tmp_path, steps=3, rhythm={"log_every": 2})
  start, *rest = _records(tmp_path)
  assert start["step"] == 0
  assert start["dtype"] == "float32"
  tokens, weights = 2 * 16, 4 * 16**2 + 3 * 16 * 24 + 259 * 16
  assert start["step_flops"] == 3 * 2 * weights * tokens
  peak = start["peak_flops_per_s"]["float32"]
  for r in rest:
    if "loss" in r:
      share = r["tokens_per_s"] / tokens * start["step_flops"] / peak
      assert r["mfu"] == pytest.approx(share, abs=1e-4)
  assert result["peak_flops_per_s"] == peak
  share = result["step_tokens_per_s"] / tokens * start["step_flops"] / peak
  assert result["mfu"] == pytest.approx(share, abs=1e-4)
  assert set(result["labels"].values()) == {"measured"}
  # Time that went elsewhere is not that of steps.
  assert result["step_tokens_per_s"] > result["tokens_per_s"]


def test_one_compilation(tmp_path, caplog):
  """Evaluation, the end of an epoch and a resumed state change nothing."""

  def compilations():
    said = [r.getMessage() for r in caplog.records]
    caplog.clear()
    return sum(m.startswith("Compiling jit(step)") for m in said)

  (tmp_path / "a").mkdir()
  with caplog.at_level(logging.WARNING), jax.log_compiles():
    # Six windows an epoch, two a step: the fourth step begins another epoch.
    result = _train(tmp_path / "a", documents=DOCS[:3], steps=4)
    assert result["epochs"] > 1
    assert result["compilations"] == 1
    assert compilations() == 1
    shutil.rmtree(tmp_path / "a" / "checkpoints" / "4")
    result = _train(tmp_path / "a", documents=DOCS[:3], steps=4)
    assert result["compilations"] == 1
    assert compilations() == 1
  assert [r["step"] for r in _logged(tmp_path / "a")] == [1, 2, 3, 4]
  assert all("compilations" not in r for r in _records(tmp_path / "a"))


def test_another_compilation_is_in_the_log(tmp_path, monkeypatch):
  whole = data.Windows.batch
  monkeypatch.setattr(
    data.Windows, "batch", lambda self, k: whole(self, k)[: 17 if k < 2 else 9]
  )
  result = _train(tmp_path, steps=3, held=[])
  assert result["compilations"] == 2
  found = [r.get("compiled_for") for r in _logged(tmp_path)]
  assert found == [None, None, "argument [1]: was int32[17, 2], is int32[9, 2]"]


def test_another_recipe_is_refused(tmp_path):
  _train(tmp_path, steps=3)
  with pytest.raises(CheckpointError, match="recipe"):
    _train(tmp_path, steps=3, lr=1e-3)
  with pytest.raises(CheckpointError, match="stream"):
    _train(tmp_path, documents=DOCS[1:], steps=3)


def test_without_held_text(tmp_path):
  result = _train(tmp_path, held=[], steps=2)
  assert result["held_bpb"] is None
  assert (tmp_path / "best.npz").exists()


def test_with_teacher(tmp_path):
  teacher = matmulfree.init_params(CONFIG, jax.random.key(5))
  _train(
    tmp_path, steps=2, teacher=(matmulfree.make(CONFIG), teacher), alpha=0.5
  )
  record = _logged(tmp_path)[0]
  assert record["loss"] < record["nats"]
  other = matmulfree.init_params(CONFIG, jax.random.key(6))
  with pytest.raises(CheckpointError, match="teacher"):
    _train(tmp_path, steps=2, teacher=(matmulfree.make(CONFIG), other))


def test_divergence_stops(tmp_path):
  def broken():
    params = matmulfree.init_params(CONFIG, jax.random.key(0))
    params["norm"] = params["norm"] * np.nan
    return params

  with pytest.raises(ConfigError, match="step 1: the loss is nan"):
    _train(tmp_path, init=broken)
  assert not (tmp_path / "final.npz").exists()


@pytest.mark.parametrize(
  "bad",
  [
    {"steps": 0},
    {"batch": 0},
    {"seq": -1},
    {"lr": 0.0},
    {"lr": np.nan},
    {"clip": 0.0},
    {"warmup": -1},
    {"weight_decay": np.nan},
    {"dtype": "float16"},
  ],
)
def test_impossible_recipes(bad):
  with pytest.raises(ConfigError, match=next(iter(bad))):
    loop.Recipe(**bad)


@pytest.mark.parametrize(
  "name", ["checkpoint_every", "log_every", "eval_every"]
)
def test_impossible_rhythms(name):
  with pytest.raises(ConfigError, match=f"{name}: found 0"):
    loop.Rhythm(**{name: 0})


def test_tensorboard_is_an_extra(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "tensorboardX", None)
  with pytest.raises(MissingExtra, match=r"jaxnmc\[track\]"):
    logs.TensorBoard(tmp_path, 0)


def test_log_drops_what_comes_again(tmp_path):
  path = tmp_path / "log.jsonl"
  path.write_text('{"step": 1}\nnonsense\n{"step": 5}\n{"step": 2}\n{"step": 2')
  log = logs.JsonLines(path, done=3)
  log.write(step=4, loss=1.0)
  log.close()
  assert [r["step"] for r in _records(tmp_path)] == [1, 2, 4]


# --- the script


def _script(repo_root, *args, name="train_matmulfree"):
  script = repo_root / "experiments" / f"{name}.py"
  return subprocess.run(
    [sys.executable, str(script), *map(str, args)],
    cwd=repo_root,
    capture_output=True,
    text=True,
    timeout=600,
    check=False,
    env={**os.environ, "PYTHONPATH": str(repo_root)},
  )


@pytest.mark.parametrize("name", ["train_matmulfree", "train_gpt"])
def test_smoke(repo_root, tmp_path, name):
  result = _script(
    repo_root,
    "--smoke",
    "--steps=4",
    f"--workdir={tmp_path / 'run'}",
    f"--json={tmp_path / 'out.json'}",
    name=name,
  )
  assert result.returncode == 0, result.stderr
  said = json.loads(result.stdout.splitlines()[-1])
  assert said == json.loads((tmp_path / "out.json").read_text())
  assert said["steps"] == 4
  kept = tokenizers.load(tmp_path / "run")
  params, meta = export.load(tmp_path / "run" / "final.npz")
  assert meta["config"]["vocab_size"] == kept.vocab_size == 300
  assert params["embed"]["weight"].shape == (300, 32)
  model = jaxnmc.load(tmp_path / "run")
  assert families.family_of(model.config).name == name.removeprefix("train_")
  assert model.config.num_params == said["params"]


@pytest.mark.parametrize(
  ("flags", "word"),
  [
    (["--train=absent.txt"], "error: absent.txt"),
    (["--smoke", "--hold_out=1"], "no documents"),
    (["--smoke", "--json=no/such/folder/x.json"], "does not exist"),
    (["--smoke", "--workdir=pyproject.toml"], "--workdir pyproject.toml"),
  ],
)
def test_script_says_what_is_wrong(repo_root, tmp_path, flags, word):
  result = _script(repo_root, f"--workdir={tmp_path / 'run'}", *flags)
  assert result.returncode == 2
  assert word in result.stderr
  assert "Traceback" not in result.stderr
  assert not list(tmp_path.glob("run/final.npz"))


def test_a_foreign_tokenizer_stays_with_the_result(repo_root, tmp_path):
  package = pytest.importorskip("tokenizers")
  made = package.Tokenizer(
    package.models.WordLevel({"<unk>": 0, "Once": 1, "the": 2}, "<unk>")
  )
  made.pre_tokenizer = package.pre_tokenizers.Whitespace()
  source = tmp_path / "their.json"
  made.save(str(source))
  work = tmp_path / "run"
  flags = ("--smoke", f"--workdir={work}", f"--tokenizer={source}")
  result = _script(repo_root, *flags, "--steps=1")
  assert result.returncode == 0, result.stderr
  model = jaxnmc.load(work)
  assert model.tokenizer.encode("Once the").tolist() == [1, 2]
  made.add_tokens(["more"])
  made.save(str(source))
  result = _script(repo_root, *flags, "--steps=1")
  assert result.returncode == 2
  assert "tokenizer.json: belongs to a run" in result.stderr


def test_a_teacher_by_name(repo_root, tmp_path):
  """The shipped model teaches a student with its tokenizer, and no other."""
  tokenizer = repo_root / "jaxnmc/zoo/stories-mmf/tokenizer.npz"
  common = ("--smoke", "--steps=2", "--seq=16", "--batch=2", "--eval_every=2")
  common += ("--teacher=stories-mmf", "--devices=1")
  taught = _script(
    repo_root, *common, f"--tokenizer={tokenizer}", f"--workdir={tmp_path}/a"
  )
  assert taught.returncode == 0, taught.stderr
  _, meta = export.load(tmp_path / "a" / "final.npz")
  assert meta["config"]["vocab_size"] == 4096
  record = _logged(tmp_path / "a")[0]
  assert record["loss"] < record["nats"]  # half of it is the divergence
  other = _script(repo_root, *common, f"--workdir={tmp_path}/b")
  assert other.returncode == 2
  assert "--teacher stories-mmf: has another vocabulary" in other.stderr
