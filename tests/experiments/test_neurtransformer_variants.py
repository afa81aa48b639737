"""Variants of the recipe: what can be asked for, and all of it in small."""

import importlib.util
import json

import pytest

from jaxnmc.errors import UserError


@pytest.fixture
def variants(repo_root, monkeypatch):
  monkeypatch.syspath_prepend(str(repo_root / "experiments"))
  return importlib.import_module("neurt.variants")


def test_values_have_the_type_of_their_field(variants):
  found = variants.parse(
    ["ticks=2,8", "neuron=if", "signed=false", "share=95", "seed=3"]
    + ["windows=none", "surrogate=boxcar"]
  )
  assert found == [
    ("ticks 2", {"ticks": 2}),
    ("ticks 8", {"ticks": 8}),
    ("if", {"neuron": "if"}),
    ("signed false", {"signed": False}),
    ("share 95", {"share": 95.0}),
    ("seed 3", {"seed": 3}),
    ("windows none", {"windows": None}),
    ("boxcar", {"surrogate": "boxcar"}),
  ]


@pytest.mark.parametrize(
  ("text", "said"),
  [
    ("mood=good", "found 'mood'; allowed are ticks"),
    ("ticks", "each with values, as ticks=2,8"),
    ("ticks=few", "--vary ticks: found 'few'; allowed are numbers from 1 to"),
    ("ticks=0", "found '0'"),
    ("ticks=none", "found 'none'"),
    ("seed=-1", "found '-1'"),
    ("share=150", "allowed are numbers from 0 to 100"),
    ("signed=none", "found 'none'; allowed: true, false"),
    ("neuron=hh", "found 'hh'; allowed: lif, if"),
    ("surrogate=nope", "found 'nope'; allowed: atan, "),
    ("windows=2", "found '2'; allowed: none"),
  ],
)
def test_what_cannot_vary(variants, text, said):
  with pytest.raises(UserError, match=said):
    variants.parse([text])


def test_heads_get_windows_from_all_of_the_range(variants):
  windows = importlib.import_module("neurt.windows").spread
  assert windows([2, 3, 4, 8, 16, 64], 6) == (2, 3, 4, 8, 16, 64)
  assert windows([2, 3, 4, 8, 16, 0], 3) == (2, 4, None)
  assert windows([], 4) is None
  with pytest.raises(UserError, match="found 2 of them for 3 heads"):
    windows([2, 3], 3)


@pytest.mark.slow
def test_smoke(smoke, tmp_path):
  path, work = tmp_path / "found.json", tmp_path / "runs"
  flags = ("--workdir", work, "--json", path)
  drawn = importlib.util.find_spec("matplotlib") is not None
  if drawn:
    flags += ("--plot", tmp_path)
  smoke("neurtransformer_variants", *flags, compile_fast=True)
  found = json.loads(path.read_text())
  rows = {row["variant"]: row for row in found["rows"]}
  picture = tmp_path / "neurtransformer_variants.png"
  assert picture.exists() == drawn
  assert list(rows) == ["as it is", "ticks 1", "boxcar", "seed 1"]
  assert rows["ticks 1"]["attention"]["attention_ticks"] == 1
  assert [row["control"] is None for row in found["rows"]] == [False] + [
    True
  ] * 3
  change = {n: row["attention"]["change"]["value"] for n, row in rows.items()}
  # Another slope, or another order of the text, is another model.
  assert len(set(change.values())) == 4
  again = smoke("neurtransformer_variants", *flags, compile_fast=True)
  assert again.stderr.count("done before") == 4
  assert json.loads(path.read_text())["rows"] == found["rows"]
