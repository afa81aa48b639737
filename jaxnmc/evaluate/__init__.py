"""How good is a model: bits per byte and perplexity, for every backend."""

from jaxnmc.evaluate.bits import Score, Scorer, encode
from jaxnmc.evaluate.text import DataError, cut, read_documents, read_lengths

__all__ = [
  "DataError",
  "Score",
  "Scorer",
  "cut",
  "encode",
  "read_documents",
  "read_lengths",
]
