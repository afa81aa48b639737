"""What a newcomer does first, with the model that ships."""

import json
import re

import jax
import numpy as np
import pytest

import jaxnmc
from jaxnmc.cli import flags, parser
from jaxnmc.evaluate import Scorer, cut, encode, text
from jaxnmc.io import zoo
from jaxnmc.report import backends

pytestmark = pytest.mark.skipif(
  flags.ZOO_MODEL not in zoo.names(), reason="the zoo model is not built yet"
)


@pytest.mark.slow
def test_demo_writes_a_story(run, tmp_path):
  target = tmp_path / "demo.json"
  status, out, err = run(
    *("demo", "--tokens", 12, "--engine", "functional", "--json", target)
  )
  assert status == 0, err
  assert out.strip().splitlines()[-1].startswith("loihi == fixed: bit-equal (")
  assert max(map(len, out[out.index("on this machine") :].splitlines())) <= 80
  data = json.loads(target.read_text())
  assert data["prompt"] == parser.DEMO_PROMPT
  assert re.fullmatch(r"[\w\s.,!?'\"-]+", data["text"])
  assert data["placement"]["cores_used"] > 1


@pytest.mark.slow
def test_code_of_the_readme_runs(repo_root, capsys):
  text = (repo_root / "README.md").read_text(encoding="utf-8")
  (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
  assert len(code.splitlines()) <= 20
  exec(compile(code, "README.md", "exec"), {})
  assert "mj_per_token" in capsys.readouterr().out


@pytest.mark.slow
def test_demo_steps_the_placed_network(run):
  status, out, err = run("demo", "--tokens", 4)
  assert status == 0, err
  assert "engine stepped" in out
  assert out.strip().splitlines()[-1].startswith("loihi == fixed: bit-equal (")


@pytest.fixture(scope="module")
def unseen(shared_dir):
  """The shipped model and ids of unseen stories, with their bytes."""
  model = jaxnmc.load(flags.ZOO_MODEL)
  path = shared_dir / "data" / "tinystories-sample" / "valid.txt"
  texts = cut(text.read_documents([str(path)])[:16], None)
  return model, encode(model.tokenizer, texts, model.config.vocab_size, 256)


@pytest.mark.slow
def test_integers_cost_next_to_nothing_and_loihi_has_the_same(unseen):
  model, (rows, size) = unseen
  score = {}
  for name in ("float", "fixed", "loihi"):
    backend = backends.prepare(model, name)
    scorer = Scorer(backend.run, jit=backend.jit)
    score[name] = scorer(backend.params, rows, size, bos=1)
  assert score["fixed"].perplexity < 1.005 * score["float"].perplexity
  assert score["fixed"].integers == model.config.vocab_size * sum(
    map(len, rows)
  )
  assert score["loihi"].digest == score["fixed"].digest


@pytest.mark.slow
def test_fake_quant_in_float64_equals_fixed_at_every_site(unseen):
  model, (rows, _) = unseen
  inputs = {"ids": np.concatenate([[1], rows[0]]).astype(np.int32)[:96]}
  fixed = jaxnmc.fixed(model.fn, model.plan, taps=True)
  taps = fixed(model.qparams, inputs)[2]
  assert len(taps) > 300
  with jax.enable_x64(True):
    params = jax.tree.map(
      lambda x: np.asarray(x, np.float64) if x.dtype.kind == "f" else x,
      jax.device_get(model.params),
    )
    run = jaxnmc.fake_quant(model.fn, model.plan, taps=True)
    fake = run(params, inputs)[2]
  code = lambda x: np.asarray(getattr(x, "q", x))
  assert list(fake) == list(taps)
  for path, value in taps.items():
    assert code(fake[path]).dtype == np.float64, path
    np.testing.assert_array_equal(code(fake[path]), code(value), path)
