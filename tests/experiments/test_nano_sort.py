"""The converted sorter: in small, and the checkpoint at the claimed ticks."""

import json


def test_smoke(smoke, tmp_path):
  path = tmp_path / "out.json"
  done = smoke("nano_sort", "--json", path, compile_fast=True)
  assert "nothing is claimed" in done.stdout
  data = json.loads(path.read_text())
  assert data["claim_holds"] is None
  rows = [(row["ticks"], row["attention_spikes"]) for row in data["rows"]]
  assert rows == [(2, False), (2, True)]
  assert data["dense"]["same_as_dense"] == data["inputs"] == 8


def test_feed_forward_blocks_as_spikes_still_sort(load_script, shared_dir):
  """At 16 ticks; without the checkpoint beside the repository, skipped."""
  script = load_script("nano_sort")
  config, params = script.mingpt.read(
    shared_dir / "data/checkpoints/gpt-nano-sort/gpt-nano-sort-model.json"
  )
  how = script.Recipe(ticks=None, mlp_ticks=16)
  made = script.convert(config, params, script.calibration(512), how)
  inputs = script.draw(0, 200)
  found = script.answers(*made, inputs)
  right = (found == script.np.sort(inputs, axis=1)).all(1).sum()
  assert right >= script.LEAST
