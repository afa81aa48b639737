"""A model that is trained in a moment."""

from jaxnmc.models import matmulfree

CONFIG = matmulfree.Config(
  vocab_size=20,
  hidden_size=16,
  num_layers=1,
  intermediate_size=24,
  rms_norm_eps=1e-3,
  bitlinear_eps=1e-3,
)
FN = matmulfree.make(CONFIG)
