"""A model of random weights over bytes, and three stories: for `--smoke`."""

import functools

import jax

from jaxnmc.io.tokenizer import ByteTokenizer
from jaxnmc.models import matmulfree
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
