"""`jaxnmc spikes`: a folder that other commands take, and its report."""

import json
import os
import pathlib

import numpy as np
import pytest

import jaxnmc
from jaxnmc import cli
from jaxnmc.io import name_map
from jaxnmc.models import gpt
from jaxnmc.models.to_spikes import Recipe, convert


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
  path = tmp_path_factory.mktemp("text") / "text.txt"
  path.write_text(" ".join(map(str, range(600))))
  return path


@pytest.fixture(scope="module")
def made(transformer, sample, tmp_path_factory):
  """(folder, JSON) of both conversions."""
  folder = tmp_path_factory.mktemp("spikes")
  target = folder / "report.json"
  status = cli.main(
    [
      *("spikes", transformer, "--text", str(sample), "--ids", "1400"),
      *("--out", str(folder / "made"), "--ticks", "2", "--mlp-ticks", "4"),
      *("--signed", "--windows", "2,all", "--share", "90"),
      *("--json", str(target)),
    ]
  )
  assert status == 0
  return folder / "made", json.loads(target.read_text())


def test_the_folder_is_the_model_that_convert_gives(made, transformer, sample):
  folder, data = made
  assert sorted(os.listdir(folder)) == [
    *("conversion.json", "final.npz", "tokenizer.npz")
  ]
  model, dense = jaxnmc.load(folder), jaxnmc.load(transformer)
  config = model.config
  assert (config.attention, config.ticks, config.mlp_ticks) == ("ssa", 2, 4)
  assert (config.signed, config.windows) == (True, (2, None))
  ids = dense.tokenizer.encode(sample.read_text())[:1400].reshape(200, 7)
  ids = np.insert(ids, 0, dense.tokenizer.bos_id, axis=1)
  how = Recipe(ticks=2, mlp_ticks=4, signed=True, windows=(2, None), share=90)
  want_config, want = convert(dense.config, dense.params, ids, how)
  assert config == want_config
  for path in ("mlp.fire", "mlp.down.bias", "attn.ssa.out", "attn.o.weight"):
    found, expected = (
      name_map.get(params, "layers.0." + path)
      for params in (model.params, want)
    )
    np.testing.assert_array_equal(found, expected)
  assert data["ids"] == ids.size
  # Complete without the terminal.
  assert json.loads((folder / "conversion.json").read_text()) == data


def test_the_report_names_parts_and_errors(made):
  _, data = made
  part = {row["part"]: row["becomes"] for row in data["parts"]}
  assert part["GELU"] == part["W_o"] == part["W_down"] == "spikes"
  assert part["softmax"] == "gone"
  for name in ("embedding", "head", "LayerNorm of each block"):
    assert part[name] == "float"
  (row,) = data["layers"]
  rates = row["attention"]["rates"]
  assert sorted(rates) == ["k", "out", "q", "v"]
  assert all(0 < rate < 1 for rate in rates.values())
  assert 0 < row["attention"]["error"] < 1


def test_other_commands_take_the_folder(run, as_json, made, sample):
  folder, _ = made
  text = sample.with_name("short.txt")
  text.write_text("1 2 3 4 5 6\n")
  story = ("run", folder, "--prompt", "12", "--tokens", 3)
  # Integers take a head of its own, or a plan with 8 bits for the table.
  # It may end its text before.
  assert 1 <= len(as_json(*story)["ids"]) <= 3
  scored = as_json("evaluate", folder, "--text", text)
  assert 0 < scored["bits_per_byte"] < 30
  about = as_json("info", folder)
  assert about["parameters"]["thresholds"] == 4 * 16 + 4 * 24
  assert "exponentials" not in about["operations_per_token"]
  # A head of 8: a pair is added and read, in 2 ticks.
  assert about["operations_per_token"]["spiking_attention_adds"] == 2 * 16 * 16


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (("--ticks", 0), "positive integer"),
    (("--mlp-ticks", 65), "from 1 to 64"),
    (("--keep-attention", "--keep-mlp"), "convert nothing"),
    (("--keep-attention", "--signed"), "--signed has no effect"),
    (("--keep-mlp", "--mlp-top", "maximum"), "--mlp_top has no effect"),
    (("--ticks", 2, "--keep-attention"), "not allowed with"),
    (("--windows", "2,0"), "positive integers and 'all'"),
    (("--windows", "2"), "a list of 2"),
    (("--ids", 100), "percentile 99.9 needs at least 1000"),
    (("--mlp-top", "most"), "allowed are least_error, maximum"),
    (("--text", "nowhere.txt"), "nowhere.txt: cannot be read"),
  ],
)
def test_what_cannot_be_is_refused_in_a_line(
  refused, transformer, sample, tmp_path, flags, words
):
  argv = ("spikes", transformer, "--text", sample, "--out", tmp_path / "made")
  assert words in refused(*argv, *flags)
  assert not any(tmp_path.iterdir())


def test_a_model_that_is_no_transformer(refused, folders, sample, tmp_path):
  line = refused(
    *("spikes", folders["tiny"], "--text", sample, "--out", tmp_path / "made")
  )
  assert "family 'matmulfree'" in line
  assert f"'jaxnmc run {folders['tiny']} --backend spiking" in line


def test_what_spikes_already_is_no_input(refused, made, sample, tmp_path):
  folder, _ = made
  line = refused("spikes", folder, "--text", sample, "--out", tmp_path / "b")
  assert "is 'ssa' already" in line


def test_a_taken_folder_stays_as_it_is(refused, transformer, sample, tmp_path):
  (tmp_path / "note").write_text("mine")
  argv = ("spikes", transformer, "--text", sample, "--out")
  assert "exists already" in refused(*argv, tmp_path)
  assert (tmp_path / "note").read_text() == "mine"
  missing = pathlib.Path(tmp_path) / "no" / "made"
  assert "make " in refused(*argv, missing)


def test_positions_may_go(as_json, transformer, sample, tmp_path):
  flags = ("--positions", "none", "--keep-mlp", "--ids", 700)
  data = as_json(
    *("spikes", transformer, "--text", sample, "--out", tmp_path / "made"),
    *(*flags, "--share", 90),
  )
  part = {row["part"]: row["becomes"] for row in data["parts"]}
  assert (part["positions"], part["GELU"]) == ("gone", "float")
  assert data["layers"][0]["feed_forward"] is None
  model = jaxnmc.load(tmp_path / "made")
  assert isinstance(model.config, gpt.Config)
  assert "positions" not in model.params
