"""Thresholds under a budget of spikes: the search, on any network.

Every site of a network has a multiplier of its thresholds.  `Measure` says what
multipliers come to: spikes, and how far the network then is from another (a
divergence, less is better).  `tune` looks for the least divergence with at most
so many spikes:

    all at once    one multiplier for all sites.  1 if that meets the budget;
                   else the interval between one that does and one that does not
                   is halved (on a logarithmic scale).
    one by one     each site up and down by a step.  A change is kept where it
                   has less divergence within the budget; one that has less but
                   goes over the budget is paid for by the changes that save
                   spikes for least divergence.  Steps get smaller.

Spikes of one neuron under the same drive never grow with its threshold (IF, and
tables of thresholds).  Those of a network may: what fires less in front changes
the drives behind.  `tests/spike/test_budget.py` has both.  So nothing here
relies on it: what is returned was measured, and met the budget.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

from jaxnmc.errors import UserError

__all__ = ["BudgetError", "Found", "Point", "tune"]

SPAN = 64.0
_HALVINGS = 8
_STEP = 1.5
_PAYERS = 6
_STEPS = 3


class BudgetError(UserError):
  """No thresholds within the span have so few spikes."""


@dataclasses.dataclass(frozen=True)
class Point:
  """Multipliers, and what was measured with them.

  Attributes:
    multipliers: site -> factor of its thresholds.
    spikes: per inference.
    divergence: from the network that it should be like; less is better.
  """

  multipliers: Mapping[str, float]
  spikes: float
  divergence: float


Measure = Callable[[Mapping[str, float]], Point]


@dataclasses.dataclass(frozen=True)
class Found:
  """Result of a search.

  Attributes:
    budget: most spikes per inference.
    start: all multipliers 1.
    uniform: one multiplier for all, within the budget.
    best: within the budget.
    measured: how many points were measured.
  """

  budget: float
  start: Point
  uniform: Point
  best: Point
  measured: int


def tune(
  measure: Measure,
  names: Sequence[str],
  budget: float,
  *,
  span: float = SPAN,
  passes: int = 3,
  progress: Callable[[Point], None] = lambda point: None,
) -> Found:
  """Multipliers with the least divergence that was found within a budget.

  Args:
    measure: what multipliers come to; the same for the same multipliers.
    names: of the sites.
    budget: most spikes per inference.
    span: multipliers lie between 1 / span and span.
    passes: over all sites, one by one; 0: all at once only.
    progress: is told each measured point.

  Returns:
    The points found.

  Raises:
    BudgetError: a budget that is no number of 0 or more, or that no multiplier
      of the span meets; the least spikes that were reached are named.
  """
  if not (isinstance(budget, int | float) and 0 <= budget < math.inf):
    raise BudgetError(
      f"spike budget: found {budget!r}; allowed is a number of spikes per"
      " inference, 0 or more"
    )
  search = _Search(measure, tuple(names), budget, span, progress)
  start = search.at(dict.fromkeys(names, 1.0))
  uniform = search.uniform(start)
  best = search.one_by_one(uniform, passes)
  return Found(budget, start, uniform, best, search.measured)


class _Search:
  """The points of one search; each is measured once."""

  def __init__(self, measure, names, budget, span, progress):
    self.measure, self.names, self.budget = measure, names, budget
    self.span, self.progress = span, progress
    self.known: dict[tuple[float, ...], Point] = {}

  @property
  def measured(self) -> int:
    return len(self.known)

  def at(self, multipliers: Mapping[str, float]) -> Point:
    """The point of these multipliers."""
    key = tuple(multipliers[name] for name in self.names)
    if key not in self.known:
      self.known[key] = self.measure(multipliers)
      self.progress(self.known[key])
    return self.known[key]

  def all_at(self, m: float) -> Point:
    return self.at(dict.fromkeys(self.names, m))

  def fits(self, point: Point) -> bool:
    return point.spikes <= self.budget

  def uniform(self, start: Point) -> Point:
    """One multiplier for all sites, within the budget."""
    if self.fits(start):
      return start
    low = high = 1.0
    while True:
      low, high = high, min(2 * high, self.span)
      found = self.all_at(high)
      if self.fits(found):
        break
      if high >= self.span:
        least = min(self.known.values(), key=lambda p: p.spikes)
        raise BudgetError(
          f"spike budget: {self.budget:,.0f} spikes per inference are not"
          f" reached by thresholds up to {self.span:g} times those given; the"
          f" nearest is {least.spikes:,.0f}: allow as many, give shorter texts,"
          " or fewer ticks, heads or units"
        )
    for _ in range(_HALVINGS):
      # `low` does not meet the budget, `high` does, whatever lies between.
      middle = math.sqrt(low * high)
      point = self.all_at(middle)
      if self.fits(point):
        high, found = middle, point
      else:
        low = middle
    return found

  def moved(self, point: Point, name: str, factor: float) -> Point | None:
    """One site changed; None where that leaves the span."""
    m = point.multipliers[name] * factor
    if not 1 / self.span <= m <= self.span:
      return None
    return self.at({**point.multipliers, name: m})

  def one_by_one(self, best: Point, passes: int) -> Point:
    """Changes of single sites, and exchanges between them."""
    step = _STEP
    for _ in range(passes):
      before, tried = best, []
      for name in self.names:
        for factor in (step, 1 / step):
          point = self.moved(best, name, factor)
          if point is None:
            continue
          if self.better(point, best):
            best = point
            break
          tried.append((name, factor, point, best))
      best = self.exchanged(best, tried)
      if best is before:
        step = math.sqrt(step)
    return best

  def better(self, point: Point, best: Point) -> bool:
    return self.fits(point) and point.divergence < best.divergence

  def exchanged(self, best: Point, tried) -> Point:
    """Spends spikes where they help most, saves them where they help least."""
    gains, payers = [], []
    for name, factor, point, base in tried:
      less = base.divergence - point.divergence
      spikes = point.spikes - base.spikes
      if less > 0 and spikes > 0:
        gains.append((less / spikes, name, factor))
      elif spikes < 0:
        payers.append((-less / -spikes, name, factor))
    payers.sort()
    for _, name, factor in sorted(gains, reverse=True):
      point = self.moved(best, name, factor)
      if point is None or point.divergence >= best.divergence:
        continue
      # The cheapest again and again, then the next.
      for _, other, back in payers[:_PAYERS]:
        for _ in range(_STEPS * (other != name)):
          if self.fits(point) or point.divergence >= best.divergence:
            break
          point = self.moved(point, other, back) or point
      if self.better(point, best):
        best = point
    return best
