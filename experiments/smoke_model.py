"""Models of random weights over bytes, and three stories: for `--smoke`."""

import functools

import jax

from jaxnmc.io.tokenizer import ByteTokenizer
from jaxnmc.models import families, gpt, matmulfree
from jaxnmc.models.model import Model

STORIES = (
  "Once there was a small cat. It liked milk and the sun.",
  "Tom had a red ball. He gave it to his friend.",
  "The rain fell all day long, and nobody went out.",
)


def tiny() -> Model:
  """Two layers, 16 wide."""
  tokenizer = ByteTokenizer()
  config = matmulfree.Config(
    vocab_size=tokenizer.vocab_size,
    hidden_size=16,
    num_layers=2,
    intermediate_size=24,
  )
  params = matmulfree.init_params(config, jax.random.key(0))
  params["embed"]["weight"] *= 20
  fn = matmulfree.make(config)
  init = functools.partial(matmulfree.init_state, config)
  return Model("tiny, random", config, params, fn, init, tokenizer)


def tiny_gpt() -> Model:
  """A transformer: two layers of two heads, 16 wide, a head of its own."""
  tokenizer = ByteTokenizer()
  config = gpt.Config(
    vocab_size=tokenizer.vocab_size,
    hidden_size=16,
    num_layers=2,
    num_heads=2,
    max_position_embeddings=32,
    intermediate_size=24,
    norm_eps=1e-3,
    tie_word_embeddings=False,
  )
  params = gpt.init_params(config, jax.random.key(0))
  params["embed"]["weight"] *= 20
  return families.model("tiny, random", config, params, tokenizer=tokenizer)
