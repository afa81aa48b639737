"""The other family on disk: training runs, the zoo, commands, scores."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest

from jaxnmc import cli, quantize
from jaxnmc.errors import CheckpointError, ConfigError, PlanError
from jaxnmc.evaluate import Scorer
from jaxnmc.io import info as infos
from jaxnmc.io import name_map, zoo
from jaxnmc.io.load import load
from jaxnmc.io.tokenizer import ByteTokenizer
from jaxnmc.models import families, gpt, matmulfree
from jaxnmc.numerics.ternary import Ternary
from jaxnmc.ops.transform import fake_quant, reference
from jaxnmc.train import export, loop
from tests.models import gpt_numpy

TOKENIZER = ByteTokenizer()
CONFIG = gpt.Config(
  vocab_size=TOKENIZER.vocab_size,
  hidden_size=16,
  num_layers=2,
  num_heads=2,
  intermediate_size=24,
  max_position_embeddings=24,
  norm="layer",
  positions="learned",
  bias=True,
  norm_eps=1e-3,
  bos_token_id=TOKENIZER.bos_id,
  eos_token_id=TOKENIZER.eos_id,
)
TERNARY = dataclasses.replace(
  CONFIG, bias=False, ternary=True, tie_word_embeddings=False
)
IDS = np.arange(40, dtype=np.int32).reshape(2, 20) * 6
DOCS = [f"The {w} has {n} legs." for n in range(9) for w in ("cat", "ox")]


def make_params(config):
  draw = np.random.default_rng(4)
  value = lambda row: (
    (row.kind == "gain") + 0.3 * draw.normal(size=row.shape)
  ).astype(np.float32)
  return gpt.build({row.path: value(row) for row in gpt.parameters(config)})


def _equal(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("config", [CONFIG, TERNARY], ids=["dense", "ternary"])
def test_a_zoo_folder(tmp_path, config):
  params = make_params(config)
  kept = zoo.rounded(config, params)
  fn = gpt.make(config)
  plan = quantize.plan(quantize.calibrate(fn)(kept, [IDS]), quantize.W8A16)
  folder = zoo.write(tmp_path / "m", config, params, TOKENIZER, "# Small", plan)
  assert json.loads((folder / "config.json").read_text())["model"] == "gpt"
  model = load(folder)
  assert model.config == config
  assert model.plan == plan
  _equal(model.params, kept)
  _equal(zoo.rounded(config, kept), kept)
  for entry in name_map.entries(config):
    have = name_map.get(model.params, entry.path)
    want = np.asarray(name_map.get(params, entry.path))
    if entry.kind == "matrix":
      assert isinstance(have, Ternary)
    else:
      gap = np.abs(np.asarray(have) - want).max()
      grid = entry.kind in zoo.GRIDS
      assert (0 < gap <= np.abs(want).max() * 2.0**-15) if grid else gap == 0
  out, _ = jax.jit(reference(model.fn))(model.params, {"ids": IDS})
  assert np.isfinite(out.logits).all()
  # Dense weights take two bytes, embeddings too.
  size = (folder / "model.npz").stat().st_size
  assert size < 2 * config.num_params + 20_000


def _train(workdir, steps=6, config=CONFIG, **more):
  return loop.train(
    fn=gpt.make(config),
    init_params=lambda: gpt.init_params(config, jax.random.key(0)),
    model_config=families.to_json(config),
    tokenizer=TOKENIZER,
    documents=DOCS,
    # Longer than the context: scored in pieces.
    held=["The dog has 4 legs and a tail, the owl has none."],
    recipe=loop.Recipe(steps=steps, batch=2, seq=16, warmup=2, **more),
    rhythm=loop.Rhythm(
      checkpoint_every=3, log_every=1, eval_every=3, progress=False
    ),
    workdir=str(workdir),
  )


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_the_same(tmp_path):
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  whole.mkdir()
  parts.mkdir()
  want = _train(whole)
  assert want["compilations"] == 1
  assert math.isfinite(want["held_bpb"])
  _train(parts)
  # As if it had been killed after the first checkpoint.
  for path in (parts / "checkpoints").iterdir():
    if path.name == "6":
      for file in sorted(path.rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
      path.rmdir()
  (parts / "final.npz").unlink()
  assert _train(parts)["params_digest"] == want["params_digest"]
  TOKENIZER.save(whole / "tokenizer.npz")
  model = load(whole)
  assert model.config == CONFIG
  assert model.fn.context == 24
  # A context that is shorter than the windows is refused at once.
  short = dataclasses.replace(CONFIG, max_position_embeddings=8)
  with pytest.raises(ValueError, match="16 tokens, .* at most 8"):
    _train(tmp_path, config=short)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("run")
  params, meta = make_params(CONFIG), {"config": families.to_json(CONFIG)}
  export.save(folder / "best.npz", params, meta)
  TOKENIZER.save(folder / "tokenizer.npz")
  return folder


def test_commands(run_folder, tmp_path, capsys):
  text = tmp_path / "text.txt"
  text.write_text("A text that is much longer than the context of the model.")

  def call(*argv):
    status = cli.main(list(map(str, argv)))
    said = capsys.readouterr()
    return status, said.out, said.err

  status, out, err = call("evaluate", run_folder, "--text", text)
  assert status == 0, err
  assert json.loads(out)["ids"] == len(text.read_text())
  status, out, err = call(
    *("run", run_folder, "--prompt", "The ", "--tokens", 5, "--json", "-")
  )
  assert status == 0, err
  assert json.loads(out)["steps"] <= 5
  status, out, err = call(
    *("run", run_folder, "--prompt", "The ", "--tokens", 21)
  )
  assert status == 2
  assert "25 tokens, but the model holds at most 24" in err
  assert "The" not in out
  status, out, err = call("info", run_folder, "--json", "-")
  assert status == 0, err
  found = json.loads(out)
  assert found["parameters"]["total"] == CONFIG.num_params
  assert found["zero_fraction"] is None
  # Keys and values of 24 tokens, two layers, and the position.
  assert found["state_bytes"] == 4 * (2 * 2 * 24 * 16 + 1)
  for backend in ("fixed", "loihi"):
    status, out, err = call(
      *("run", run_folder, "--prompt", "The ", "--tokens", 3),
      *("--backend", backend),
    )
    assert status == 2
    assert "layers.0.attn.k_memory: ops.remember has no integer form" in err


def _score(config, params, ids):
  """(nats, ids) of one document after its begin token, in NumPy."""
  row = np.concatenate([[TOKENIZER.bos_id], ids])
  logits = gpt_numpy.logits(config, params, row[:-1])
  log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  return -log[np.arange(len(ids)), ids].sum(), len(ids)


@pytest.mark.parametrize("kind", ["run", "zoo"])
def test_evaluate(run_folder, tmp_path, capsys, kind):
  """Float as NumPy; formats of 16 bits, own or chosen here, cost little."""
  params, folder = make_params(CONFIG), run_folder
  if kind == "zoo":
    params = zoo.rounded(CONFIG, params)
    stats = quantize.calibrate(gpt.make(CONFIG))(params, [IDS])
    plan = quantize.plan(stats, quantize.W8A16)
    folder = zoo.write(
      tmp_path / "z", CONFIG, params, TOKENIZER, "# Small", plan
    )
  text = tmp_path / "text.txt"
  text.write_text("A short text.\n<|endoftext|>\nAnd another.\n")
  rows = [TOKENIZER.encode(t) for t in ("A short text.", "And another.")]
  scores = [_score(CONFIG, params, ids) for ids in rows]
  nats, count = map(sum, zip(*scores, strict=True))
  found = {}
  for backend in ("float", "fake_quant"):
    argv = ["evaluate", folder, "--text", text, "--backend", backend]
    assert cli.main([str(arg) for arg in argv]) == 0
    found[backend] = json.loads(capsys.readouterr().out)
    assert found[backend]["ids"] == count
  exact, rounded = found["float"], found["fake_quant"]
  assert exact["perplexity"] == pytest.approx(np.exp(nats / count), rel=1e-4)
  assert exact["plan_sha256"] is None
  assert rounded["plan_sha256"]
  chosen = any("built-in sentences" in note for note in rounded["notes"])
  assert chosen == (kind == "run")
  assert rounded["nats"] != exact["nats"]
  assert rounded["nats"] == pytest.approx(nats, rel=0.02)


def test_a_plan_that_does_not_fit_is_refused(tmp_path):
  fn, params = gpt.make(CONFIG), make_params(CONFIG)
  kept = zoo.rounded(CONFIG, params)
  floats = quantize.plan(quantize.calibrate(fn)(kept, [IDS]), quantize.A8)
  short = dataclasses.replace(CONFIG, num_layers=1)
  part = {**kept, "layers": kept["layers"][:1]}
  stats = quantize.calibrate(gpt.make(short))(part, [IDS])
  other = quantize.plan(stats, quantize.W8A16)
  for name, plan, words in (
    ("floats", floats, "plan 'A8' leaves embed in float"),
    ("other", other, "parameter layers.1.* is unknown to plan 'W8A16'"),
  ):
    folder = zoo.write(tmp_path / name, CONFIG, params, TOKENIZER, "", plan)
    with pytest.raises(PlanError, match=f"{name}: plan.json.*{words}"):
      load(folder)


def test_pieces_are_scored_as_documents_of_their_own():
  params, fn = make_params(CONFIG), gpt.make(CONFIG)
  rows = [np.arange(61, dtype=np.int32) + 40, np.arange(3, dtype=np.int32) + 9]
  scorer = Scorer(reference(fn))
  found = scorer(params, rows, 64, bos=1, batch=4)
  assert (found.ids, found.documents) == (64, 2)
  nats, run = 0.0, jax.jit(reference(fn))
  for piece in (rows[0][:24], rows[0][24:48], rows[0][48:], rows[1]):
    ids = np.concatenate([[1], piece[:-1]]).astype(np.int32)
    padded = np.resize(ids, 24)
    out, _ = run(params, {"ids": padded})
    logp = jax.nn.log_softmax(out.logits)[np.arange(len(piece)), piece]
    nats -= float(logp.sum())
  assert found.nats == pytest.approx(nats, rel=1e-5)
  plan = quantize.plan(quantize.calibrate(fn)(params, [IDS]), quantize.W8A16)
  fake = Scorer(fake_quant(fn, plan))(params, rows, 64, bos=1, batch=4)
  assert fake.nats == pytest.approx(found.nats, rel=0.05)


def test_operations():
  found = infos.operations(TERNARY)
  # Four projections and three of the channel mixer, twice; the head.
  assert found["ternary_adds"] == 2 * (4 * 16**2 + 3 * 16 * 24) + 16 * 259
  assert "dense_multiply_adds" not in found
  assert found["attention_multiply_adds"] == 2 * 2 * 24 * 16
  dense = infos.operations(CONFIG)
  assert dense["dense_multiply_adds"] == found["ternary_adds"]


def test_config_files():
  for config in (CONFIG, matmulfree.Config(vocab_size=9)):
    fields = families.to_json(config)
    assert families.from_json(json.loads(json.dumps(fields)), "f") == config
  assert "model" not in families.to_json(matmulfree.Config())
  for fields, words in (
    ({"model": "rnn"}, "f: found model 'rnn', allowed are matmulfree, gpt"),
    ({"model": "gpt", "expand_ratio": 1}, "unknown config fields expand_ratio"),
    ({"num_heads": 1, "bias": True}, "unknown config fields bias"),
    ({"model": "gpt", "norm": "x"}, "f: config field 'norm'"),
    ({"model": "gpt", "norm_eps": "x"}, "wrong type"),
    (3, "field 'config' is 3"),
  ):
    with pytest.raises(ConfigError, match=words):
      families.from_json(fields, "f")
  with pytest.raises(ConfigError, match="type int, allowed are"):
    families.family_of(3)


def test_parameters_of_another_model_are_refused(tmp_path):
  params = make_params(CONFIG)
  del params["layers"][1]["attn"]["q"]["bias"]
  path = tmp_path / "best.npz"
  export.save(path, params, {"config": families.to_json(CONFIG)})
  with pytest.raises(CheckpointError, match="missing: layers.1.attn.q.bias"):
    load(path)
  with pytest.raises(CheckpointError, match=r"layers.1.attn.q.bias.*init_para"):
    zoo.rounded(CONFIG, params)
