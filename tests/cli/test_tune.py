"""`jaxnmc tune` and `jaxnmc doctor` of a spiking model."""

import json
import os

import numpy as np
import pytest

import jaxnmc
from jaxnmc import cli
from jaxnmc.models import spike_counts


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
  path = tmp_path_factory.mktemp("text") / "text.txt"
  path.write_text(" ".join(map(str, range(500))))
  return path


@pytest.fixture(scope="module")
def tuned(transformer, sample, tmp_path_factory):
  """(folder, JSON) of a transformer, converted and tuned."""
  folder = tmp_path_factory.mktemp("tune")
  target = folder / "report.json"
  argv = ["tune", transformer, "--text", str(sample), "--ids", "1400"]
  argv += ["--budget", "0.1k", "--ticks", "2", "--passes", "1"]
  argv += ["--out", str(folder / "made"), "--json", str(target)]
  assert cli.main(argv) == 0
  return folder / "made", json.loads(target.read_text())


def test_the_folder_keeps_the_budget(tuned, transformer, sample):
  folder, data = tuned
  assert {"final.npz", "tokenizer.npz", "tune.json"} <= {*os.listdir(folder)}
  assert data["budget"] == 100
  assert data["search"]["start"]["spikes"] > 100
  assert data["search"]["best"]["spikes"] <= 100
  model, dense = jaxnmc.load(folder), jaxnmc.load(transformer)
  ids = dense.tokenizer.encode(sample.read_text())[:1400].reshape(200, 7)
  ids = np.insert(ids, 0, dense.tokenizer.bos_id, axis=1)
  counts = spike_counts.count(model.config, model.params, ids)
  assert counts.worst == data["search"]["best"]["spikes"]
  after = sum(row["after"] for row in data["sites"])
  assert after == pytest.approx(counts.mean)
  assert data["tokens"] == ids.size
  assert json.loads((folder / "tune.json").read_text()) == data


def test_a_spiking_model_and_a_grid(as_json, tuned, transformer, sample):
  folder, _ = tuned
  data = as_json(
    *("tune", folder, "--text", sample, "--grid", "--ids", 140),
    *("--multipliers", "1,2", "--reference", transformer),
  )
  assert [row["multiplier"] for row in data["grid"]] == [1, 2]
  assert data["grid"][0]["spikes"] >= data["grid"][1]["spikes"]
  assert [row["fits"] for row in data["grid"]] == [None, None]
  assert sum(row["best"] for row in data["grid"]) == 1
  assert data["reference"] == transformer


def test_doctor_names_neurons_that_do_not_fire(as_json, tuned, sample):
  folder, _ = tuned
  found = as_json("doctor", folder, "--text", sample)["model"]["spiking"]
  assert [row["site"] for row in found["neurons"]] == [
    *("q", "k", "v", "out", "mlp")
  ]
  for row in found["neurons"]:
    assert 0 <= row["dead"] <= row["neurons"]
  assert sum(row["dead"] for row in found["neurons"]) > 0
  assert found["ties"]["tokens"] == found["ids"] > 0


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    ((), "--budget is missing"),
    (("--budget", "2Q"), "found '2Q', allowed is a number"),
    (("--budget", "1k", "--ticks", "2,4"), "several need --grid"),
    (("--budget", "1k", "--multipliers", "2"), "no effect without --grid"),
    (("--grid", "--multipliers", "0"), "numbers above 0"),
    (("--budget", "1k", "--reference", "nowhere"), "nowhere"),
  ],
)
def test_what_cannot_be_is_refused_in_a_line(
  refused, tuned, sample, tmp_path, flags, words
):
  out = ("--out", tmp_path / "made")
  line = refused("tune", tuned[0], "--text", sample, "--ids", 70, *flags, *out)
  assert words in line
  assert not any(tmp_path.iterdir())


def test_what_spikes_already_has_its_ticks(refused, tuned, sample):
  line = refused(
    *("tune", tuned[0], "--text", sample, "--budget", 9, "--ticks", 4)
  )
  assert "spikes already" in line


def test_a_model_that_is_no_transformer(refused, folders, sample):
  line = refused("tune", folders["tiny"], "--text", sample, "--budget", 9)
  assert "family 'matmulfree'" in line
