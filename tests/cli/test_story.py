"""`run` and `demo`: text that streams, integers that agree, what it cost."""

import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import pytest

import jaxnmc
from jaxnmc.cli import demo
from jaxnmc.io.tokenizer import ByteTokenizer
from jaxnmc.report import backends
from jaxnmc.report.bench import models

PROMPT = ("--prompt", "Once")


def test_run_float_streams_and_reports(run, folders, tmp_path):
  target, page = tmp_path / "out.json", tmp_path / "out.html"
  status, out, err = run(
    *("run", folders["tiny"], *PROMPT, "--tokens", 4, "--json", target),
    *("--report", page),
  )
  assert status == 0, err
  data = json.loads(target.read_text())
  assert out.startswith("Once" + data["text"])
  assert "tokens/s" in out
  assert len(data["ids"]) == data["tokens"] <= 4
  assert data["cost"] is None
  assert data["spikes"] is None
  assert data["host"]["label"] == "measured"
  assert "float on this machine" in out
  assert page.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
  "flags",
  [
    ("float",),
    pytest.param(("fake_quant",), marks=pytest.mark.slow),
    ("fixed",),
    ("loihi", "--engine", "functional"),
    pytest.param(("loihi", "--engine", "stepped"), marks=pytest.mark.slow),
  ],
  ids=" ".join,
)
def test_every_backend_stops_at_the_end_of_the_text(
  flags, run, folders, tmp_path, monkeypatch
):
  target = tmp_path / "out.json"
  command = ("run", folders["tiny"], *PROMPT, "--tokens", 6)
  command += ("--json", target, "--backend", *flags)
  run(*command)
  free = json.loads(target.read_text())
  assert not free["ended"]
  end = free["ids"][3]
  first = free["ids"].index(end)
  monkeypatch.setattr(ByteTokenizer, "eos_id", end)
  status, out, err = run(*command)
  assert status == 0, err
  data = json.loads(target.read_text())
  assert data["ids"] == free["ids"][:first]
  assert data["ended"]
  assert data["steps"] == first + 1
  assert f"[end of text after {first} tokens]" in out
  if data["cost"] is not None:
    # The end token itself never entered the cores.
    counted = data["counters"]["tokens"]
    assert counted == data["prompt_tokens"] + first


def test_equal_seeds_write_equal_text(as_json, folders):
  def ids(*flags):
    return as_json(
      *("run", folders["tiny"], *PROMPT, "--backend", "fixed", "--tokens", 6),
      *("--temperature", 2, *flags),
    )

  one, two, other = ids("--seed", 5), ids("--seed", 5), ids("--seed", 6)
  assert "(exact)" in one["sampling"]
  assert one["ids"] == two["ids"]
  assert one["ids"] != other["ids"]
  floats = ids("--seed", 5, "--float_sampler")
  assert "not exact" in floats["sampling"]


@pytest.mark.parametrize("engine", ["functional", "stepped"])
def test_demo_is_bit_equal(monkeypatch, run, folders, engine, tmp_path):
  monkeypatch.setattr(demo, "ZOO_MODEL", folders["tiny"])
  target = tmp_path / "out.json"
  status, out, err = run(
    "demo", "--tokens", 5, "--engine", engine, "--json", target
  )
  assert status == 0, err
  data = json.loads(target.read_text())
  model = jaxnmc.load(folders["tiny"])
  # Logits of every position and one state per layer.
  tokens = data["prompt_tokens"] + data["steps"] - 1
  count = tokens * model.config.vocab_size + model.config.state_size
  assert data["integers"] == count
  last = out.strip().splitlines()[-1]
  assert last == f"loihi == fixed: bit-equal ({count:,} integers)"
  assert "mJ/token" in out
  tables = out[out.index("loihi on this machine") :].splitlines()
  assert max(map(len, tables)) <= 80
  assert data["cost"]["generate_mj_per_token"]["value"] > 0
  assert data["placement"]["chips_used"] == 1
  assert data["counters"]["tokens"] == tokens


def test_demo_sees_a_wrong_integer(monkeypatch, run, folders):
  monkeypatch.setattr(demo, "ZOO_MODEL", folders["tiny"])

  def almost(model, name, **options):
    placed = real(model, name, **options)

    def wrong(params, inputs, state):
      out, state, counters = placed.run(params, inputs, state)
      q = np.array(out.logits.q)
      q[..., -1, -1] += 1
      return out.replace(logits=out.logits.replace(q=q)), state, counters

    return dataclasses.replace(placed, run=wrong)

  real = backends.prepare
  monkeypatch.setattr(demo.backends, "prepare", almost)
  status, out, _ = run("demo", "--tokens", 2, "--engine", "functional")
  assert status == 1
  assert "loihi != fixed: 2 of" in out


def test_fewest_chips_are_found(monkeypatch):
  from jaxnmc.errors import PlacementError

  asked = []

  def place(graph, hardware):
    asked.append(hardware.chips)
    if hardware.chips < graph:
      raise PlacementError("too few")
    return hardware.chips

  monkeypatch.setattr(jaxnmc, "place", place)
  for need in (1, 2, 3, 5, 24, 1152):
    assert backends.place_on(need, None) == need
  assert backends.place_on(7, 9) == 9
  with pytest.raises(PlacementError):
    backends.place_on(1153, None)
  assert len(asked) < 90


def test_text_needs_a_tokenizer(folders):
  from jaxnmc.errors import TokenError

  model = jaxnmc.load(folders["tiny"]).replace(tokenizer=None)
  with pytest.raises(TokenError, match=r"tokenizer\.npz"):
    backends.encode_prompt(model, "Once")
  (batch,) = backends.calibration_batches(model, None)
  assert batch["ids"].max() < model.config.vocab_size
  assert backends.begin_id(model) == model.config.bos_token_id


@pytest.mark.parametrize(
  ("ids", "words"),
  [([], "no token ids"), ([5, 259], "id 259"), ([-1, 3], "id -1")],
)
def test_ids_of_another_tokenizer_are_refused(folders, ids, words):
  from jaxnmc.errors import TokenError

  class Foreign:
    bos_id = 1

    def encode(self, text):
      return np.array(ids, np.int32)

  model = jaxnmc.load(folders["tiny"]).replace(tokenizer=Foreign())
  with pytest.raises(TokenError, match=words):
    backends.encode_prompt(model, "Once")


def test_fake_quant_in_float64_equals_fixed(folders):
  model = jaxnmc.load(folders["tiny"])
  ids = {"ids": np.array([[1, 70, 80]], np.int32)}
  fixed = backends.prepare(model, "fixed")
  fake = backends.prepare(model, "fake_quant")
  assert fake.plan == fixed.plan
  with jax.enable_x64(True):
    params = jax.tree.map(
      lambda x: np.asarray(x, np.float64) if x.dtype.kind == "f" else x,
      jax.device_get(fake.params),
    )
    one = jax.jit(fake.run)(params, ids)[0].logits.q
  two = jax.jit(fixed.run)(fixed.params, ids)[0].logits.q
  np.testing.assert_array_equal(one, two)


@pytest.mark.slow
def test_bench_times_models(monkeypatch, as_json, folders):
  monkeypatch.setattr("jaxnmc.cli.bench.ZOO_MODEL", folders["tiny"])
  data = as_json("bench", "--quick")
  models = [row for row in data["rows"] if row["group"] == "model"]
  assert [row["name"] for row in models] == [
    f"{backend} {what}"
    for backend in ("float", "fixed", "loihi")
    for what in ("prefill 16", "decode")
  ]
  assert all(row["tokens_per_s"] > 0 for row in models)
  assert data["rows"][0]["name"] == "read memory"


@pytest.mark.slow
def test_bench_times_a_shape(monkeypatch, as_json, folders, capsys):
  monkeypatch.setattr("jaxnmc.cli.bench.ZOO_MODEL", folders["tiny"])
  data = as_json("bench", "--quick", "--shape", "tiny")
  rows = {r["name"]: r for r in data["rows"] if r["group"] == "tiny"}
  assert set(rows) == {
    f"{backend} {what}"
    for backend in ("float", "fixed", "loihi")
    for what in ("prefill 16", "decode")
  }
  row = rows["loihi decode"]
  ratio = rows["float decode"]["median_s"] / row["median_s"]
  assert row["times_float"] == ratio
  assert row["weight_bytes"] > 0
  assert row["tokens"] == models.TOKENS == row["copies"]
  assert row["tokens_per_s"] == row["tokens"] / row["median_s"]
  assert "commit" in data


def test_compiled_programs_are_kept(folders, tmp_path):
  """In a process of its own: JAX takes the folder once."""
  flags = ["--prompt", "ab", "--tokens", "2", "--backend", "loihi"]
  flags += ["--compile-cache", str(tmp_path / "c")]
  command = [sys.executable, "-m", "jaxnmc", "run", str(folders["tiny"])]
  done = subprocess.run([*command, *flags], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert any((tmp_path / "c").iterdir())
