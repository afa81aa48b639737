"""What a run did, as arrays that `price` takes: counters on a placement."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxnmc.chip.costs.pricing import Loads, Work
from jaxnmc.chip.costs.timing import Forms
from jaxnmc.chip.counting.counters import Counters
from jaxnmc.chip.counting.folding import Stretch
from jaxnmc.chip.placement.tiles import Placement
from jaxnmc.chip.routing.links import link_loads
from jaxnmc.errors import PlacementError, UserError

__all__ = ["core_walk", "forms_of", "is_falling", "needs", "work_of"]
__all__ += ["work_on"]


def work_of(counters: Counters, placement: Placement) -> Work:
  """The work of a run.

  Generation is what the fall-through stretches did, prefill what the others
  did; where a mode was not run, it is predicted from the traffic per token of
  what was.

  Args:
    counters: of `loihi` on this placement, or of a real chip
      (`Counters.from_json`).
    placement: the placement that was run.

  Returns:
    float64 arrays.

  Raises:
    UserError: counters of another placement, without tokens, or without
      `synops_stored`.
    PlacementError: a tile is on a core that does not exist.
  """
  needs(counters, placement)
  return work_on(forms_of(counters, placement), counters)


def needs(counters: Counters, placement: Placement) -> None:
  """Refuses counters that cannot be priced, as `work_of` says."""
  counters.check(placement)
  if not counters.tokens:
    raise UserError("cost needs counters of at least one token; there is none")
  for i, stretch in enumerate(counters.stretches):
    if "synops_stored" not in stretch.totals:
      raise UserError(
        f"stretch {i} of the counters has no 'synops_stored' (stored weights"
        " walked), which sets the time; add it to its totals"
      )


def is_falling(stretch: Stretch) -> bool:
  """Whether the next token enters when the last one has left."""
  return stretch.mode == "fall-through"


def core_walk(counters: Counters, placement: Placement) -> np.ndarray:
  """Stored weights walked per token of a pipeline, by core: float[cores]."""
  part = _piped(counters)
  walked = part.by("core", "synops_stored", placement)
  return walked / max(1, part.tokens)


def forms_of(counters: Counters, placement: Placement) -> Forms:
  """Loads of the steps of a full pipeline and of a token alone."""
  falling = [s for s in counters.stretches if is_falling(s)]
  single = _per_token(falling or counters.stretches)[0]
  return Forms(
    *(placement, core_walk(counters, placement), single),
    _links_per_token(_piped(counters), placement),
  )


def _piped(counters: Counters) -> Counters:
  """Those of the stretches that are not fall-through; of all if none is."""
  piped = tuple(s for s in counters.stretches if not is_falling(s))
  return dataclasses.replace(counters, stretches=piped or counters.stretches)


def _links_per_token(counters: Counters, placement: Placement):
  """Messages of the busiest chip link and words of the busiest mesh link."""
  try:
    loads = link_loads(counters, placement)
  except PlacementError:
    raise
  except UserError:
    return 0.0, 0.0  # a profile's messages have no routes
  tokens = max(1, counters.tokens)
  link, mesh = loads.busiest(["chip"]), loads.busiest(["mesh"])
  return link["messages"] / tokens, mesh["words"] / tokens


def _totals(stretch: Stretch, passes: float) -> tuple[float, ...]:
  """Weights walked, messages to other chips, neuron passes, messages sent."""

  def total(name: str) -> float:
    values = stretch.totals.get(name)
    return 0.0 if values is None else float(values.sum())

  executed = total("passes_executed") or passes * stretch.steps
  walked, crossed = total("synops_stored"), total("crossings")
  return (walked, crossed, executed, total("messages_out"))


def _per_token(stretches: Sequence[Stretch]) -> np.ndarray:
  """Mean of `_totals` over tokens: float[4]."""
  tokens = max(1, sum(s.tokens for s in stretches))
  return np.array([_totals(s, 0.0) for s in stretches]).sum(0) / tokens


class Rows:
  """Steps of a run, and how often each is in the whiles of `Work`.

  Args:
    forms: loads of the steps.
  """

  def __init__(self, forms: Forms):
    self.forms = forms
    self.loads: list[Loads] = []
    self.times: list[np.ndarray] = []
    self.more: list[np.ndarray] = []  # stored, crossings, known

  def add(self, loads: Loads, times, stored=None, crossings=0.0) -> None:
    """Adds steps.

    Args:
      loads: of the steps, [n].
      times: how often each is in each while, float[4].
      stored: weights walked by all cores, [n]; None: not counted by step.
      crossings: messages to other chips, [n].
    """
    n = len(loads.walk)
    known = stored is not None
    self.loads.append(loads)
    self.times.append(np.broadcast_to(np.reshape(times, (4, 1)), (4, n)))
    more = np.zeros((3, n))
    more[0], more[1], more[2] = (stored if known else 0.0), crossings, known
    self.more.append(more)

  def work(self, steps: np.ndarray, events: np.ndarray) -> Work:
    """The work, with steps and events of the four whiles."""
    placement = self.forms.placement
    join = lambda name: np.concatenate([getattr(x, name) for x in self.loads])
    names = (f.name for f in dataclasses.fields(Loads))
    stored, crossings, known = np.concatenate(self.more, axis=1)
    return Work(
      chips=np.float64(len(placement.chips)),
      loads=Loads(**{name: join(name) for name in names}),
      times=np.concatenate(self.times, axis=1),
      steps=steps,
      events=events,
      stored=stored,
      crossings=crossings,
      passes=np.float64(placement.passes.sum()),
      known=known,
    )


def work_on(forms: Forms, counters: Counters) -> Work:
  """`work_of` with forms that are known already."""
  stretches, placement = counters.stretches, forms.placement
  falling = [s for s in stretches if is_falling(s)]
  piped = [s for s in stretches if not is_falling(s)]
  passes, latency = float(placement.passes.sum()), placement.steps_per_token
  rows = Rows(forms)
  rows.add(forms.full, (1, 0, 0, 0))
  if not falling:
    rows.add(forms.depth, (0, 1, 0, 0))
  alone = 1 / max(1, sum(s.tokens for s in falling))
  for k, stretch in enumerate(stretches):
    rows.add(
      forms.of(stretch),
      (0, alone * is_falling(stretch), k == 0, 1),
      stretch.steps_of.get("stored"),
      stretch.steps_of.get("crossings", 0.0),
    )
  full, one = _per_token(piped or falling), _per_token(falling or piped)
  full[2], one[2] = passes, passes * latency
  totals = np.array([_totals(s, passes) for s in stretches])
  steps = [1, latency, stretches[0].steps, sum(s.steps for s in stretches)]
  events = [full, one, totals[0], totals.sum(0)]
  return rows.work(np.array(steps, np.float64), np.array(events))
