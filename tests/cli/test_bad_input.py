"""Bad input of every kind: status 2, one line that says which and what to do.

What each check sees is tested beside it; here a user's way to it, and that
nothing is left behind.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

import jaxnmc
from jaxnmc.errors import CheckpointError
from jaxnmc.io import huggingface, zoo
from jaxnmc.models import matmulfree


@pytest.fixture
def hf(folders, tmp_path):
  """The tiny model as a Hugging Face folder."""
  pytest.importorskip("safetensors")
  model = jaxnmc.load(folders["tiny"])
  folder = huggingface.write(tmp_path / "hf", model.config, model.params)
  shutil.copy(pathlib.Path(folders["tiny"]) / "tokenizer.npz", folder)
  return folder


@pytest.fixture
def names(refused):
  """Refuses a command and looks for words in its line."""

  def check(*argv, words):
    line = refused(*argv)
    for word in words:
      assert str(word) in line

  return check


def _config(folder, **fields):
  path = folder / "config.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_truncated_and_corrupt_safetensors(names, hf):
  path = hf / "model.safetensors"
  data = path.read_bytes()
  for bad in (data[:-1], data[: len(data) // 2], b"\xff" * len(data)):
    path.write_bytes(bad)
    names("info", hf, words=[path, "copy it again"])


def test_config_fields(names, hf):
  _config(hf, rope_theta=1e4)
  names("info", hf, words=[hf / "config.json", "'rope_theta'", "remove them"])


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    ({"num_heads": 5}, ["config.json", "num_heads", "5"]),
    ({"hidden_size": 0}, ["config.json", "hidden_size", "0"]),
    ({"hidden_ratio": 1e308, "intermediate_size": None}, ["hidden_ratio"]),
    ({"num_hidden_layers": 10**9}, ["num_hidden_layers", "10"]),
    ({"vocab_size": 300}, ["embeddings.weight", "[259, 32]", "[300, 32]"]),
  ],
)
def test_impossible_shapes(names, hf, fields, words):
  _config(hf, **fields)
  names("info", hf, words=words)


def test_wrong_dtype(names, hf):
  from safetensors import numpy as package

  path = hf / "model.safetensors"
  tensors = package.load_file(path)
  tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(np.int32)
  package.save_file(tensors, path)
  names("info", hf, words=[path, "model.norm.weight", "I32", "F32"])


def test_ids_out_of_range(names, folders, hf, tmp_path):
  ids = tmp_path / "ids.npz"
  np.savez(ids, input_ids=np.array([[3, 259]]), logits=np.zeros((1, 2, 259)))
  # A process of its own: `verify` turns x64 on.
  done = subprocess.run(
    [sys.executable, "-m", "jaxnmc", "verify", folders["tiny"], str(ids)],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 2
  assert done.stdout == ""
  (line,) = done.stderr.splitlines()
  assert "input_ids" in line
  assert "found 259, allowed are 0 ... 258" in line
  # A tokenizer of another model gives ids that the model lacks.
  model = jaxnmc.load(hf)
  small = matmulfree.Config(**{**vars(model.config), "vocab_size": 200})
  params = matmulfree.init_params(small, jax.random.key(0))
  with pytest.raises(CheckpointError, match="259 ids.*200"):
    zoo.write(tmp_path / "z", small, params, model.tokenizer, "card")
  assert not (tmp_path / "z").exists()


@pytest.mark.parametrize(
  ("prompt", "words"),
  [("", ["prompt is empty"]), ("\udcff", ["U+DCFF", "surrogate"])],
)
def test_prompts(names, folders, prompt, words):
  for command in (["run", folders["tiny"]], ["demo"]):
    names(*command, "--prompt", prompt, words=words)


def test_plan_of_another_model(names, folders, tmp_path):
  model = jaxnmc.load(folders["tiny"])
  other = matmulfree.Config(**{**vars(model.config), "intermediate_size": 32})
  params = matmulfree.init_params(other, jax.random.key(0))
  folder = tmp_path / "other"
  zoo.write(folder, other, params, model.tokenizer, "card", model.plan)
  names(
    "run",
    folder,
    "--prompt",
    "A",
    words=["mlp.down.norm", "[32]", "[48]", "calibrate"],
  )


@pytest.mark.parametrize(
  "missing", ["manifest.json", "model.npz", "tokenizer.npz", "plan.json"]
)
def test_half_copied_zoo_folder(names, folders, tmp_path, missing):
  folder = tmp_path / "half"
  shutil.copytree(folders["tiny"], folder)
  (folder / missing).unlink()
  names("info", folder, words=[folder])


def test_half_written_folders(names, hf, tmp_path):
  left = hf.rename(tmp_path / ".hf.partial-x1")
  names("info", left, words=[left, "half written", "remove it"])
  run = tmp_path / "run" / "checkpoints" / "10.orbax-checkpoint-tmp-0"
  run.mkdir(parents=True)
  names("info", tmp_path / "run", words=["no model", "best.npz"])


def test_too_few_cores(monkeypatch, names, folders, tmp_path):
  loihi2 = jaxnmc.chip.loihi2

  def small(chips):
    return loihi2(chips=chips, cores_per_chip=1, synapse_units=100)

  monkeypatch.setattr(jaxnmc.chip, "loihi2", small)
  report = tmp_path / "page.html"
  names(
    "place",
    folders["tiny"],
    "--chips",
    1,
    words=["synapse_units", "Use at least"],
  )
  names(
    *("run", folders["tiny"], "--prompt", "A", "--backend", "loihi"),
    *("--chips", 1, "--report", report, "--json", tmp_path / "out.json"),
    words=["synapse_units", "Use at least"],
  )
  assert list(tmp_path.iterdir()) == []


def test_flags_for_a_model_that_is_not_named(names, tmp_path):
  names("doctor", "--text", tmp_path / "no.txt", words=["MODEL"])
  names("doctor", "--calibrate", tmp_path / "no.txt", words=["MODEL"])
  names("doctor", "--plan", tmp_path / "no.json", words=["MODEL"])


def test_interpreters_that_are_the_same_or_unknown(names, folders):
  tiny = folders["tiny"]
  names("diverge", tiny, "--between", "fixed", "fixed", words=["two", "differ"])
  names("diverge", tiny, "--between", "fixed", "loihi", words=["loihi"])
  names("diverge", tiny, "--codes", "-1", words=["0 codes", "-1"])


def test_nothing_is_unpickled(names, tmp_path):
  path = tmp_path / "best.npz"
  marker = tmp_path / "ran"

  class Harm:
    def __reduce__(self):
      return os.mkdir, (str(marker),)

  np.savez(path, meta=np.array([Harm()], object))
  names("info", path, words=[path, "allow_pickle=False"])
  assert not marker.exists()


@pytest.mark.parametrize(
  "flags",
  [("--engine", "stepped"), ("--chips", "2"), ("--trace", "t.json")],
  ids=["engine", "chips", "trace"],
)
@pytest.mark.parametrize("backend", ["float", "fixed"])
def test_flags_about_cores_need_cores(names, folders, backend, flags):
  argv = ("run", folders["tiny"], "--prompt", "a", "--backend", backend)
  names(*argv, *flags, words=[flags[0], backend, "--backend loihi"])


def test_a_compile_cache_that_is_no_folder(names, tmp_path):
  file = tmp_path / "file"
  file.write_text("")
  for path in (file, file / "below"):
    names("doctor", "--compile-cache", path, words=[path, "can be written"])
