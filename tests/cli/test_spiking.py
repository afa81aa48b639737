"""`--backend spiking`: the integers of `fixed`, and what was sent for them."""

import json

import pytest

STORY = ("--prompt", "Once", "--tokens", 3)


def test_run_says_what_was_sent(run, folders, tmp_path):
  target, page = tmp_path / "out.json", tmp_path / "out.html"
  status, out, err = run(
    *("run", folders["tiny"], *STORY, "--backend", "spiking"),
    *("--temperature", 1),
    *("--json", target, "--report", page),
  )
  assert status == 0, err
  data = json.loads(target.read_text())
  assert data["sampling"] == "sampled by the integer sampler (exact)"
  sent = data["spikes"]
  # The last token is not fed in.
  assert sent["tokens"] == data["prompt_tokens"] + data["tokens"] - 1
  assert sent["code"] == "bitwise"
  names = [row["role"] for row in sent["roles"]]
  assert names[0] == "layers.*.attn.in_norm.i"
  assert names[-1] == "final.in_norm.head"
  assert len(names) == 7
  for row in sent["roles"]:
    assert (row["bits"], row["ticks"]) == ([16], [15])
    assert 0 < row["rate"] < 1
    assert row["synops_per_token"] < row["stored_synops_per_token"]
    assert row["messages_per_token"] < row["spikes_per_token"]
  for name in ("spikes_per_token", "synops_per_token", "messages_per_token"):
    each = sum(row[name] for row in sent["roles"])
    assert sent[name] == pytest.approx(each, rel=1e-12)
  assert sent["energy"]["label"] == "modelled"
  arithmetic = 1 - sent["energy"]["spiking"] / sent["energy"]["dense"]
  assert sent["saved"]["arithmetic"] == pytest.approx(arithmetic, rel=1e-9)
  assert "final.norm.root" in sent["graded"]
  html = page.read_text()
  for text in (out, html):
    assert "Spikes into matrix products, code bitwise" in text
    assert "bit-matched with memory" in text
    assert "layers.*.mlp.down.norm" in text
    assert "layers.*.attn.norm.square_low" in text


def test_evaluate_gives_the_logits_of_fixed(as_json, folders, tmp_path):
  text = tmp_path / "text.txt"
  text.write_text("A cat.\n<|endoftext|>\nTwo cats sat.\n")
  found = {
    flags: as_json(
      *("evaluate", folders["tiny"], "--text", text, "--backend", *flags)
    )
    for flags in (("fixed",), ("spiking", "--code", "twos", "--ticks", 17))
  }
  plain, spiking = found.values()
  assert spiking["backend"] == "spiking"
  assert spiking["logits_integers"] > 0
  for name in ("logits_integers", "logits_sha256", "nats", "ids"):
    assert spiking[name] == plain[name]


def test_what_does_not_fit_is_refused_before_a_word(refused, folders):
  story = ("run", folders["tiny"], *STORY, "--backend")
  line = refused(*story, "spiking", "--ticks", 14)
  assert "layers.0.attn.in_norm.i: codes of 16 bits" in line
  assert "take 15 ticks as spike code 'bitwise', but ticks is 14" in line
  assert "take 32639 ticks" in refused(*story, "spiking", "--code", "unary")
  assert "allowed are 1 to 31" in refused(*story, "spiking", "--ticks", 32)
  assert "invalid choice: 'morse'" in refused(
    *story, "spiking", "--code", "morse"
  )
  assert "positive integer" in refused(*story, "spiking", "--ticks", 0)
  for flags in (("--ticks", 8), ("--code", "twos")):
    assert "is about spikes" in refused(*story, "fixed", *flags)
  assert "is about cores" in refused(*story, "spiking", "--chips", 1)
