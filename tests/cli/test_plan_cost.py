"""`jaxnmc plan cost`: rule sets side by side on one text."""

import contextlib
import io
import json

import jax
import pytest

from jaxnmc import cli
from jaxnmc import quantize as qz
from jaxnmc.io import zoo
from jaxnmc.io.tokenizer import ByteTokenizer
from jaxnmc.models import matmulfree

NARROW = r"layers\.0\..*:bits=4,on=activation,override"


@pytest.fixture(scope="module")
def text(tmp_path_factory):
  path = tmp_path_factory.mktemp("text") / "text.txt"
  path.write_text("Once there was a cat.\n<|endoftext|>\nThe end of it.\n")
  return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  """A MatMul-free model that brings a plan; formats are felt in its logits."""
  tokenizer = ByteTokenizer()
  config = matmulfree.Config(
    vocab_size=tokenizer.vocab_size,
    hidden_size=16,
    num_layers=1,
    intermediate_size=24,
    rms_norm_eps=1e-3,
    bitlinear_eps=1e-3,
    bos_token_id=tokenizer.bos_id,
    eos_token_id=tokenizer.eos_id,
  )
  params = matmulfree.init_params(config, jax.random.key(0))
  params = jax.tree.map(lambda x: 8 * x if x.ndim == 2 else x, params)
  params = zoo.rounded(config, params)
  ids = jax.random.randint(jax.random.key(1), (2, 8), 0, config.vocab_size)
  stats = qz.calibrate(matmulfree.make(config))(params, [ids])
  plan = qz.plan(stats, qz.W8A16)
  folder = tmp_path_factory.mktemp("models") / "mmf"
  return str(zoo.write(folder, config, params, tokenizer, "card", plan))


@pytest.fixture(scope="module")
def cost(model, text, tmp_path_factory):
  """(what was printed, the JSON) of integers twice and a row in float."""
  target = tmp_path_factory.mktemp("cost") / "cost.json"
  printed = io.StringIO()
  argv = ["plan", "cost", model, "--text", text, "--json", target]
  argv += ["--plan", model, "--preset", "W8A16", "--rule", NARROW]
  argv += ["--row", "A8", "--eps", "1e-3"]
  with contextlib.redirect_stdout(printed):
    assert cli.main(list(map(str, argv))) == 0
  return printed.getvalue(), json.loads(target.read_text())


@pytest.mark.slow
def test_rows_of_any_rule_set(cost, model):
  data = cost[1]
  assert data["label"] == "measured; weights_bytes modelled"
  assert data["ids"] == len("Once there was a cat.The end of it.")
  own, narrow, row = data["rows"]
  assert own["asked"] == f"--plan {model}"
  assert narrow["asked"] == f"--preset W8A16 --rule {NARROW}"
  assert (narrow["name"], narrow["integers"]) == ("W8A16 +1", True)
  assert (row["name"], row["integers"]) == ("A8 row, eps 0.001", False)
  kl = lambda one, name: one[name]["kl"]["value"]
  for one in (own, narrow):
    for name in ("fake_quant", "fixed"):
      grown = one[name]["perplexity"] / data["float"]["perplexity"] - 1
      assert one[name]["change"]["value"] == pytest.approx(grown)
    # Two interpreters, one plan.
    assert kl(one, "fixed") == pytest.approx(kl(one, "fake_quant"), rel=0.05)
  assert 0 < kl(own, "fixed") < kl(narrow, "fixed") / 10
  assert kl(row, "fake_quant") < kl(narrow, "fake_quant")
  assert narrow["fixed"]["same_token"]["value"] < 1
  assert own["weights_bytes"] == narrow["weights_bytes"]
  assert own["weights_bytes"] < row["weights_bytes"]
  assert row["weights_bytes"] == data["float"]["weights_bytes"]


@pytest.mark.slow
def test_the_table_has_the_figures_and_the_refusal(cost):
  printed, data = cost
  lines = printed.splitlines()
  own, narrow, row = data["rows"]
  said = row["fixed"]["refused"]
  assert "leaves embed in float" in said
  assert f"* {row['name']}, fixed: {said}" in lines
  assert f"* {narrow['name']}: {NARROW}" in lines
  (table,) = (x for x in printed.split("\n\n") if "perplexity" in x)
  cells = [line.split() for line in table.splitlines()]
  for one, name in ((own, "fake_quant"), (own, "fixed"), (row, "fake_quant")):
    figures = (
      f"{one[name]['perplexity']:.3f}",
      f"{one[name]['kl']['value']:.2e}",
    )
    assert any(set(figures) < set(line) for line in cells), figures
  assert max(len(line) for line in lines if line[:1] != "*") <= 80


@pytest.mark.slow
def test_figures_are_those_of_evaluate(cost, as_json, model, text):
  """The plan that a model brings; the same ids by another way."""
  own = cost[1]["rows"][0]
  scored = as_json("evaluate", model, "--text", text, "--backend", "fixed")
  assert own["plan_sha256"] == scored["plan_sha256"]
  assert own["fixed"]["perplexity"] == pytest.approx(scored["perplexity"])
  floats = as_json("evaluate", model, "--text", text)
  perplexity = cost[1]["float"]["perplexity"]
  assert perplexity == pytest.approx(floats["perplexity"])


def test_a_transformer_is_priced_and_its_integers_refused(
  as_json, transformer, text
):
  """Both integer presets, as none is named."""
  found = as_json("plan", "cost", transformer, "--text", text)
  assert [row["name"] for row in found["rows"]] == ["W8A16", "W8A8"]
  for row in found["rows"]:
    assert row["fake_quant"]["perplexity"] > 1
    said = row["fixed"]["refused"]
    assert "layers.0.attn.k_memory: ops.remember has no integer form" in said
    assert "\n" not in said
  costs = [row["fake_quant"]["kl"]["value"] for row in found["rows"]]
  assert 0 < costs[0] < costs[1]
  # All but the table and the biases at 8 bits.
  small, large = found["rows"][0], found["float"]
  assert small["weights_bytes"] < large["weights_bytes"] / 2


def test_what_cannot_be_priced_is_refused(
  refused, model, folders, text, tmp_path
):
  cost = ("plan", "cost", model, "--text", text)
  line = refused(*cost, "--preset", "W8", "--rule", "layer.0:bits=8")
  assert "matches nothing" in line
  bare = folders["bare"]
  assert "brings no plan" in refused(*cost, "--plan", bare)
  other = ("plan", "cost", bare, "--text", text, "--plan", model)
  assert "was made for another model" in refused(*other)
  done = ("--plan", model, "--rule", ".*:bits=8")
  assert "is complete; rules come after" in refused(*cost, *done)
  assert "--eps goes with --row" in refused(*cost, "--eps", "1e-3")
  empty = tmp_path / "empty.txt"
  empty.write_text("\n")
  assert "no text found" in refused(*cost[:-1], empty)
  assert "required: --text" in refused("plan", "cost", model)
