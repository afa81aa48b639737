"""Operations of a transformer per token, by kind."""

import math

from jaxnmc.models import gpt


def operations(config: gpt.Config) -> dict[str, int]:
  """Operations for one token with a full context, batch one.

  Kinds:
    ternary_adds: one add, subtract or skip per stored ternary weight.
    dense_multiply_adds: one per weight of a dense matrix, head included.
    attention_multiply_adds: scores and weighted sums over C keys.
    exponentials: of softmax, one per key and head; C is the context.
    lookups: embedding rows.
  """
  rows = gpt.parameters(config)
  size = lambda kind: sum(math.prod(r.shape) for r in rows if r.kind == kind)
  dense, ternary = size("dense"), size("matrix")
  if config.tie_word_embeddings:
    dense += config.vocab_size * config.hidden_size
  pairs = config.num_layers * config.num_heads * config.context
  found = {
    "ternary_adds": ternary,
    "dense_multiply_adds": dense,
    "attention_multiply_adds": 2 * pairs * config.head_size,
    "exponentials": pairs,
    "lookups": 1 + (config.positions == "learned"),
  }
  return {kind: number for kind, number in found.items() if number}
