"""The long run: its smoke version, and that its verdicts can fail."""

import json

import numpy as np
import pytest

from jaxnmc.models import matmulfree


@pytest.fixture(scope="module")
def script(load_script):
  return load_script("long_run")


@pytest.mark.slow
def test_smoke(smoke, tmp_path):
  pytest.importorskip("matplotlib")
  folder = tmp_path / "out"
  done = smoke("long_run", "--workdir", folder, compile_fast=True)
  # Logits of 60 tokens twice; 16 state codes twice in each of 6 windows.
  expected = 2 * 60 * 48 + 6 * 2 * 16
  assert f"loihi == fixed: bit-equal ({expected:,} integers)" in done.stdout
  data = json.loads((folder / "result.json").read_text())
  assert data["constant"]
  assert [row["tokens"] for row in data["windows"]] == [10, 20, 30, 40, 50, 60]
  assert len({row["state_bytes"] for row in data["windows"]}) == 1
  assert (folder / "long_run.png").read_bytes().startswith(b"\x89PNG")


def _rows(script, count=12, **changes):
  """Windows whose series are constant but for some noise and `changes`."""
  draw = np.random.default_rng(0)
  rows = []
  for k in range(count):
    row = dict.fromkeys(script.SERIES, 100.0)
    row = {name: v + 0.01 * draw.normal() for name, v in row.items()}
    row |= {"tokens": 500 * (k + 1), "resident_bytes": 1e9, "state_bytes": 64}
    rows.append(row | {name: f(k) for name, f in changes.items()})
  return rows


def test_constant_series_are_called_so(script):
  found = script.slopes(_rows(script), 4608, smoke=False)
  assert {s["constant"] for s in found.values()} == {True, None}


@pytest.mark.parametrize(
  ("name", "growing"),
  [
    ("generate_tokens_per_s", lambda k: 100 - 0.2 * k),
    ("generate_mj_per_token", lambda k: 100 + 0.2 * k),
    ("host_old_to_young", lambda k: 1 - 0.01 * k),
    ("resident_bytes", lambda k: 1e9 + 500 * 4608 * k),
    ("state_bytes", lambda k: 64 + k),
  ],
)
def test_a_growing_series_is_called_so(script, name, growing):
  found = script.slopes(_rows(script, **{name: growing}), 4608, smoke=False)
  assert found[name]["constant"] is False
  others = [s["constant"] for k, s in found.items() if k != name]
  assert False not in others


def test_a_wrong_integer_is_counted(script):
  class Bare:
    integers = different = 0

  script.Run._compare(Bare, np.array([1, 2, 3]), np.array([1, 5, 3]))
  assert (Bare.integers, Bare.different) == (3, 1)


def test_the_cache_of_a_transformer(script):
  config = matmulfree.PRESETS["370M"]
  # Keys and values of 24 layers of 1024 in two bytes.
  assert script.cache_bytes_per_token(config) == 98304
