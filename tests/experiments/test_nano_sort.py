"""The converted sorter: in small, and the checkpoint at the claimed ticks."""

import json

import pytest


def test_blocks_as_converted(smoke, tmp_path):
  path = tmp_path / "out.json"
  flags = ("--json", path, "--tune", 0, "--chip_ticks", 0)
  done = smoke("nano_sort", *flags, compile_fast=True)
  assert "nothing is claimed" in done.stdout
  data = json.loads(path.read_text())
  assert data["claim_holds"] is None
  assert data["chip"] is None
  rows = [(row["ticks"], row["attention"]) for row in data["rows"]]
  assert rows == [(2, "softmax"), (2, "converted")]
  assert data["dense"]["same_as_dense"] == data["inputs"] == 8


@pytest.mark.slow
def test_all_of_it_on_cores(smoke, tmp_path):
  path = tmp_path / "out.json"
  smoke("nano_sort", "--json", path, compile_fast=True)
  data = json.loads(path.read_text())
  assert data["rows"][-1]["attention"] == "tuned"
  chip = data["chip"]
  assert chip["ticks"] == 2
  assert set(chip["equal"]) == {"spiking", "functional", "stepped"}
  assert all(equal == size > 0 for equal, size in chip["equal"].values())


def test_steps_on_attention_leave_the_rest(load_script):
  script = load_script("nano_sort")
  config = script.gpt.Config(
    vocab_size=script.SYMBOLS,
    hidden_size=8,
    num_layers=1,
    num_heads=2,
    max_position_embeddings=2 * script.LENGTH - 1,
    norm="layer",
    mlp="relu",
    positions="learned",
    attention="ssa",
    ticks=2,
    initializer_range=0.5,
  )
  params = script.gpt.init_params(config, script.jax.random.key(0))
  tuned = script.tune(config, params, script.draw(1, 20), 3)
  paths = script.jax.tree_util.tree_map_with_path(
    lambda path, a, b: (
      script.jax.tree_util.keystr(path, simple=True, separator="."),
      bool((a == b).all()),
    ),
    *(params, tuned),
  )
  pairs = script.jax.tree.leaves(paths, is_leaf=lambda x: isinstance(x, tuple))
  assert {same for path, same in pairs if ".attn." not in path} == {True}
  assert {path for path, same in pairs if ".attn." in path and not same} >= {
    f"layers.0.attn.{name}.weight" for name in "qkv"
  }


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
