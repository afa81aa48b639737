"""Zoo folders: small, exact, checked; and what `load` finds."""

import dataclasses
import io
import json
import os
import pathlib

import jax
import numpy as np
import pytest

from jaxnmc import quantize
from jaxnmc.errors import CheckpointError, ConfigError, PlanError
from jaxnmc.io import files, name_map, tokenizer, zoo
from jaxnmc.io.load import load
from jaxnmc.models import matmulfree
from jaxnmc.models.model import Model
from jaxnmc.models.parameters import build
from jaxnmc.numerics.ternary import Ternary, ternarize
from jaxnmc.ops.transform import reference

CONFIG = matmulfree.Config(
  vocab_size=300,
  hidden_size=18,
  num_layers=2,
  intermediate_size=22,
  norm="fused",
  bitlinear_eps=1e-3,
)
IDS = np.arange(14, dtype=np.int32).reshape(2, 7) * 21


def make_params(config, seed):
  """Random weights, gains near 1, without compiling anything."""
  rng = np.random.default_rng(seed)
  leaves = {}
  for entry in name_map.entries(config):
    value = 0.1 * rng.standard_normal(entry.shape, np.float32)
    leaves[entry.path] = value + (entry.kind == "gain")
  return build(leaves)


@pytest.fixture(scope="module")
def params():
  return make_params(CONFIG, 3)


@pytest.fixture(scope="module")
def bpe():
  return tokenizer.BPETokenizer.train(["hello world, hello you"] * 3, 270)


@pytest.fixture(scope="module")
def plan(params):
  fn = matmulfree.make(CONFIG)
  stats = quantize.calibrate(fn)(zoo.rounded(CONFIG, params), [IDS])
  return quantize.plan(stats, quantize.W8A16)


@pytest.fixture
def folder(tmp_path, params, bpe, plan):
  return zoo.write(tmp_path / "tiny", CONFIG, params, bpe, "# Tiny", plan)


def _equal(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_round_trip(folder, params, bpe, plan):
  model = load(folder)
  assert isinstance(model, Model)
  assert model.config == CONFIG
  assert model.plan == plan
  assert zoo.read(folder).card == "# Tiny"
  np.testing.assert_array_equal(model.tokenizer.merges, bpe.merges)
  _equal(model.params, zoo.rounded(CONFIG, params))
  _equal(zoo.rounded(CONFIG, model.params), model.params)
  for entry in name_map.entries(CONFIG):
    have = name_map.get(model.params, entry.path)
    want = name_map.get(params, entry.path)
    if entry.kind == "matrix":
      assert isinstance(have, Ternary)
      np.testing.assert_array_equal(have.codes, ternarize(want).codes)
      np.testing.assert_allclose(have.scale, ternarize(want).scale, rtol=1e-5)
    elif entry.kind == "table":
      error = np.abs(np.asarray(have) - np.asarray(want)).max()
      assert 0 < error <= np.abs(want).max() * 2.0**-15
    else:
      np.testing.assert_array_equal(have, want)


def test_float_output_is_kept(folder, params):
  model = load(folder)
  run = jax.jit(reference(model.fn))
  out, state = run(model.params, {"ids": IDS}, None)
  before, _ = run(params, {"ids": IDS}, None)
  gap = np.abs(out.logits - before.logits)
  # A rounded embedding may flip 8-bit activation codes, not more.
  assert np.median(gap) < 0.02 * np.std(before.logits)
  zeros = model.init_state((2,))
  assert jax.tree.map(np.shape, zeros) == jax.tree.map(np.shape, state)
  assert jax.tree.map(np.shape, model.init_state())["layers"][0] == (18,)


def test_integers_do_not_see_the_rounding(folder, params, plan):
  qparams = load(folder).qparams
  assert qparams.plan == plan.fingerprint
  before = quantize.quantize_params(params, plan)
  jax.tree.map(np.testing.assert_array_equal, qparams.tree, before.tree)


def test_size_and_bytes(tmp_path, folder, params, bpe, plan):
  again = zoo.write(tmp_path / "two", CONFIG, params, bpe, "# Tiny", plan)
  names = {p.name for p in folder.iterdir()}
  assert names == {*zoo.REQUIRED, zoo.MANIFEST, zoo.PLAN}
  for name in names:
    assert (folder / name).read_bytes() == (again / name).read_bytes()
  with np.load(folder / "model.npz", allow_pickle=False) as file:
    codes = file["layers.0.mlp.gate.weight:codes"]
    assert codes.shape == (44, 5)
    assert codes.dtype == np.uint8
    assert file["embed.weight:int"].dtype == np.int16
  small = zoo.write(tmp_path / "8", CONFIG, params, bpe, "", embed_bits=8)
  assert (small / "model.npz").stat().st_size < (
    folder / "model.npz"
  ).stat().st_size
  assert load(small).plan is None
  assert load(small).qparams is None


def test_byte_tokenizer(tmp_path, params):
  out = zoo.write(
    tmp_path / "b", CONFIG, params, tokenizer.ByteTokenizer(), "# Bytes"
  )
  assert isinstance(load(out).tokenizer, tokenizer.ByteTokenizer)


def test_by_name(monkeypatch, folder, tmp_path):
  monkeypatch.setattr(zoo, "root", lambda: tmp_path)
  (tmp_path / "no-model").mkdir()
  assert zoo.names() == ["tiny"]
  model = load("tiny")
  assert model.name == "tiny"
  assert "tiny" in repr(model)
  assert "plan" in repr(model)
  with pytest.raises(CheckpointError, match=r"'tinny': neither.*\(tiny\)"):
    load("tinny")
  monkeypatch.setattr(zoo, "root", lambda: tmp_path / "none")
  assert zoo.names() == []


def test_everything_shipped_loads_within_its_limit():
  sizes = {}
  for name in zoo.names():
    files_ = pathlib.Path(str(zoo.root() / name)).iterdir()
    sizes[name] = sum(p.stat().st_size for p in files_)
    model = load(name)
    assert model.tokenizer is not None
    assert zoo.read(zoo.root() / name).card.strip()
  assert sizes.pop("stories-mmf") <= 4 * 2**20
  # A transformer ships in 16-bit codes: its weights are not ternary.
  assert sum(sizes.values()) <= 12e6


# --- bad folders


def _manifest(folder, change):
  path = folder / zoo.MANIFEST
  data = json.loads(path.read_text())
  change(data)
  path.write_text(json.dumps(data))


def _put(folder, name, data):
  """Replaces a file and its entry in the manifest."""
  (folder / name).write_bytes(data)

  def change(manifest):
    manifest["files"][name]["sha256"] = files.sha256(data)

  _manifest(folder, change)


def _refused(folder, *words, error=CheckpointError):
  with pytest.raises(error) as caught:
    load(folder)
  for word in (str(folder), *words):
    assert word in str(caught.value)


@pytest.mark.parametrize("name", [*zoo.REQUIRED, zoo.PLAN])
def test_changed_cut_or_missing_files(folder, name):
  path = folder / name
  data = path.read_bytes()
  path.write_bytes(data[:-1])
  _refused(folder, name, "SHA-256")
  path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
  _refused(folder, name, "SHA-256")
  path.unlink()
  _refused(folder, name, "No such file")
  path.write_bytes(data)
  load(folder)


def test_bad_manifest(folder):
  good = (folder / zoo.MANIFEST).read_text()
  for text in ("", "[]", "{", good[: len(good) // 2]):
    (folder / zoo.MANIFEST).write_text(text)
    _refused(folder, zoo.MANIFEST)
  for change, word in (
    (lambda m: m.update(format="x"), "jaxnmc-zoo-1"),
    (lambda m: m.update(files=3), "jaxnmc-zoo-1"),
    (lambda m: m["files"].pop("model.npz"), "model.npz"),
    (lambda m: m["files"].update({"card.md": 1}), "card.md"),
  ):
    (folder / zoo.MANIFEST).write_text(good)
    _manifest(folder, change)
    _refused(folder, word)


def test_bad_contents(folder):
  config = json.loads((folder / "config.json").read_text())

  def put_config(change, *words, error):
    fields = json.loads(json.dumps(config))
    change(fields)
    _put(folder, "config.json", json.dumps(fields).encode())
    _refused(folder, "config.json", *words, error=error)

  put_config(lambda c: c.update(model="rnn"), "rnn", error=CheckpointError)
  put_config(lambda c: c.update(config=1), "config", error=ConfigError)
  put_config(lambda c: c["config"].update(w=1), "w", error=ConfigError)
  put_config(
    lambda c: c["config"].update(num_layers=-1), "num_layers", error=ConfigError
  )
  put_config(
    lambda c: c["config"].update(expand_ratio="x"), "type", error=ConfigError
  )
  _put(folder, "config.json", json.dumps(config).encode())

  with np.load(folder / "model.npz", allow_pickle=False) as file:
    arrays = {k: file[k] for k in file.files}
  code, scale = "layers.1.attn.o.weight:codes", "layers.1.attn.o.weight:scale"
  for change, words in (
    ({code: None}, [code, "missing"]),
    ({code: arrays[code][:-1]}, [code, "17 rows", "18"]),
    ({code: arrays[code][:, :-1]}, [code, "5"]),
    ({code: arrays[code] | 255}, [code, "0b11"]),
    ({code: arrays[code].astype(np.float32)}, [code, "float32"]),
    ({scale: np.int32(1)}, [scale, "int32"]),
    ({"norm": np.ones(3, np.float32)}, ["norm", "[3]", "[18]"]),
    ({"other": np.ones(3, np.float32)}, ["other", "unknown"]),
  ):
    new = {k: v for k, v in {**arrays, **change}.items() if v is not None}
    _put(folder, "model.npz", files.npz_bytes(new))
    _refused(folder, "model.npz", *words)
  buffer = io.BytesIO()
  np.save(buffer, np.zeros(3))
  _put(folder, "model.npz", buffer.getvalue())
  _refused(folder, "model.npz", "single array")
  _put(folder, "model.npz", b"PK" + b"0" * 40)
  _refused(folder, "model.npz", "not readable")


def test_plan_of_another_model(tmp_path, params, bpe, plan):
  roles = {k: v for k, v in plan.roles.items() if k != "norm"}
  out = tmp_path / "bad"
  zoo.write(out, CONFIG, params, bpe, "", plan.replace(roles=roles))
  _refused(out, "plan.json", "parameter norm is unknown", error=PlanError)
  less = {k: v for k, v in params.items() if k != "lower_bounds"}
  config = dataclasses.replace(CONFIG, use_lower_bound=False)
  other = zoo.write(tmp_path / "less", config, less, bpe, "", plan)
  words = ("plan.json", "needs 1 parameters", "first lower_bounds")
  _refused(other, *words, error=PlanError)
  _put(out, zoo.PLAN, b"{}")
  _refused(out, zoo.PLAN, error=PlanError)


@pytest.mark.parametrize("name", ["FP16", "A8", "W8"])
def test_plan_with_floats(tmp_path, params, bpe, name):
  fn = matmulfree.make(CONFIG)
  stats = quantize.calibrate(fn)(zoo.rounded(CONFIG, params), [IDS])
  plan = quantize.plan(stats, getattr(quantize, name))
  out = zoo.write(tmp_path / "bad", CONFIG, params, bpe, "", plan)
  words = ("plan.json", f"plan '{name}'", "integers", "without one")
  _refused(out, *words, error=PlanError)


def test_writing_refuses_and_leaves_nothing(tmp_path, params, bpe, folder):
  before = sorted(os.listdir(tmp_path))
  wrong = {**params, "norm": np.ones(3, np.float32)}
  more = tokenizer.BPETokenizer.train(["abcdefgh" * 40] * 2, 400)
  big = dataclasses.replace(CONFIG, vocab_size=260)
  for args, words in (
    ((CONFIG, wrong, bpe, ""), ["norm", "[3]"]),
    ((CONFIG, params, object(), ""), ["object", "BPE"]),
    ((big, params, more, ""), ["ids", "260"]),
    ((CONFIG, params, bpe, "", None, 4), ["embed_bits", "4"]),
  ):
    with pytest.raises(CheckpointError) as caught:
      zoo.write(tmp_path / "new", *args)
    for word in words:
      assert word in str(caught.value)
  with pytest.raises(CheckpointError, match="exists already"):
    zoo.write(folder, CONFIG, params, bpe, "")
  assert sorted(os.listdir(tmp_path)) == before
  zoo.write(folder, CONFIG, params, bpe, "new", overwrite=True)
  assert zoo.read(folder).card == "new"
  assert sorted(os.listdir(tmp_path)) == before


def test_a_crash_between_the_renames_loses_nothing(
  tmp_path, params, bpe, folder, monkeypatch
):
  real, calls = os.replace, []

  def fail(source, target):
    if pathlib.Path(target) == folder:
      calls.append(source)
      if len(calls) == 1:
        raise OSError("disk full")
    real(source, target)

  monkeypatch.setattr(os, "replace", fail)
  with pytest.raises(OSError, match="disk full"):
    zoo.write(folder, CONFIG, params, bpe, "new", overwrite=True)
  assert zoo.read(folder).card == "# Tiny"
  assert os.listdir(tmp_path) == ["tiny"]
