"""`jaxnmc vocab`: a folder that other commands take, and its table."""

import json
import os

import jax
import numpy as np
import pytest

import jaxnmc
from jaxnmc.io import zoo
from jaxnmc.io.tokenizer import BPETokenizer, ByteTokenizer
from jaxnmc.models import gpt, matmulfree

TEXT = "turn the lights on. turn the heating down. is the heating on?" * 4


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
  path = tmp_path_factory.mktemp("text") / "text.txt"
  path.write_text(TEXT)
  return path


@pytest.fixture(scope="module")
def wordy(tmp_path_factory):
  """A transformer of 300 tokens with a head of its own."""
  tokenizer = BPETokenizer.train([TEXT], 300)
  config = gpt.Config(
    vocab_size=tokenizer.vocab_size,
    hidden_size=8,
    num_layers=1,
    num_heads=2,
    max_position_embeddings=16,
    positions="learned",
    tie_word_embeddings=False,
  )
  params = gpt.init_params(config, jax.random.key(0))
  folder = tmp_path_factory.mktemp("wordy") / "gpt"
  return str(zoo.write(folder, config, params, tokenizer, "card"))


def test_the_folder_and_the_table(run, as_json, wordy, sample, tmp_path):
  before = jaxnmc.load(wordy)
  whole = before.config.vocab_size
  folder = tmp_path / "cut"
  flags = ("--text", sample, "--size", 270, "--out", folder)
  status, out, err = run("vocab", wordy, *flags, "--json", tmp_path / "r.json")
  assert status == 0, err
  data = json.loads((tmp_path / "r.json").read_text())
  assert json.loads((folder / "vocabulary.json").read_text()) == data
  assert sorted(os.listdir(folder)) == [
    *("final.npz", "tokenizer.npz", "vocabulary.json")
  ]
  after = jaxnmc.load(folder)
  assert after.config.vocab_size == after.tokenizer.vocab_size == 270
  rows = data["before"], data["after"]
  assert [row["tokens"] for row in rows] == [whole, 270]
  assert [row["bytes"] for row in rows] == [len(TEXT)] * 2
  assert [row["ids"] for row in rows] == [
    len(m.tokenizer.encode(TEXT)) for m in (before, after)
  ]
  # Two tables of 8 columns lost their rows.
  lost = rows[0]["parameters"] - rows[1]["parameters"]
  assert lost == 2 * 8 * (whole - 270)
  assert rows[1]["megabytes"] == 4e-6 * rows[1]["parameters"]
  kept = np.array(data["kept"])
  np.testing.assert_array_equal(
    after.params["head"]["weight"],
    np.asarray(before.params["head"]["weight"])[kept],
  )
  for words in (f"{whole}", "270", "bits per byte (measured)", "--score"):
    assert words in out
  # The scorer is that of `evaluate`.
  found = as_json("evaluate", folder, "--text", sample)
  assert found["bits_per_byte"] == pytest.approx(rows[1]["bits_per_byte"])


def test_ternary_matrices_survive_the_folder(run, sample, tmp_path):
  # All of its 259 tokens stay; weights come as codes and go as latents.
  config = matmulfree.Config(
    vocab_size=259, hidden_size=8, num_layers=1, intermediate_size=8
  )
  params = matmulfree.init_params(config, jax.random.key(0))
  whole, folder = tmp_path / "whole", tmp_path / "same"
  zoo.write(whole, config, params, ByteTokenizer(), "card")
  other = tmp_path / "other.txt"
  other.write_text("off\n<|endoftext|>\nmore")
  status, out, err = run(
    *("vocab", whole, "--text", sample, "--size", 259, "--out", folder),
    *("--score", other, "--documents", 1),
  )
  assert status == 0, err
  assert "Scored on the text" not in out
  data = json.loads((folder / "vocabulary.json").read_text())
  assert data["before"] == pytest.approx(data["after"], rel=1e-5)
  assert data["before"]["bytes"] == len("off")
  logits = [
    jax.jit(jaxnmc.reference(m.fn))(m.params, {"ids": np.arange(9)})[0].logits
    for m in map(jaxnmc.load, (whole, folder))
  ]
  np.testing.assert_allclose(*logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (("--size", 258), "allowed are 259"),
    (("--size", 301), "tokens that there are"),
    (("--size", 0), "positive integer"),
    (("--size", 270, "--score", "none.txt"), "none.txt"),
  ],
)
def test_bad_flags_are_one_line(refused, wordy, sample, tmp_path, flags, words):
  folder = tmp_path / "cut"
  call = ("vocab", wordy, "--text", sample, "--out", folder, *flags)
  assert words in refused(*call)
  assert not os.listdir(tmp_path)


def test_a_taken_folder_is_refused_before_the_work(refused, sample, tmp_path):
  (tmp_path / "file").write_text("")
  call = ("vocab", "no model", "--text", sample, "--out", tmp_path)
  assert "exists already" in refused(*call)
