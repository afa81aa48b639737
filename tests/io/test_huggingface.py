"""Hugging Face folders: what comes in goes out, and bad ones are refused."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnmc.errors import CheckpointError, ConfigError, MissingExtra
from jaxnmc.io import files, hf_matmulfree, huggingface, name_map
from jaxnmc.io import safetensors_files as folders
from jaxnmc.io.load import load
from jaxnmc.models import matmulfree
from jaxnmc.numerics.ternary import Ternary, ternarize
from tests.io import numpy_reference as ref

safetensors_numpy = pytest.importorskip("safetensors.numpy")

GOLDEN = pathlib.Path(__file__).parent / "golden"
CONFIG = json.loads((GOLDEN / "config.json").read_text())


@pytest.fixture(scope="module")
def tensors():
  return safetensors_numpy.load_file(GOLDEN / "model.safetensors")


@pytest.fixture
def make(tmp_path, tensors):
  """make(config changes, tensor changes) -> folder; None removes."""

  def write(config=None, changes=None, name="model"):
    folder = tmp_path / name
    folder.mkdir()
    fields = {**CONFIG, **(config or {})}
    fields = {k: v for k, v in fields.items() if v != "absent"}
    (folder / "config.json").write_text(json.dumps(fields))
    new = {**tensors, **(changes or {})}
    new = {k: v for k, v in new.items() if v is not None}
    safetensors_numpy.save_file(new, folder / folders.SINGLE)
    return folder

  return write


def _same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_names_and_shapes_are_those_of_the_specification():
  config = huggingface.read(GOLDEN).config
  entries = name_map.entries(config)
  assert {e.key: e.shape for e in entries} == ref.shapes(CONFIG)
  assert len(entries) == 15 * 3 + 5
  no_bounds = matmulfree.Config(
    hidden_size=16, num_layers=2, use_lower_bound=False, expand_ratio=2
  )
  entries = name_map.entries(no_bounds)
  fields = {**CONFIG, "expand_ratio": 2, "use_lower_bound": False}
  fields |= {"num_hidden_layers": 2, "intermediate_size": None}
  fields["vocab_size"] = 32000
  assert {e.key: e.shape for e in entries} == ref.shapes(fields)


def test_names_cover_the_tree_of_init_params():
  config = huggingface.read(GOLDEN).config
  params = matmulfree.init_params(config, jax.random.key(0))
  paths = jax.tree_util.tree_leaves_with_path(params)
  found = {
    jax.tree_util.keystr(path, simple=True, separator="."): x.shape
    for path, x in paths
  }
  assert found == {e.path: e.shape for e in name_map.entries(config)}


@pytest.mark.parametrize("size", matmulfree.PRESETS)
def test_counts_of_released_sizes(size):
  counts = {"370M": 374108160, "1.3B": 1364779008, "2.7B": 2702357504}
  entries = name_map.entries(matmulfree.PRESETS[size])
  total = sum(int(np.prod(e.shape)) for e in entries)
  assert total == counts[size] == matmulfree.PRESETS[size].num_params


def test_every_tensor_has_its_place(tensors):
  found = huggingface.read(GOLDEN)
  for entry in name_map.entries(found.config):
    leaf = name_map.get(found.params, entry.path)
    assert leaf.dtype == np.float32
    np.testing.assert_array_equal(leaf, tensors[entry.key])


@pytest.mark.parametrize("shard_bytes", [None, 10_000])
def test_round_trip(tmp_path, shard_bytes):
  found = huggingface.read(GOLDEN)
  out = tmp_path / "out"
  huggingface.write(out, found.config, found.params, shard_bytes=shard_bytes)
  again = huggingface.read(out)
  assert again.config == found.config
  _same(again.params, found.params)
  assert list(tmp_path.iterdir()) == [out]
  assert {p.stat().st_mode & 0o777 for p in out.iterdir()} == {0o644}
  shards = list(out.glob("*.safetensors"))
  assert (len(shards) > 1) == (shard_bytes is not None)
  if shard_bytes:
    assert all(p.stat().st_size < 10_000 + 3000 for p in shards)
    index = json.loads((out / folders.INDEX).read_text())
    assert index["metadata"]["total_size"] == 4 * found.config.num_params


@pytest.mark.parametrize(
  ("dtype", "error"), [("bfloat16", 2**-8), ("float16", 2**-11)]
)
def test_half_precision(tmp_path, dtype, error):
  found = huggingface.read(GOLDEN)
  huggingface.write(tmp_path / "out", found.config, found.params, dtype)
  again = huggingface.read(tmp_path / "out")
  for a, b in zip(jax.tree.leaves(found.params), jax.tree.leaves(again.params)):
    assert b.dtype == np.float32
    np.testing.assert_allclose(a, b, rtol=error, atol=1e-7)
  assert (
    json.loads((tmp_path / "out/config.json").read_text())["torch_dtype"]
    == dtype
  )


def test_our_own_fields_come_back(tmp_path):
  found = huggingface.read(GOLDEN)
  assert "bitlinear_eps" not in hf_matmulfree.render(found.config)
  fields = {**vars(found.config), "norm": "fused", "bitlinear_eps": 1e-3}
  config = matmulfree.Config(**fields)
  huggingface.write(tmp_path / "out", config, found.params)
  data = json.loads((tmp_path / "out/config.json").read_text())
  assert data["jaxnmc_norm"] == "fused"
  assert data["bitlinear_eps"] == 1e-3
  assert huggingface.read(tmp_path / "out").config == config


@given(
  st.integers(0, 2**32 - 1),
  st.integers(1, 40),
  st.integers(1, 40),
  st.floats(0, 1),
  st.floats(-4.9, 3),
)
def test_a_ternary_matrix_has_a_latent(seed, rows, cols, zeros, log_scale):
  rng = np.random.default_rng(seed)
  codes = rng.choice([-1, 1], (rows, cols)) * (
    rng.random((rows, cols)) >= zeros
  )
  codes = codes.astype(np.int8)
  scale = np.float32(10.0**log_scale)
  latent = huggingface.latent(Ternary(codes, scale))
  again = ternarize(latent)
  np.testing.assert_array_equal(again.codes, codes)
  if codes.any():
    exact = np.abs(latent).mean(dtype=np.float64)
    np.testing.assert_allclose(exact, scale, rtol=1.2e-7)
    # A float32 sum of equal values in a row rounds one way.
    np.testing.assert_allclose(again.scale, scale, rtol=1e-5)


def test_ternary_leaves_survive_export(tmp_path):
  found = huggingface.read(GOLDEN)
  params = jax.tree.map(lambda x: x, found.params)
  for entry in name_map.entries(found.config):
    if entry.kind == "matrix":
      *where, last = entry.path.split(".")
      node = name_map.get(params, ".".join(where))
      node[last] = ternarize(node[last])
  huggingface.write(tmp_path / "out", found.config, params)
  again = huggingface.read(tmp_path / "out").params
  for entry in name_map.entries(found.config):
    if entry.kind == "matrix":
      want = name_map.get(params, entry.path)
      have = ternarize(name_map.get(again, entry.path))
      np.testing.assert_array_equal(have.codes, want.codes)
      np.testing.assert_allclose(have.scale, want.scale, rtol=1e-5)


def test_too_small_a_scale_is_refused():
  codes = np.array([[1, 0]], np.int8)
  with pytest.raises(CheckpointError, match="below 1e-05"):
    huggingface.latent(Ternary(codes, np.float32(1e-7)), "layers.0.x")


def test_tied_head(make, tensors):
  fields = {"tie_word_embeddings": True}
  found = huggingface.read(make(fields, {"lm_head.weight": None}))
  assert found.tied
  assert any("tied" in note for note in found.notes)
  table = tensors["model.embeddings.weight"]
  np.testing.assert_array_equal(found.params["head"]["weight"], table)
  np.testing.assert_array_equal(found.params["embed"]["weight"], table)


def test_metadata_is_listed_once_and_unused_tensors_too(make):
  folder = make(
    {"auto_map": {"AutoModel": "x.Y"}, "transformers_version": "4.40.2"},
    {"extra.b": np.zeros(2, np.float32), "extra.a": np.zeros(2, np.float32)},
  )
  found = huggingface.read(folder)
  assert found.skipped == (
    "architectures",
    "auto_map",
    "torch_dtype",
    "transformers_version",
  )
  assert found.unused == ("extra.a", "extra.b")
  notes = "\n".join(load(folder).notes)
  assert notes.count("auto_map") == notes.count("extra.a") == 1


# --- config.json


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    ({"model_type": "rwkv"}, ["model_type", "rwkv", "hgrn_bit", "llama"]),
    ({"model_type": "absent"}, ["model_type", "missing"]),
    ({"use_short_conv": True}, ["use_short_conv", "True", "TypeError"]),
    ({"attn_mode": "chunk"}, ["attn_mode", "chunk", "fused_recurrent"]),
    ({"hidden_act": "gelu"}, ["hidden_act", "gelu", "swish"]),
    ({"hidden_act": 0}, ["hidden_act"]),
    ({"quantization_config": {"bits": 4}}, ["quantization_config"]),
    ({"rope_theta": 1e4, "window": 3}, ["rope_theta", "window", "unknown"]),
    ({"expand_ratio": 2}, ["expand_ratio", "use_lower_bound"]),
    (
      {"expand_ratio": 0.3, "use_lower_bound": False, "num_heads": 8},
      ["num_heads", "expand_ratio", "4"],
    ),
    ({"hidden_size": "16"}, ["hidden_size", "'16'", "int"]),
    ({"hidden_size": True}, ["hidden_size", "True"]),
    ({"hidden_size": 0}, ["hidden_size", "0"]),
    ({"num_heads": 3}, ["num_heads", "3"]),
    ({"num_hidden_layers": 10**6}, ["num_hidden_layers", "1000000"]),
    ({"hidden_ratio": 1e308}, ["hidden_ratio", "1e+308"]),
    ({"rms_norm_eps": -1}, ["rms_norm_eps", "-1"]),
    ({"rms_norm_eps": float("nan")}, ["rms_norm_eps", "nan"]),
    ({"intermediate_size": 1.5}, ["intermediate_size", "1.5", "null"]),
    ({"use_lower_bound": 1}, ["use_lower_bound", "1", "bool"]),
    ({"jaxnmc_norm": "none"}, ["norm", "none", "double"]),
    ({"eos_token_id": 20}, ["eos_token_id", "20", "0 ... 19"]),
    ({"tie_word_embeddings": "yes"}, ["tie_word_embeddings", "yes"]),
  ],
)
def test_bad_config(make, fields, words):
  folder = make(fields)
  with pytest.raises(ConfigError) as caught:
    load(folder)
  for word in (str(folder / "config.json"), *words):
    assert word in str(caught.value)


def test_absent_fields_take_the_reference_defaults():
  config = hf_matmulfree.parse({"model_type": "hgrn_bit"}).config
  assert config == matmulfree.Config()
  parsed = hf_matmulfree.parse({"model_type": "hgrn_bit", "hidden_ratio": None})
  assert parsed.config.hidden_ratio == 4


@pytest.mark.parametrize("text", ["", "{", "[1]", "\udcff", "[" * 10**5])
def test_config_that_is_no_json(make, text):
  folder = make()
  data = text.encode("utf-8", "surrogateescape")
  (folder / "config.json").write_bytes(data)
  with pytest.raises(CheckpointError, match="config.json"):
    load(folder)


# --- weights


def test_missing_tensors_are_all_listed(make):
  names = ("model.layers.1.attn.g_norm.weight", "lm_head.weight")
  changes = dict.fromkeys(names) | {"lm_head.w": np.zeros(1, np.float32)}
  with pytest.raises(CheckpointError) as caught:
    load(make(changes=changes))
  for word in (*names, "2 tensors are missing", "lm_head.w", "[20, 16]"):
    assert word in str(caught.value)


@pytest.mark.parametrize(
  ("value", "words"),
  [
    (np.zeros(17, np.float32), ["[17]", "[16]"]),
    (np.zeros((16, 1), np.float32), ["[16, 1]", "[16]"]),
    (np.zeros(16, np.int8), ["I8", "F32", "BF16"]),
    (np.zeros(16, np.float64), ["F64", "F16"]),
    (np.full(16, np.nan, np.float32), ["NaN"]),
    (np.full(16, np.inf, np.float16), ["infinity"]),
  ],
)
def test_bad_tensors(make, value, words):
  name = "model.layers.2.mlp_norm.weight"
  folder = make(changes={name: value})
  with pytest.raises(CheckpointError) as caught:
    load(folder)
  for word in (name, str(folder / folders.SINGLE), *words):
    assert word in str(caught.value)


def test_truncated_and_corrupt_files(make):
  folder = make()
  path = folder / folders.SINGLE
  data = path.read_bytes()
  for size in (0, 4, 100, len(data) // 2, len(data) - 1):
    path.write_bytes(data[:size])
    with pytest.raises(
      CheckpointError, match="model.safetensors: not readable"
    ):
      load(folder)
  for bad in (b"\xff" * 200, data[:20] + b"#" * 50 + data[70:]):
    path.write_bytes(bad)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
      load(folder)
  path.unlink()
  with pytest.raises(CheckpointError, match=r"looked for model\.safetensors"):
    load(folder)
  (folder / "pytorch_model.bin").write_bytes(b"")
  with pytest.raises(CheckpointError, match="pickle"):
    load(folder)
  safetensors_numpy.save_file({}, path)
  with pytest.raises(CheckpointError, match="no tensors"):
    load(folder)


def test_shards(tmp_path):
  found = huggingface.read(GOLDEN)
  folder = tmp_path / "out"
  huggingface.write(folder, found.config, found.params, shard_bytes=10_000)
  index = folder / folders.INDEX
  good = json.loads(index.read_text())
  shard = sorted(folder.glob("*.safetensors"))[1]

  def refused(*words):
    with pytest.raises(CheckpointError) as caught:
      load(folder)
    for word in words:
      assert word in str(caught.value)

  def with_index(data):
    index.write_text(json.dumps(data))

  name = next(k for k, v in good["weight_map"].items() if v == shard.name)
  first = sorted(folder.glob("*.safetensors"))[0].name
  wrong = {**good["weight_map"], name: first}
  with_index({"weight_map": wrong})
  refused(first, name, "different checkpoints")
  with_index({"weight_map": {**good["weight_map"], name: "../x.safetensors"}})
  refused("../x.safetensors", name)
  with_index({"weight_map": {}})
  refused("weight_map")
  with_index(good)
  data = shard.read_bytes()
  shard.write_bytes(data[:-1])
  refused(shard.name, "cut off")
  shard.unlink()
  refused(shard.name, "half")
  shard.write_bytes(data)
  _same(load(folder).params, found.params)


def test_without_the_package(monkeypatch):
  monkeypatch.setitem(sys.modules, "safetensors", None)
  with pytest.raises(MissingExtra, match=r"jaxnmc\[hf\]"):
    load(GOLDEN)


# --- writing


def test_nothing_is_lost_or_half_written(tmp_path):
  found = huggingface.read(GOLDEN)
  out = tmp_path / "out"
  huggingface.write(out, found.config, found.params)
  with pytest.raises(CheckpointError, match="exists already"):
    huggingface.write(out, found.config, found.params)
  bad = {**found.params, "norm": np.ones(3, np.float32)}
  with pytest.raises(
    CheckpointError, match=r"model.norm.weight.*\[3\].*\[16\]"
  ):
    huggingface.write(out, found.config, bad, overwrite=True)
  bad = {k: v for k, v in found.params.items() if k != "norm"}
  with pytest.raises(CheckpointError, match="parameter norm"):
    huggingface.write(out, found.config, bad, overwrite=True)
  bad = {**found.params, "norm": np.full(16, 1e6, np.float32)}
  with pytest.raises(CheckpointError, match="float16"):
    huggingface.write(out, found.config, bad, "float16", overwrite=True)
  with pytest.raises(CheckpointError, match="int8"):
    huggingface.write(out, found.config, found.params, "int8", overwrite=True)
  with pytest.raises(CheckpointError, match="parent"):
    huggingface.write(tmp_path / "a/b", found.config, found.params)
  assert list(tmp_path.iterdir()) == [out]
  _same(huggingface.read(out).params, found.params)
  new = {**found.params, "norm": np.full(16, 2, np.float32)}
  huggingface.write(out, found.config, new, overwrite=True)
  assert list(tmp_path.iterdir()) == [out]
  assert huggingface.read(out).params["norm"][0] == 2


def test_a_folder_left_behind_is_named(tmp_path):
  folder = tmp_path / f".out{files.PARTIAL}abc"
  folder.mkdir()
  with pytest.raises(CheckpointError, match="half written"):
    load(folder)


# --- the real size

# ru_maxrss would count the parent of the fork too.
_LOAD = """
import json, pathlib, sys
import jax
from jaxnmc.io.load import load

def peak():
  status = pathlib.Path("/proc/self/status")
  if not status.is_file():
    return 0
  rows = dict(r.split(":", 1) for r in status.read_text().splitlines())
  return int(rows["VmHWM"].split()[0]) / 2**20

before = peak()
model = load(sys.argv[1])
count = sum(x.size for x in jax.tree.leaves(model.params))
print(json.dumps([count, model.config.num_params, peak() - before]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_370m_layout(tmp_path, repo_root, dtype):
  import ml_dtypes

  config = matmulfree.PRESETS["370M"]
  kind = {"bfloat16": ml_dtypes.bfloat16, "float32": np.float32}[dtype]
  folder = tmp_path / "370M"
  folder.mkdir()
  fields = {**hf_matmulfree.render(config, dtype), "_name_or_path": "synthetic"}
  fields |= {"fuse_cross_entropy": True, "transformers_version": "4.40.2"}
  (folder / "config.json").write_text(json.dumps(fields))
  rng = np.random.default_rng(0)
  shards, table = [{}], {}
  for entry in name_map.entries(config):
    value = 0.02 * rng.standard_normal(entry.shape, np.float32)
    shards[-1][entry.key] = value.astype(kind)
    if sum(x.nbytes for x in shards[-1].values()) > 300e6:
      shards.append({})
  for i, shard in enumerate(shards):
    name = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
    safetensors_numpy.save_file(shard, folder / name)
    table.update(dict.fromkeys(shard, name))
  index = {"metadata": {}, "weight_map": table}
  (folder / folders.INDEX).write_text(json.dumps(index))
  assert len(shards) > 2
  del shards, shard, value
  out = subprocess.run(
    [sys.executable, "-c", _LOAD, str(folder)],
    cwd=repo_root,
    capture_output=True,
    text=True,
    check=True,
  )
  count, expected, gigabytes = json.loads(out.stdout)
  assert count == expected == 374_108_160
  # GiB; the float32 result is 1.39, and the files are mapped, not copied.
  assert gigabytes < (2.6 if dtype == "bfloat16" else 3.3)
