"""Ternary weights: codes in {-1, 0, +1} and one float scale per matrix.

    c = max(mean |W|, 1e-5);   codes = clip(round(W / c), -1, 1)

(Zhu et al. 2024, arXiv 2406.02528; ties round to even.)  Ternarising is *not*
idempotent: doing it again to `c * codes` multiplies the scale by the share of
non-zero weights.  So a trained matrix is stored as `Ternary(codes, scale)`,
and whoever meets a `Ternary` uses it as it is.
"""

import jax
import numpy as np
from flax import struct
from jax import numpy as jnp

from jaxnmc.errors import FormatError
from jaxnmc.numerics.packed import Packed
from jaxnmc.numerics.ste import ste

MIN_SCALE = 1e-5


@struct.dataclass
class Ternary:
  """A matrix that is already ternary: real value = scale * codes.

  Attributes:
    codes: int8[out, in], each in {-1, 0, 1}; or the same `Packed`.
    scale: float32[], the one scale of the stored matrix.
  """

  codes: jax.Array | Packed
  scale: jax.Array

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape of the matrix, [out, in]."""
    return tuple(self.codes.shape)


def scale_of(weight: jax.Array) -> jax.Array:
  """The scale c = max(mean |W|, 1e-5) of a latent matrix, float[]."""
  return jnp.maximum(jnp.mean(jnp.abs(weight)), MIN_SCALE)


def ternarize(weight: jax.Array) -> Ternary:
  """Latent float[out, in] -> `Ternary` of its dtype; ties round to even."""
  scale = scale_of(weight)
  codes = jnp.clip(jnp.round(weight / scale), -1, 1)
  return Ternary(codes.astype(jnp.int8), scale)


def ternary_values(weight: jax.Array | Ternary) -> jax.Array:
  """scale * codes as float[out, in], gradient straight through to the latent.

  Args:
    weight: latent float[out, in], or a `Ternary` (used as it is).

  Returns:
    float[out, in].
  """
  if isinstance(weight, Ternary):
    return weight.codes.astype(weight.scale.dtype) * weight.scale
  scale = scale_of(weight)
  codes = jnp.clip(jnp.round(weight / scale), -1, 1)
  return ste(codes * scale, weight)


def latent(weight: Ternary) -> jax.Array:
  """A latent matrix to go on training from: `ternarize` gives back `weight`.

  Which of the latents with these codes it came from is lost: every code starts
  in the same place. Divided by the share of non-zero weights, so that the mean
  magnitude is the scale.

  Args:
    weight: a trained matrix.

  Returns:
    float[out, in] of the scale's dtype.
  """
  codes = weight.codes.astype(weight.scale.dtype)
  share = jnp.mean(jnp.abs(codes))
  return codes * (weight.scale / jnp.where(share > 0, share, 1))


def host_ternary(matrix) -> tuple[np.ndarray, float]:
  """Codes and scale of a matrix as NumPy has them, in float64.

  The one truth for integers and for what is shipped; in float64 whatever the
  type stored, as `fake_quant` in float64 does.

  Args:
    matrix: latent float[out, in], or a `Ternary` (used as it is).

  Returns:
    (codes int8[out, in], scale).
  """
  if isinstance(matrix, Ternary):
    return np.asarray(matrix.codes, np.int8), float(matrix.scale)
  weight = np.asarray(matrix).astype(np.float64)
  scale = max(float(np.mean(np.abs(weight))), MIN_SCALE)
  codes = np.clip(np.round(weight / scale), -1, 1).astype(np.int8)
  return codes, scale


def pack2(codes: np.ndarray) -> np.ndarray:
  """Packs int8[..., n] ternary codes four to a byte, n padded with zeros.

  Code w is stored as w + 1 in two bits, first weight in the lowest bits.

  Args:
    codes: int8[..., n] in {-1, 0, 1}.

  Returns:
    uint8[..., ceil(n / 4)].

  Raises:
    FormatError: a code outside {-1, 0, 1}.
  """
  codes = np.asarray(codes)
  if codes.size and (codes.min() < -1 or codes.max() > 1):
    raise FormatError(
      f"ternary codes must be -1, 0 or 1; found {codes.min()}..{codes.max()}"
    )
  pad = -codes.shape[-1] % 4
  widths = [(0, 0)] * (codes.ndim - 1) + [(0, pad)]
  fields = np.pad(codes.astype(np.int8), widths) + 1
  groups = (*codes.shape[:-1], fields.shape[-1] // 4, 4)
  fields = fields.astype(np.uint8).reshape(groups)
  shifts = np.array([0, 2, 4, 6], np.uint8)
  return np.bitwise_or.reduce(fields << shifts, axis=-1).astype(np.uint8)


def unpack2(packed: np.ndarray, size: int) -> np.ndarray:
  """Inverse of `pack2`: uint8[..., ceil(size / 4)] -> int8[..., size].

  Raises:
    FormatError: the packed row is of another length, or holds the unused
      bit pattern 3.
  """
  packed = np.asarray(packed, np.uint8)
  if packed.shape[-1] != -(-size // 4):
    raise FormatError(
      f"{size} packed ternary codes take {-(-size // 4)} bytes a row; "
      f"found {packed.shape[-1]}"
    )
  shifts = np.array([0, 2, 4, 6], np.uint8)
  fields = (packed[..., None] >> shifts) & 3
  if (fields == 3).any():
    raise FormatError("packed ternary codes hold the unused pattern 0b11")
  shape = (*packed.shape[:-1], 4 * packed.shape[-1])
  codes = fields.reshape(shape)[..., :size]
  return codes.astype(np.int8) - 1
