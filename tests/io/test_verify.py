"""Law 1: the model equals recorded outputs, and verify sees what does not."""

import json
import pathlib

import jax
import numpy as np
import pytest

from jaxnmc.errors import CheckpointError, TokenError
from jaxnmc.io import replay, zoo
from jaxnmc.io.compare import Comparison, kind_of
from jaxnmc.io.load import load
from jaxnmc.io.verify import verify
from jaxnmc.models import matmulfree
from tests.io import numpy_reference as ref

pytest.importorskip("safetensors")

GOLDEN = pathlib.Path(__file__).parent / "golden"
KINDS = {
  "activation_codes": 1,
  "float64": 18,
  "float32": 31,
  "gradient": 42,
  "gradient_norm": 1,
  "ids": 1,
  "loss": 1,
}


def _kinds(part):
  return {name: row["arrays"] for name, row in part["kinds"].items()}


@pytest.fixture(scope="module")
def arrays():
  with np.load(GOLDEN / "golden.npz", allow_pickle=False) as file:
    return {key: file[key] for key in file.files}


@pytest.fixture(scope="module")
def model():
  return load(GOLDEN)


def _save(folder, arrays):
  np.savez(folder / "recorded.npz", **arrays)
  return folder / "recorded.npz"


def test_own_golden_case():
  result = verify(GOLDEN, GOLDEN / "golden.npz")
  assert result["ok"], result["failed"]
  assert result["verdict"] == "float64"
  assert result["unknown"] == []
  assert result["skipped"] == {}
  assert result["float32"]["ok"]
  assert _kinds(result["float64"]) == KINDS
  # All but what exists in float64 only.
  f32 = {"activation_codes": 1, "float32": 31, "gradient": 42, "ids": 1}
  assert _kinds(result["float32"]) == f32
  assert "\n" not in json.dumps(result)
  assert not jax.config.jax_enable_x64


@pytest.mark.parametrize(
  ("case", "float64", "float32", "gradient"),
  [
    ("h64_l2", 11, 21, 22),
    pytest.param("h128_l3_heads4", 18, 31, 31, marks=pytest.mark.slow),
  ],
)
def test_reference_golden_case(shared_dir, case, float64, float32, gradient):
  folder = shared_dir / "golden" / "mmf" / case
  result = verify(folder, folder / "golden.npz")
  assert result["ok"], result["failed"]
  assert result["float32"]["ok"], result["float32"]
  assert result["unknown"] == []
  assert result["skipped"] == {}
  counts = {"float64": float64, "float32": float32, "gradient": gradient}
  assert _kinds(result["float64"]) == {**KINDS, **counts}
  with np.load(folder / "golden.npz", allow_pickle=False) as file:
    inputs = {"input_ids", "attention_mask", "prefill_len", "grad_names"}
    compared = set(file.files) - inputs
  assert result["float64"]["arrays"] == len(compared)


def test_golden_file_is_what_numpy_says(arrays):
  from safetensors.numpy import load_file

  config = json.loads((GOLDEN / "config.json").read_text())
  weights = load_file(GOLDEN / "model.safetensors")
  weights = {name: w.astype(np.float64) for name, w in weights.items()}
  args = arrays["input_ids"], arrays["attention_mask"]
  cut, steps = int(arrays["prefill_len"]), arrays["greedy_ids"].shape[1]
  found, net = ref.record(config, weights, *args, cut, steps)
  for name, value in found.items():
    double = arrays.get("f64/" + name)
    if double is not None:
      np.testing.assert_allclose(value, double, rtol=0, atol=1e-12)
    np.testing.assert_allclose(value, arrays[name], rtol=1e-6, atol=1e-6)
  assert net.margin > 3e-4
  np.testing.assert_allclose(net.loss(args[0]), arrays["loss_f64"], atol=1e-12)


# --- what must not pass


class NormedState(ref.Net):
  """The paper's printed order: norm on the state, swish on the gate."""

  def mixer(self, n, x, h, mask):
    inner = f"model.layers.{n}.attn."
    i = self.bit(inner + "i_proj", x)
    f = ref.sigmoid(self.bit(inner + "f_proj", x))
    if n > 0:
      f = self.bounds()[n] + (1 - self.bounds()[n]) * f
    u = i * ref.sigmoid(i) * (1 - f)
    states = []
    for t in range(x.shape[1]):
      h = f[:, t] * h + u[:, t]
      states.append(h)
    states = np.stack(states, 1)
    z = self.bit(inner + "g_proj", x)
    normed = ref.rms(states, self.w[inner + "g_norm.weight"], 1e-6)
    return self.bit(inner + "o_proj", normed * z * ref.sigmoid(z)), h


class WithoutFirst(ref.Net):
  """Lower bounds without subtracting the first layer's share."""

  def bounds(self):
    return super().bounds() + 1 / 3


def test_wrong_formulas_fail(arrays, model):
  from safetensors.numpy import load_file

  config = json.loads((GOLDEN / "config.json").read_text())
  weights = load_file(GOLDEN / "model.safetensors")
  weights = {name: w.astype(np.float64) for name, w in weights.items()}
  with jax.enable_x64(True):
    found = replay.Replay(model, arrays, "x", "float64").get("logits")
  for kind, good in ((ref.Net, True), (NormedState, False)):
    other = kind(config, weights).forward(arrays["input_ids"])[0]["logits"]
    result = Comparison("x")
    result.add("f64/logits", other, found)
    assert result.ok is good
  other = WithoutFirst(config, weights)
  other = other.forward(arrays["input_ids"])[0]["logits"]
  result.add("f64/logits", other, found)
  assert len(result.failed) == 2
  assert result.failed[1]["error"] > 0.1
  assert 0 <= result.failed[1]["argmax_agreement"] <= 1


def _few(arrays, *keys):
  return {k: arrays[k] for k in ("input_ids", *keys)}


def test_another_eps_fails_in_float64_only(arrays, model, tmp_path):
  config = matmulfree.Config(**{**vars(model.config), "bitlinear_eps": 1e-8})
  other = model.replace(config=config, fn=matmulfree.make(config))
  path = _save(tmp_path, _few(arrays, "f64/logits"))
  result = verify(other, path)
  assert not result["ok"]
  assert [row["array"] for row in result["failed"]] == ["f64/logits"]
  assert result["failed"][0]["error"] < 1e-3
  assert verify(model, path)["ok"]


def test_one_changed_weight_fails(arrays, model, tmp_path):
  params = jax.tree.map(lambda x: x, model.params)
  gain = params["layers"][1]["attn"]["g_norm"]
  params["layers"][1]["attn"]["g_norm"] = gain.at[3].multiply(1 + 1e-5)
  path = _save(tmp_path, _few(arrays, "f64/logits"))
  assert not verify(model.replace(params=params), path)["ok"]


def test_tampered_float32_array_fails(arrays, model, tmp_path):
  codes = arrays["act_codes_l0_i_proj"].copy()
  codes[0, 0, 0] += 1
  changed = _few(arrays, "f64/logits")
  changed["act_codes_l0_i_proj"] = codes
  changed["block_out_1"] = arrays["block_out_1"] * np.float32(1.001)
  changed["mystery"] = np.zeros(3)
  result = verify(model, _save(tmp_path, changed))
  failed = {row["array"] for row in result["failed"]}
  assert failed == {"act_codes_l0_i_proj", "block_out_1"}
  assert result["unknown"] == ["mystery"]


# --- files of users


def test_only_ids_and_logits(arrays, model, tmp_path):
  few = _few(arrays, "logits")
  result = verify(model, _save(tmp_path, few))
  assert result["ok"]
  assert result["verdict"] == "float32"
  assert "float64" not in result
  few["logits"] = few["logits"] + 1e-3
  assert not verify(model, _save(tmp_path, few))["ok"]


def test_one_sequence_without_a_batch_axis(arrays, model, tmp_path):
  few = {"input_ids": arrays["input_ids"][0], "logits": arrays["logits"][0]}
  few["state_1"] = arrays["state_1"][0]
  few["prefill_len"] = arrays["prefill_len"]
  few["decode_logits"] = arrays["decode_logits"][0]
  few["greedy_ids"] = arrays["greedy_ids"][0]
  result = verify(model, _save(tmp_path, few))
  assert result["ok"], result
  assert result["float32"]["arrays"] == 4


def test_ternary_checkpoint_has_no_gradients(arrays, model, tmp_path):
  params = zoo.rounded(model.config, model.params)
  params["embed"] = model.params["embed"]
  few = _few(arrays, "logits", "loss_f64", "masked_logits")
  result = verify(model.replace(params=params), _save(tmp_path, few))
  assert result["ok"]
  assert "ternary codes" in result["skipped"]["loss_f64"]
  assert "attention_mask" in result["skipped"]["masked_logits"]


@pytest.mark.parametrize(
  ("changes", "error", "words"),
  [
    ({"input_ids": None}, CheckpointError, ["input_ids", "missing"]),
    ({"input_ids": np.zeros((2, 6))}, CheckpointError, ["float64[2, 6]"]),
    ({"input_ids": np.zeros((2, 0), int)}, CheckpointError, ["not empty"]),
    ({"input_ids": np.full((2, 6), 20)}, TokenError, ["20", "0 ... 19"]),
    ({"input_ids": np.full((2, 6), -1)}, TokenError, ["-1", "0 ... 19"]),
    ({"logits": np.zeros((2, 6, 19))}, CheckpointError, ["logits", "19", "20"]),
    ({"logits": np.array("x")}, CheckpointError, ["logits", "<U1"]),
    ({"logits": None}, CheckpointError, ["nothing to compare"]),
    ({"prefill_len": np.int32(7)}, CheckpointError, ["prefill_len", "1 ... 6"]),
    ({"attention_mask": np.ones(3)}, CheckpointError, ["attention_mask"]),
    (
      {"grad_names": np.array(["a.b"]), "grad_l2": np.ones(1)},
      CheckpointError,
      ["grad_names", "a.b"],
    ),
  ],
)
def test_bad_recordings(arrays, model, tmp_path, changes, error, words):
  few = {**_few(arrays, "logits"), **changes}
  few = {k: v for k, v in few.items() if v is not None}
  path = _save(tmp_path, few)
  with pytest.raises(error) as caught:
    verify(model, path)
  for word in ("recorded.npz", *words):
    assert word in str(caught.value)


def test_damaged_recordings(model, tmp_path):
  data = (GOLDEN / "golden.npz").read_bytes()
  path = tmp_path / "cut.npz"
  for size in (0, 10, len(data) // 2, len(data) - 3):
    path.write_bytes(data[:size])
    with pytest.raises(CheckpointError, match="cut.npz"):
      verify(model, path)
  with pytest.raises(CheckpointError, match="no such file"):
    verify(model, tmp_path / "none.npz")
  np.savez(path, input_ids=np.array([{}], dtype=object))
  with pytest.raises(CheckpointError, match="cut.npz"):
    verify(model, path)


def test_tolerances_are_those_of_law_1():
  rows = [
    ("f64/logits", 2.0, 9e-10, 1.1e-9),
    ("loss_f64", 5.0, 9e-10, 1.1e-9),
    ("grad_l2", 0.5, 4e-10, 6e-10),
    ("logits", 10.0, 1.1e-4, 1.3e-4),
    ("grad/x", 3.0, 2.9e-4, 3.1e-4),
    ("act_codes_l0_i_proj", 4.0, 0, 1),
    ("greedy_ids", 4.0, 0, 1),
  ]
  for key, value, inside, outside in rows:
    for gap, good in ((inside, True), (outside, False)):
      result = Comparison("x")
      result.add(key, np.array([value]), np.array([value + gap]))
      assert result.ok is good, (key, gap)
  assert kind_of("f64/state_0") == "float64"
  result = Comparison("x")
  result.add("logits", np.array([1.0]), np.array([np.nan]))
  assert not result.ok
  assert json.dumps(result.summary(), allow_nan=False)
