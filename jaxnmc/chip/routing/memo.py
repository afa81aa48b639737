"""Results that belong to a placement, kept as long as it lives."""

import functools
import weakref
from collections.abc import Callable
from typing import TypeVar

from jaxnmc.chip.placement.tiles import Placement

_T = TypeVar("_T")

__all__ = ["per_placement"]


def per_placement(function: Callable[..., _T]) -> Callable[..., _T]:
  """Remembers function(placement, *hashable arguments).

  A placement is compared by identity and held weakly, so results must not
  refer to it.
  """
  known: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()

  @functools.wraps(function)
  def wrapped(placement: Placement, *args) -> _T:
    mine = known.setdefault(placement, {})
    if args not in mine:
      mine[args] = function(placement, *args)
    return mine[args]

  return wrapped
