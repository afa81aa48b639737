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
    spiking_attention_adds: of spiking attention, at most: each tick adds
      k^T v to the memory of a head, and reads it by q.
    spiking_attention_compares: neurons of q, k, v and the output, each tick
      (twice for signed ones).
    count_compares: of spiking feed-forward blocks, a threshold each tick.
    lookups: embedding rows.
  """
  rows = gpt.parameters(config)
  size = lambda kind: sum(math.prod(r.shape) for r in rows if r.kind == kind)
  dense, ternary = size("dense"), size("matrix")
  if config.tie_word_embeddings:
    dense += config.vocab_size * config.hidden_size
  heads = sum(layer.num_heads for layer in config.layers)
  pairs = heads * config.context
  if config.attention == "ssa":
    width = heads * config.head_size
    mixing = {
      "spiking_attention_adds": 2 * width * config.head_size * config.ticks,
      "spiking_attention_compares": 4
      * width
      * config.ticks
      * (1 + config.signed),
    }
  else:
    mixing = {
      "attention_multiply_adds": 2 * pairs * config.head_size,
      "exponentials": pairs,
    }
  # Counts of SwiGLU have a sign.
  sides = 2 if config.mlp == "swiglu" else 1
  units = sum(layer.mlp_size for layer in config.layers)
  compares = units * (config.mlp_ticks or 0)
  found = {
    "ternary_adds": ternary,
    "dense_multiply_adds": dense,
    **mixing,
    "count_compares": sides * compares,
    "lookups": 1 + (config.positions == "learned"),
  }
  return {kind: number for kind, number in found.items() if number}
