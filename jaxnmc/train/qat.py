"""Where training under number formats begins: latents, and ranges to choose."""

from typing import Any

import jax
import numpy as np

from jaxnmc.numerics.ternary import Ternary, latent
from jaxnmc.train.data import DataError, Stream

__all__ = ["latents", "windows"]


def latents(params: Any) -> Any:
  """Float parameters to go on from; ternary matrices become latents.

  Args:
    params: pytree of float arrays or `Ternary`.

  Returns:
    The same tree of float32 NumPy arrays, whose matrices `ternarize` to those
    of `params`.
  """
  is_ternary = lambda x: isinstance(x, Ternary)
  return jax.tree.map(
    lambda x: np.asarray(latent(x) if is_ternary(x) else x, np.float32),
    params,
    is_leaf=is_ternary,
  )


def windows(stream: Stream, seq: int, count: int = 32) -> list[dict]:
  """The first windows of a training stream, to calibrate on.

  Args:
    stream: of `data.pack`.
    seq: ids per window.
    count: most windows.

  Returns:
    Inputs of up to 8 windows each, {"ids": int32[B, seq]}.

  Raises:
    DataError: the stream is shorter than one window.
  """
  count = min(count, len(stream.ids) // seq)
  if not count:
    raise DataError(
      f"training text: found {len(stream.ids)} ids to choose ranges on, a"
      f" window has {seq}; give more text or a smaller --seq"
    )
  ids = stream.ids[: count * seq].reshape(count, seq)
  return [{"ids": ids[k : k + 8]} for k in range(0, count, 8)]
