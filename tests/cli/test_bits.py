"""`jaxnmc bits` on a tiny model."""

import json

import pytest

from jaxnmc.quantize import Plan


@pytest.fixture
def text(tmp_path):
  path = tmp_path / "text.txt"
  path.write_text("Once there was a cat.\n<|endoftext|>\nThe end of it.\n")
  return path


@pytest.mark.slow
def test_every_wide_site_is_measured(as_json, folders, text):
  found = as_json(
    *("bits", folders["bare"], "--text", text, "--sites", ".*attn.*"),
    *("--bits", 8, 4, "--calibrate", text),
  )
  rows = found["effects"]
  assert {r["bits"] for r in rows} == {4, 8}
  assert all(".attn." in r["site"] for r in rows)
  harm = [r["divergence"]["value"] for r in rows]
  assert harm == sorted(harm, reverse=True)
  assert harm[0] > 0
  at = lambda b: sum(r["divergence"]["value"] for r in rows if r["bits"] == b)
  assert at(4) > at(8)


def test_a_search_writes_a_plan_that_other_commands_take(
  run, as_json, folders, text, tmp_path
):
  made, data = tmp_path / "plan.json", tmp_path / "data.json"
  status, out, err = run(
    *("bits", folders["bare"], "--text", text, "--loss", 2, "--bits", 4, 8),
    *("--out", made, "--json", data, "--calibrate", text),
  )
  assert status == 0, err
  assert "The choice (*) on the cores" in out
  found = json.loads(data.read_text())
  assert found["found"]["loss"]["value"] <= 0.02
  assert found["found"]["joules_per_token"] < max(
    one["joules_per_token"] for one in found["measured"]
  )
  before, after = (found["chip"][k] for k in ("start", "found"))
  assert after["synops_per_token"] < before["synops_per_token"]
  plan = Plan.load(made)
  assert plan.fingerprint == found["found"]["plan_sha256"]
  for site, bits in found["found"]["bits"].items():
    assert plan.format(site).bits == bits
  shown = as_json("plan", "show", made)
  assert shown["integers everywhere"]
  flags = ("--text", text, "--backend", "fixed", "--plan", made)
  assert as_json("evaluate", folders["bare"], *flags)["perplexity"] > 1


def test_a_transformer_is_measured_and_has_no_energy(
  as_json, refused, transformer, text, tmp_path
):
  """Each site has its harm; a search needs a chip that computes the model."""
  sites = ".*(gelu|attn.q|head.*)"
  flags = ("--text", text, "--sites", sites, "--bits", 4)
  found = as_json("bits", transformer, *flags)
  harms = {r["site"]: r["divergence"]["value"] for r in found["effects"]}
  assert set(harms) == {"layers.0.mlp.gelu", "layers.0.attn.q", "head"}
  assert min(harms.values()) > 1e-6
  target = tmp_path / "plan.json"
  said = refused("bits", transformer, *flags, "--loss", 1, "--out", target)
  for words in ("--loss", "ops.remember has no integer form", "leave it out"):
    assert words in said
  assert not target.exists()


@pytest.mark.parametrize(
  ("flags", "line"),
  [
    (("--out", "plan.json"), "--out goes with --loss"),
    (("--loss", "-1"), "0..100 percent"),
    (("--loss", "1", "--sites", ".*gated"), "crosses a synapse"),
    (("--sites", "("), "no regular expression"),
    (("--sites", "nothing"), "no site of more than 8 bits"),
    (("--bits", "1"), "2 to 24 bits|bits must lie in 2..24"),
  ],
)
def test_what_cannot_be_done_is_refused(refused, folders, text, flags, line):
  import re

  said = refused("bits", folders["bare"], "--text", text, *flags)
  assert re.search(line, said), said
