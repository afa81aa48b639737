"""Small models on disk, and commands run in this process."""

import json

import jax
import pytest

from jaxnmc import cli
from jaxnmc import quantize as qz
from jaxnmc.io import zoo
from jaxnmc.io.tokenizer import ByteTokenizer
from jaxnmc.models import gpt, matmulfree


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory):
  """Each command compiles anew; here it may find what another one compiled."""
  before = jax.config.jax_compilation_cache_dir
  jax.config.update(
    "jax_compilation_cache_dir", str(tmp_path_factory.mktemp("c"))
  )
  yield
  jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
  """{"tiny": a model with a plan, "bare": the same without one}."""
  tokenizer = ByteTokenizer()
  config = matmulfree.Config(
    vocab_size=tokenizer.vocab_size,
    hidden_size=32,
    num_layers=1,
    intermediate_size=48,
    rms_norm_eps=1e-3,
    bitlinear_eps=1e-3,
    bos_token_id=tokenizer.bos_id,
    eos_token_id=tokenizer.eos_id,
  )
  params = matmulfree.init_params(config, jax.random.key(0))
  params["embed"]["weight"] *= 20
  params = zoo.rounded(config, params)
  ids = jax.random.randint(jax.random.key(1), (2, 64), 0, config.vocab_size)
  stats = qz.calibrate(matmulfree.make(config))(params, [ids])
  plan = qz.plan(stats, qz.W8A16)
  root = tmp_path_factory.mktemp("models")
  made = {"tiny": plan, "bare": None}
  return {
    name: str(zoo.write(root / name, config, params, tokenizer, "card", plan))
    for name, plan in made.items()
  }


@pytest.fixture(scope="session")
def transformer(tmp_path_factory):
  """A GPT-2 over bytes; its softmax and LayerNorm have no integers.

  Random weights, large enough that formats are felt.
  """
  tokenizer = ByteTokenizer()
  config = gpt.Config(
    vocab_size=tokenizer.vocab_size,
    hidden_size=16,
    num_layers=1,
    num_heads=2,
    intermediate_size=24,
    max_position_embeddings=8,
    norm="layer",
    norm_eps=1e-3,
    mlp="gelu_tanh",
    positions="learned",
    bias=True,
    bos_token_id=tokenizer.bos_id,
    eos_token_id=tokenizer.eos_id,
  )
  params = gpt.init_params(config, jax.random.key(0))
  params = jax.tree.map(lambda x: 8 * x if x.ndim == 2 else x, params)
  folder = tmp_path_factory.mktemp("transformer") / "gpt"
  return str(zoo.write(folder, config, params, tokenizer, "card"))


@pytest.fixture
def run(capsys):
  """Runs `jaxnmc ...` here: (status, standard output, standard error)."""

  def call(*argv):
    try:
      status = cli.main([str(arg) for arg in argv])
    except SystemExit as stop:  # --help and --version
      status = stop.code
    said = capsys.readouterr()
    return status, said.out, said.err

  return call


@pytest.fixture
def refused(run):
  """Runs a command that must be refused: its one line of reason."""

  def call(*argv):
    status, out, err = run(*argv)
    assert status == 2, (out, err)
    assert out == ""
    lines = [x for x in err.splitlines() if not x.startswith("note: ")]
    assert len(lines) == 1, err
    assert lines[0].startswith("jaxnmc: error: ")
    return lines[0]

  return call


@pytest.fixture
def as_json(run):
  """Runs a command with `--json -`: the JSON, once tables went to stderr."""

  def call(*argv):
    status, out, err = run(*argv, "--json", "-")
    assert status == 0, err
    return json.loads(out)

  return call
