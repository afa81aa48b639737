"""Random ternary parameters of any size: for time and memory, not for text."""

import numpy as np
from jax import numpy as jnp

from jaxnmc.models import matmulfree
from jaxnmc.numerics.packed import Packed
from jaxnmc.numerics.ternary import Ternary

# Share of weights that are not zero, in 256ths: 64.8 %, as in trained models.
_NONZERO = 166


def _ternary(
  draw: np.random.Generator, out: int, width: int, size: float, packed: bool
):
  """Random codes and the scale that gives unit inputs outputs of `size`."""
  noise = draw.integers(0, 256, (out, width), np.uint8)
  sign = ((noise & 1) << 1).astype(np.int8) - 1
  codes = np.where(noise < _NONZERO, sign, np.int8(0))
  scale = np.float32(size / np.sqrt(width * _NONZERO / 256))
  kept = Packed.of(codes) if packed else jnp.asarray(codes)
  return Ternary(kept, jnp.asarray(scale))


def random_params(
  config: matmulfree.Config, seed: int, packed: bool = False
) -> dict:
  """Random parameters without a float copy of any matrix.

  Projections give values of about unit size; what a block adds to the residual
  stream falls with the depth, so that the stream grows by about sqrt(2).

  Args:
    config: sizes.
    seed: of NumPy's generator.
    packed: keep matrices in two bits per weight, each as soon as it is drawn.

  Returns:
    Params of the model; matrices are `Ternary`.
  """
  draw = np.random.default_rng(seed)
  d, e, inner = config.hidden_size, config.state_size, config.mlp_size
  added = (2 * config.num_layers) ** -0.5

  def normal(mean, std, *shape):
    noise = draw.standard_normal(shape, np.float32)
    noise *= np.float32(std)
    noise += np.float32(mean)
    return noise

  def bit(out, width, size=1.0):
    weight = _ternary(draw, out, width, size, packed)
    return {"weight": weight, "norm": normal(1, 0.1, width)}

  def layer():
    return {
      "attn_norm": normal(1, 0.1, d),
      "attn": {
        **{name: bit(e, d) for name in "ifg"},
        "o": bit(d, e, added),
        "g_norm": normal(1, 0.1, e),
      },
      "mlp_norm": normal(1, 0.1, d),
      "mlp": {"gate": bit(2 * inner, d), "down": bit(d, inner, added)},
    }

  return {
    "embed": {"weight": normal(0, 1, config.vocab_size, d)},
    "lower_bounds": normal(0, 0.5, config.num_layers, d),
    "layers": [layer() for _ in range(config.num_layers)],
    "norm": normal(1, 0.1, d),
    "head": bit(config.vocab_size, d, 2.0),
  }
