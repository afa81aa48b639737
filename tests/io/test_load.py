"""`load`: results of training runs, and clear words when there is nothing."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest

from jaxnmc.errors import CheckpointError, ConfigError
from jaxnmc.io import tokenizer, zoo
from jaxnmc.io.load import load
from jaxnmc.models import matmulfree
from jaxnmc.train import export
from tests.io.test_zoo import make_params

GOLDEN = pathlib.Path(__file__).parent / "golden"
CONFIG = matmulfree.Config(
  vocab_size=262,
  hidden_size=8,
  num_layers=11,
  intermediate_size=5,
  use_lower_bound=False,
)


@pytest.fixture(scope="module")
def params():
  return make_params(CONFIG, 1)


@pytest.fixture
def run(tmp_path, params):
  """A work folder of a training run."""
  folder = tmp_path / "run"
  folder.mkdir()
  export.save(
    folder / "best.npz", params, {"config": dataclasses.asdict(CONFIG)}
  )
  tokenizer.ByteTokenizer().save(folder / "tokenizer.npz")
  return folder


def test_training_results(run, params):
  for path in (run, str(run / "best.npz")):
    model = load(path)
    assert model.config == CONFIG
    assert jax.tree.structure(model.params) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, model.params, params)
    assert isinstance(model.tokenizer, tokenizer.ByteTokenizer)
  # Without a best one, the last.
  (run / "best.npz").rename(run / "final.npz")
  (run / "tokenizer.npz").unlink()
  assert load(run).tokenizer is None


def test_what_was_looked_for(tmp_path, monkeypatch, params):
  monkeypatch.setattr(zoo, "root", lambda: tmp_path / "zoo")
  (tmp_path / "zoo").mkdir()
  out = tmp_path / "zoo" / "one-model"
  config = dataclasses.replace(CONFIG)
  zoo.write(out, config, params, tokenizer.ByteTokenizer(), "")
  with pytest.raises(CheckpointError) as caught:
    load(tmp_path / "nowhere")
  for word in ("nowhere", "one-model", "neither"):
    assert word in str(caught.value)
  empty = tmp_path / "empty"
  empty.mkdir()
  with pytest.raises(CheckpointError) as caught:
    load(empty)
  for word in (
    "empty",
    "one-model",
    "manifest.json",
    "config.json",
    "model.safetensors.index.json",
    "best.npz",
    "final.npz",
  ):
    assert word in str(caught.value)


@pytest.mark.parametrize(
  ("name", "words"),
  [
    ("model.bin", ["unknown kind", "*.npz"]),
    ("model.safetensors", ["folder"]),
    ("config.json", ["folder"]),
    ("x.npz", ["not readable"]),
  ],
)
def test_files_of_other_kinds(tmp_path, name, words):
  (tmp_path / name).write_bytes(b"??")
  with pytest.raises(CheckpointError) as caught:
    load(tmp_path / name)
  for word in (name, *words):
    assert word in str(caught.value)


def test_bad_training_results(run):
  path = run / "best.npz"
  data = path.read_bytes()
  for size in (0, 100, len(data) // 2, len(data) - 1):
    path.write_bytes(data[:size])
    with pytest.raises(CheckpointError, match=r"best\.npz: not readable"):
      load(run)
  path.write_bytes(data)
  with np.load(path, allow_pickle=False) as file:
    arrays = {k: file[k] for k in file.files}
  meta = json.loads(str(arrays["meta"]))

  def refused(changes, *words, error=CheckpointError):
    new = {k: v for k, v in {**arrays, **changes}.items() if v is not None}
    np.savez(path, **new)
    with pytest.raises(error) as caught:
      load(run)
    for word in ("best.npz", *words):
      assert word in str(caught.value)

  def with_meta(**changes):
    return {"meta": np.array(json.dumps({**meta, **changes}))}

  name = "params/layers/10/mlp/down/norm"
  refused({"meta": None}, "meta")
  refused({"meta": np.array("[]")}, "meta")
  refused(with_meta(format="v9"), "v9", export.FORMAT)
  refused(with_meta(config=None), "config", error=ConfigError)
  refused(with_meta(config={"x": 1}), "x", error=ConfigError)
  refused({name: None}, "missing: layers.10.mlp.down.norm")
  refused({name: np.ones(4, np.float32)}, "layers.10.mlp.down.norm", "[4]")
  refused({name: np.ones(5, int)}, name, "int64")
  refused({"params/odd": np.ones(5, np.float32)}, "without a place: odd")


def test_tokenizer_of_another_model(run, params):
  merges = tokenizer.BPETokenizer.train(["abcdefgh" * 40] * 2, 300)
  assert merges.vocab_size > 262
  merges.save(run / "tokenizer.npz")
  with pytest.raises(CheckpointError, match=r"tokenizer has \d+ ids.*262"):
    load(run)
  (run / "tokenizer.npz").write_bytes(b"PK")
  with pytest.raises(CheckpointError, match=r"tokenizer\.npz"):
    load(run)


def test_weights_load_without_the_tokenizer_package(tmp_path, monkeypatch):
  pytest.importorskip("safetensors")
  for path in GOLDEN.iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  (tmp_path / "tokenizer.json").write_text("{}")
  monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
  model = load(tmp_path)
  assert model.tokenizer is None
  assert any("jaxnmc[hf]" in note for note in model.notes)
