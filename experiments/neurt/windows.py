"""How many tokens each head remembers."""

import numpy as np

from jaxnmc.errors import UserError


def spread(given: list[int], heads: int) -> tuple[int | None, ...] | None:
  """A window for each head, evenly chosen of those that are given.

  Args:
    given: tokens, 0 for all; none: all heads remember all.
    heads: of a layer.

  Raises:
    UserError: fewer windows than heads.
  """
  if not given:
    return None
  if len(given) < heads:
    raise UserError(
      f"--windows: found {len(given)} of them for {heads} heads; give one for"
      " each, or none"
    )
  rows = np.linspace(0, len(given) - 1, heads).round().astype(int)
  return tuple(given[k] or None for k in rows)
