"""The model that the pipeline starts from."""

from typing import Any

from jaxnmc.io.tokenizer import BPETokenizer
from jaxnmc.models import gpt


def config(tokenizer: BPETokenizer, **sizes: Any) -> gpt.Config:
  """TinyGPT-7M: four layers of eight heads, 256 wide, an untied head.

  Learned positions, LayerNorm and ReLU are what integers, counts of spikes and
  the cores can do; 7.4 million parameters with 8,192 tokens.
  """
  fields: dict[str, Any] = {
    "hidden_size": 256,
    "num_layers": 4,
    "num_heads": 8,
    "max_position_embeddings": 64,
    "norm": "layer",
    "norm_eps": 1e-3,
    "mlp": "relu",
    "positions": "learned",
    "tie_word_embeddings": False,
  }
  return gpt.Config(
    **fields | sizes,
    vocab_size=tokenizer.vocab_size,
    bos_token_id=tokenizer.bos_id,
    eos_token_id=tokenizer.eos_id,
    pad_token_id=tokenizer.pad_id,
  )
