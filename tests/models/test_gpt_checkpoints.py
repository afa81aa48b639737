"""Other people's trained transformers, as ours compute them."""

import jax
import numpy as np
import pytest

from jaxnmc.models import gpt
from jaxnmc.models.generate import generate
from jaxnmc.ops.transform import reference
from jaxnmc.train.data import read_documents
from tests.models import gpt_numpy
from tools import llama2c, mingpt


def test_gpt_nano_sorts(shared_dir):
  """Quoted: 200 of 200 random inputs, by an independent program in NumPy."""
  folder = shared_dir / "data" / "checkpoints" / "gpt-nano-sort"
  config, params = mingpt.read(folder / "gpt-nano-sort-model.json")
  # `wte`, `wpe` and the head's own matrix are counted, too.
  assert config.num_params == 85_728
  prompts = np.random.default_rng(0).integers(0, 3, (200, 6))
  run = reference(gpt.make(config))
  found = generate(run, params, list(prompts), 6, vocab_size=3)
  np.testing.assert_array_equal(np.stack(found.ids), np.sort(prompts, axis=1))


def test_a_llama_computes_what_numpy_computes(shared_dir):
  path = shared_dir / "data" / "checkpoints" / "stories260K"
  checkpoint = llama2c.read_checkpoint(str(path / "stories260K.bin"))
  config, params = llama2c.as_gpt(checkpoint)
  assert config.num_params == 260_032
  ids = np.array([1, 403, 407, 261, 378, 201, 14, 99], np.int32)
  with jax.enable_x64(True):
    params = jax.tree.map(np.float64, params)
    out, _ = jax.jit(reference(gpt.make(config)))(params, {"ids": ids})
  want = gpt_numpy.logits(config, params, ids)
  np.testing.assert_allclose(out.logits, want, rtol=0, atol=1e-10)


def test_a_llama_on_stories(shared_dir):
  """Quoted perplexity of the five stories, 400 ids each, BOS among them."""
  data = shared_dir / "data"
  pieces = llama2c.read_pieces(
    data / "tokenizers" / "tinystories512" / "tok512.bin"
  )
  text = data / "tinystories-sample" / "five_stories.txt"
  rows, sizes = llama2c.prefixes(read_documents([str(text)]), pieces, 400)
  rows = [llama2c.ids_of(row, pieces) for row in rows]
  path = data / "checkpoints" / "stories260K" / "stories260K.bin"
  found = llama2c.score(str(path), rows, sum(sizes))
  assert found.perplexity == pytest.approx(3.53, abs=0.005)
