"""Other formats for some sites of a plan: what each costs, without compiling.

A trial is the float model with the roundings of a plan whose formats are data
(`ops.transform.on_grids`), beside the plan it changes.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxnmc.errors import PlanError
from jaxnmc.evaluate.closeness import Closeness, Comparison, Figure
from jaxnmc.numerics.float_formats import grids_of
from jaxnmc.numerics.formats import Format
from jaxnmc.ops.transform import on_grids
from jaxnmc.quantize.choose import adjust
from jaxnmc.quantize.plan import Plan
from jaxnmc.quantize.rules import Rule
from jaxnmc.quantize.stats import Stats

__all__ = ["Effect", "Trials", "effects", "narrowed"]


class Trials:
  """Measures changes of one plan on one text; compiled at the first call.

  Args:
    fn: model function.
    params: float parameters.
    plan: what is changed.
    documents: ids of each text, int32[n].
    bos: token in front of every text.
    watch: sites whose messages (values that are not zero) are counted.
    batch: texts side by side.
    chunk: positions of a call.

  Raises:
    DataError: there is nothing to predict.
    PlanError: a watched site has no bits.
  """

  def __init__(
    self,
    fn: Callable,
    params: Any,
    plan: Plan,
    documents: Sequence[np.ndarray],
    *,
    bos: int,
    watch: Sequence[str] = (),
    batch: int = 16,
    chunk: int = 128,
  ):
    run = on_grids(fn, plan, tuple(watch))
    self.plan, self._params, self._sites = plan, params, run.sites  # type: ignore[attr-defined]

    def tried(both, inputs, state=None):
      out, state, counts = run(*both, inputs, state)
      return out, state, counts

    tried.context = getattr(run, "context", None)  # type: ignore[attr-defined]
    base = (tried, (params, self._grids(plan)))
    size = {"batch": batch, "chunk": chunk}
    self._compare = Comparison(
      base, tried, documents, bos=bos, keep=True, **size
    )

  def _grids(self, plan: Plan):
    same = set(plan.formats) == set(self.plan.formats)
    formats = [plan.site(path) for path in self._sites] if same else []
    whole = [f for f in formats if isinstance(f, Format)]
    if len(whole) < len(self._sites):
      raise PlanError(
        f"plan {plan.name!r} has other sites than {self.plan.name!r}, or leaves"
        " one in float; trials change bits and fractions only"
      )
    return grids_of(whole)

  def __call__(self, plan: Plan) -> tuple[Closeness, dict[str, float]]:
    """How close a changed plan is to the plan.

    Args:
      plan: the same sites with other bits.

    Returns:
      Closeness, and the messages per token of every watched site.

    Raises:
      PlanError: the plan has other sites.
    """
    found, counts = self._compare((self._params, self._grids(plan)))
    ids = found.ids.sum()
    return found, {site: float(n / ids) for site, n in counts.items()}


@dataclasses.dataclass(frozen=True)
class Effect:
  """What other bits at one site do.

  Attributes:
    site: its path.
    bits: tried there.
    format: what the calibration chose for these bits.
    divergence: KL(plan || changed), nats per id.
    loss: growth of perplexity, relative.
    messages: messages of the site per token; None: not watched.
  """

  site: str
  bits: int
  format: str
  divergence: Figure
  loss: Figure
  messages: float | None


def narrowed(
  plan: Plan, stats: Stats, bits: Mapping[str, int], calibration: str = "mse"
) -> Plan:
  """A plan with other bits at some sites, their fractions chosen anew.

  Args:
    plan: the plan.
    stats: the statistics it was made from.
    bits: site -> bits; a site that has them already keeps its format.
    calibration: of the sites that change, as for `Rule`.

  Returns:
    The new plan.

  Raises:
    PlanError: as `adjust`.
    FormatError: bits that no format has.
  """
  changes = []
  for site, width in bits.items():
    now = plan.site(site)
    if isinstance(now, Format) and now.bits == width:
      continue
    rule = Rule(re.escape(site), bits=width, calibration=calibration)
    changes.append(rule)
  return adjust(plan, stats, *changes) if changes else plan


def effects(
  trials: Trials,
  stats: Stats,
  sites: Sequence[str],
  bits: Sequence[int],
  *,
  calibration: str = "mse",
  progress: Callable[[int], None] | None = None,
) -> list[Effect]:
  """Puts one site after the other to fewer bits; the rest keeps its own.

  Args:
    trials: of the plan to change.
    stats: the statistics that plan was made from.
    sites: which.
    bits: each width to try; only those below a site's own are.
    calibration: of the range at the new width.
    progress: called with 1 after every site and width, tried or not.

  Returns:
    In order of sites, then of bits.

  Raises:
    PlanError: as `narrowed`.
  """
  found = []
  for site in sites:
    now = trials.plan.format(site)
    for width in bits:
      if width < now.bits:
        changed = narrowed(trials.plan, stats, {site: width}, calibration)
        close, messages = trials(changed)
        found.append(
          Effect(
            *(site, width, str(changed.site(site))),
            *(close.divergence, close.loss, messages.get(site)),
          )
        )
      if progress is not None:
        progress(1)
  return found
