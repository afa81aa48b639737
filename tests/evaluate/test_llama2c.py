"""Public TinyStories checkpoints, scored by the code that scores our models."""

import pytest

from jaxnmc.train.data import read_documents
from tools import llama2c


@pytest.fixture(scope="module")
def prefixes(shared_dir):
  """The range of the notes: 400 ids (BOS among them) of each story."""
  data_dir = shared_dir / "data"
  pieces = llama2c.read_pieces(
    data_dir / "tokenizers" / "tinystories512" / "tok512.bin"
  )
  text = data_dir / "tinystories-sample" / "valid.txt"
  rows, sizes = llama2c.prefixes(read_documents([str(text)]), pieces, 400)
  return [llama2c.ids_of(row, pieces) for row in rows], sizes


def test_the_range_of_the_notes(prefixes):
  _, sizes = prefixes
  assert len(sizes) == 125
  assert sum(sizes) == 96_695


@pytest.mark.slow
@pytest.mark.parametrize(
  ("checkpoint", "bits", "perplexity"),
  [
    ("stories260K/stories260K.bin", 1.049, 4.23),
    ("bitnet-tinystories/bit_model_1M.bin", 1.090, 4.48),
    ("bitnet-tinystories/bit_model_3M.bin", 0.986, 3.88),
  ],
)
def test_public_checkpoints_by_the_same_code(
  shared_dir, prefixes, checkpoint, bits, perplexity
):
  """Quoted figures: an independent program of others, in NumPy."""
  rows, sizes = prefixes
  path = shared_dir / "data" / "checkpoints" / checkpoint
  found = llama2c.score(str(path), rows, sum(sizes))
  assert found.bits_per_byte == pytest.approx(bits, abs=1e-3)
  assert found.perplexity == pytest.approx(perplexity, abs=0.01)
