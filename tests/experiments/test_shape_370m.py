"""The 370M experiment: its smoke version, and that its comparison can fail."""

import json
import re

import numpy as np
import pytest

from jaxnmc.models import matmulfree
from jaxnmc.numerics.fx import Fx
from jaxnmc.numerics.ternary import Ternary


@pytest.fixture(scope="module")
def script(load_script):
  return load_script("shape_370m")


@pytest.mark.slow
def test_smoke(smoke, tmp_path):
  done = smoke("shape_370m", "--workdir", tmp_path, compile_fast=True)
  assert "cores on 2 of 2 chips" in done.stdout
  # 15 tokens x 96 logits, and the state of 2 x 32 neurons after the prompt and
  # after each of 3 tokens.
  expected = 15 * 96 + 4 * 2 * 32
  assert f"loihi == fixed: bit-equal ({expected:,} integers)" in done.stdout
  assert "decode 3/3" in done.stderr
  data = json.loads((tmp_path / "result.json").read_text())
  assert data["equal"]
  assert data["integers"] == expected
  assert data["placement"]["host"]
  assert data["cost"]["tokens"] == {"prefill": 12, "generate": 3}
  assert 0 < data["peak_memory_bytes"] < 6e9
  assert (tmp_path / "plan.json").exists()
  assert not re.search(r"\bnan\b", done.stdout)


def _value(codes, frac=3):
  return {"logits": Fx(np.array(codes), frac=frac, low=-8, high=7)}


def test_comparison_counts_equal_integers(script):
  check = script._Comparison()
  check.add("prefill", _value([1, 2, 3]), _value([1, 2, 3]))
  assert check.verdict == "loihi == fixed: bit-equal (3 integers)"


@pytest.mark.parametrize(
  ("other", "wrong"),
  [(_value([1, 2, 4]), 1), (_value([1, 2, 3], frac=2), 3), (_value([1, 2]), 3)],
  ids=["code", "format", "shape"],
)
def test_comparison_names_a_difference(script, other, wrong):
  check = script._Comparison()
  check.add("decode 2", _value([1, 2, 3]), other)
  assert check.different == {"decode 2 logits": wrong}
  assert check.verdict.startswith(f"loihi != fixed: {wrong} of 3 integers")


def test_random_params_have_the_shape_and_no_float_matrix(script):
  config = matmulfree.Config(
    vocab_size=40, hidden_size=64, num_layers=2, intermediate_size=96
  )
  params = script.random_params(config, seed=3)
  matrices = [params["head"]["weight"]]
  for layer in params["layers"]:
    matrices += [layer["attn"][k]["weight"] for k in "ifgo"]
    matrices += [layer["mlp"][k]["weight"] for k in ("gate", "down")]
  assert all(isinstance(m, Ternary) for m in matrices)
  codes = np.concatenate([m.codes.ravel() for m in matrices])
  assert codes.dtype == np.int8
  assert set(np.unique(codes)) == {-1, 0, 1}
  share = np.count_nonzero(codes) / codes.size
  assert share == pytest.approx(166 / 256, abs=0.01)
  assert abs(codes.mean()) < 0.01
  same = script.random_params(config, seed=3)
  np.testing.assert_array_equal(
    codes[: 40 * 64], same["head"]["weight"].codes.ravel()
  )
