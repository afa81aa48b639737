"""The cheapest bits within a stated loss.

Every site may have one of several widths. What a width costs and what it harms
are measured site by site (`trials.effects`); where these add up, the best
choice under any price of harm takes for each site on its own

    argmin over widths of   cost + price x harm

and the prices in between trace the lower hull of all choices (Shoham and
Gersho 1988, bit allocation by Lagrange multipliers). Harms do not add up
exactly, so every choice that is considered is measured as a whole.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

from jaxnmc.evaluate.closeness import Figure
from jaxnmc.evaluate.trials import Effect, Trials, narrowed
from jaxnmc.quantize.plan import Plan
from jaxnmc.quantize.stats import Stats

__all__ = ["Found", "Option", "choose", "prices", "search"]


@dataclasses.dataclass(frozen=True)
class Option:
  """A width of a site.

  Attributes:
    bits: the width.
    cost: J per token.
    harm: KL divergence, nats per id.
  """

  bits: int
  cost: float
  harm: float


@dataclasses.dataclass(frozen=True)
class Found:
  """A choice, measured as a whole.

  Attributes:
    price: of harm, J per nat, at which it is the best choice.
    bits: site -> width, of all sites that could change.
    plan: with these widths.
    joules: what the messages of these sites cost per token, J.
    divergence: KL(plan before || this), nats per id.
    loss: growth of perplexity, relative.
  """

  price: float
  bits: Mapping[str, int]
  plan: Plan
  joules: float
  divergence: Figure
  loss: Figure


def options(
  trials: Trials,
  effects: Sequence[Effect],
  joules: Mapping[str, float],
  messages: Mapping[str, float],
) -> dict[str, list[Option]]:
  """Site -> its widths, the one it has included.

  Args:
    trials: whose plan is changed.
    effects: measured, messages watched.
    joules: site -> J per message.
    messages: site -> messages per token under the plan as it is.
  """
  found = {
    site: [Option(trials.plan.format(site).bits, j * messages[site], 0.0)]
    for site, j in joules.items()
  }
  for e in effects:
    if e.messages is not None:
      # A measured divergence below 0 is rounding; less than none is none.
      harm = max(0.0, e.divergence.value)
      found[e.site].append(Option(e.bits, joules[e.site] * e.messages, harm))
  return found


def choose(
  options: Mapping[str, Sequence[Option]], price: float
) -> dict[str, int]:
  """The best width of every site under a price of harm, J per nat.

  Ties go to the smaller harm.
  """
  best = lambda some: min(some, key=lambda o: (o.cost + price * o.harm, o.harm))
  return {site: best(some).bits for site, some in options.items()}


def prices(options: Mapping[str, Sequence[Option]]) -> list[float]:
  """Prices at which some site changes its width, falling.

  A site's widths on the lower hull of (harm, cost) are those that are ever
  chosen; neighbours there swap at the price -(change of cost) / (change of
  harm).
  """
  found = set()
  for some in options.values():
    hull: list[Option] = []
    for o in sorted(some, key=lambda o: (o.harm, o.cost)):
      if hull and o.cost >= hull[-1].cost:
        continue
      while len(hull) > 1 and _slope(hull[-1], o) >= _slope(hull[-2], hull[-1]):
        hull.pop()
      hull.append(o)
    found |= {_slope(a, b) for a, b in zip(hull, hull[1:], strict=False)}
  return sorted(found, reverse=True)


def _slope(a: Option, b: Option) -> float:
  """J saved per nat more harm, from a to b."""
  harm = b.harm - a.harm
  return (a.cost - b.cost) / harm if harm > 0 else float("inf")


def search(
  trials: Trials,
  stats: Stats,
  options: Mapping[str, Sequence[Option]],
  joules: Mapping[str, float],
  most_loss: float,
  *,
  calibration: str = "mse",
  progress: Callable[[Found], None] | None = None,
) -> tuple[Found, list[Found]]:
  """The cheapest choice whose measured loss stays within a bound.

  Bisects over `prices`: what is measured decides, not the sum of harms. A
  choice is within the bound if its perplexity is, and its divergence as well:
  exp(KL) - 1 is the growth to expect on text that the plan before predicts
  well, and has far less noise, so no choice passes by luck with one text.

  Args:
    trials: whose plan is changed; watches the sites.
    stats: the statistics that plan was made from.
    options: of `options`.
    joules: site -> J per message.
    most_loss: growth of perplexity that is allowed, relative; 0.01 is 1 %.
    calibration: as for `effects`.
    progress: called with every choice that was measured.

  Returns:
    (the choice, all that were measured by falling price). With nothing within
    the bound the choice is the plan as it is.

  Raises:
    PlanError: as `narrowed`.
  """

  def measure(price: float) -> Found:
    # A hair below: at the price itself both widths are equally good.
    bits = choose(options, price * (1 - 1e-9))
    plan = narrowed(trials.plan, stats, bits, calibration)
    close, messages = trials(plan)
    spent = sum(j * messages[site] for site, j in joules.items())
    one = Found(price, bits, plan, spent, close.divergence, close.loss)
    if progress is not None:
      progress(one)
    return one

  swaps = prices(options)
  measured = [measure(float("inf"))]
  best = measured[0]
  low, high = 0, len(swaps)  # swaps[:low] are within, swaps[:high + 1] are not
  while low < high:
    middle = (low + high) // 2
    one = measure(swaps[middle])
    measured.append(one)
    if max(one.loss.value, math.expm1(one.divergence.value)) <= most_loss:
      low = middle + 1
      if one.joules <= best.joules:
        best = one
    else:
      high = middle
  return best, sorted(measured, key=lambda f: -f.price)
