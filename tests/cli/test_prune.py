"""`jaxnmc prune`: a folder that other commands take, and its report."""

import json
import os

import jax
import numpy as np
import pytest

import jaxnmc
from jaxnmc import cli
from jaxnmc.compress import heads, masks, shrink, units
from jaxnmc.io import zoo
from jaxnmc.io.tokenizer import ByteTokenizer
from jaxnmc.models import gpt


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
  """Two layers of 4 heads and 20 units, the second far stronger."""
  tokenizer = ByteTokenizer()
  config = gpt.Config(
    vocab_size=tokenizer.vocab_size,
    hidden_size=16,
    num_layers=2,
    num_heads=4,
    intermediate_size=20,
    max_position_embeddings=8,
    norm="layer",
    norm_eps=1e-3,
    mlp="relu",
    positions="learned",
    bias=True,
    bos_token_id=tokenizer.bos_id,
    eos_token_id=tokenizer.eos_id,
  )
  params = gpt.init_params(config, jax.random.key(0))
  params["layers"][1] = jax.tree.map(lambda x: 4 * x, params["layers"][1])
  folder = tmp_path_factory.mktemp("dense") / "gpt"
  return str(zoo.write(folder, config, params, tokenizer, "card"))


@pytest.fixture(scope="module")
def made(dense, tmp_path_factory):
  """(folder, JSON) of heads, units and a mask."""
  folder = tmp_path_factory.mktemp("prune")
  target = folder / "report.json"
  status = cli.main(
    [
      *("prune", dense, "--heads", "0.4", "--units", "0.3", "--mask", "2:4"),
      *("--out", str(folder / "made"), "--json", str(target)),
    ]
  )
  assert status == 0
  return folder / "made", json.loads(target.read_text())


def test_the_folder_is_the_model_that_the_library_gives(made, dense):
  folder, data = made
  assert sorted(os.listdir(folder)) == [
    *("final.npz", "pruning.json", "tokenizer.npz")
  ]
  before, model = jaxnmc.load(dense), jaxnmc.load(folder)
  config, params = before.config, before.params
  some = heads.keep(config, params, 0.4)
  assert [int(x.sum()) for x in some] == [1, 4]
  small, pruned = shrink.shrink(
    config, params, some, units.keep(config, params, 0.3)
  )
  assert model.config == small
  assert small.heads_per_layer == (1, 4)
  assert small.intermediate_size == 14
  want = masks.apply(pruned, masks.n_of_m(pruned, 2, 4))
  jax.tree.map(np.testing.assert_array_equal, model.params, want)
  assert data["kept"]["heads"] == [x.tolist() for x in some]
  # Complete without the terminal.
  assert json.loads((folder / "pruning.json").read_text()) == data


def test_the_report_counts(made):
  _, data = made
  first, second = data["layers"]
  assert (first["heads"], second["heads"]) == ([4, 1], [4, 4])
  assert first["units"] == second["units"] == [20, 14]
  shapes = lambda heads, units: (
    3 * (16 + 1) * 4 * heads + (4 * heads + 1) * 16 + 17 * units + 16 * units
  )
  sizes = [shapes(4, 20) + 16 + 64, shapes(1, 14) + 16 + 64]
  assert first["parameters"] == sizes
  assert first["bytes"] == [4 * n for n in sizes]
  total = data["total"]
  assert total["parameters"][0] - total["parameters"][1] == (
    sum(row["parameters"][0] - row["parameters"][1] for row in data["layers"])
  )
  # 14 and 4 inputs are no multiple of 4: half of them, all but.
  assert 0.45 < total["zeros"] <= 0.5
  assert data["label"] == "measured"


def test_the_table_fits(run, dense, tmp_path):
  status, said, _ = run(
    *("prune", dense, "--units", 0.3, "--rank", "global"),
    *("--sparsity", 0.25, "--out", tmp_path / "made"),
  )
  assert status == 0
  lines = [x for x in said.splitlines() if str(tmp_path) not in x]
  assert max(map(len, lines)) <= 80
  (row,) = [x for x in lines if x.startswith("1 ")]
  assert "4 → 4" in row
  assert "20 → 20" in row
  assert "25.0" in row
  (row,) = [x for x in lines if x.startswith("0 ")]
  assert "20 → 8" in row


def test_other_commands_take_the_folder(as_json, made, tmp_path):
  folder, data = made
  text = tmp_path / "text.txt"
  text.write_text("1 2 3 4 5 6\n")
  scored = as_json("evaluate", folder, "--text", text)
  assert 0 < scored["bits_per_byte"] < 30
  about = as_json("info", folder)
  assert about["parameters"]["total"] == data["total"]["parameters"][1]
  assert about["config"]["heads_per_layer"] == [1, 4]
  assert about["operations_per_token"]["exponentials"] == 5 * 8


def test_and_prune_it_again(as_json, made, tmp_path):
  folder, _ = made
  data = as_json("prune", folder, "--heads", 0.6, "--out", tmp_path / "again")
  assert data["total"]["heads"] == [5, 2]
  assert jaxnmc.load(tmp_path / "again").config.num_heads == 1


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    ((), "nothing to prune; give --heads, --units, --mask or --sparsity"),
    (("--heads", 0.9), "removes 7 of 8 heads, but each layer keeps at least 1"),
    (("--units", 0.99), "removes 20 of 20 units, but the layer keeps at lea"),
    (("--heads", 1), "heads: found a share of 1.0 to remove, allowed is 0"),
    (("--units", "nan"), "units: found a share of nan"),
    (("--heads", "half"), "invalid float value: 'half'"),
    (("--heads", 0.4, "--rank", "global"), "--rank has no effect without"),
    (("--mask", "2-4"), "--mask: found '2-4', allowed is N:M"),
    (("--mask", "5:4"), "mask: found 5:4, allowed are whole numbers"),
    (("--mask", "2:4", "--sparsity", 0.5), "not allowed with"),
    (("--sparsity", 1.0), "sparsity: found 1.0, allowed is a share"),
  ],
)
def test_what_cannot_be_is_refused_in_a_line(
  refused, dense, tmp_path, flags, words
):
  assert words in refused("prune", dense, "--out", tmp_path / "made", *flags)
  assert not any(tmp_path.iterdir())


def test_a_model_that_is_no_transformer(refused, folders, tmp_path):
  line = refused(
    *("prune", folders["tiny"], "--heads", 0.4, "--out", tmp_path / "made")
  )
  assert "allowed is a transformer" in line
  assert folders["tiny"] in line


def test_a_taken_folder_stays_as_it_is(refused, dense, tmp_path):
  (tmp_path / "note").write_text("mine")
  assert "exists already" in refused(
    "prune", dense, "--heads", 0.4, "--out", tmp_path
  )
  assert (tmp_path / "note").read_text() == "mine"
