"""Loads and seconds of time steps, from counters and a placement.

The time of a step is `pricing.step_seconds` of its loads. Where a stretch has
no numbers per step (a real chip's profile may have totals only), the per-token
form is used: in pipelined mode every core walks in every step what it walks for
one token; in fall-through mode the cores walk depth by depth, as
`Placement.walk` says, scaled by the traffic counted. Links likewise.
"""

import dataclasses
import functools

import numpy as np

from jaxnmc.chip.costs.constants import constants_of
from jaxnmc.chip.costs.pricing import Loads, step_seconds
from jaxnmc.chip.counting.folding import Stretch
from jaxnmc.chip.placement.tiles import Placement
from jaxnmc.chip.routing import link_steps
from jaxnmc.chip.routing.by_step import Skew

__all__ = ["Clock", "Forms"]


@dataclasses.dataclass(frozen=True, eq=False)
class Forms:
  """Loads of the steps of one placement.

  Args:
    placement: the placement that was run.
    piped: weights that each core walks per token, float[cores], from the
      pipelined stretches.
    single: weights walked by all cores per token, from the others.
    links: messages on the busiest link between chips and words on the busiest
      link of a mesh per token, from the pipelined stretches; 0 if unknown.
  """

  placement: Placement
  piped: np.ndarray
  single: float
  links: tuple[float, float] = (0.0, 0.0)

  def loads(self, walk, host=0.0, link=0.0, mesh=0.0, passes=None) -> Loads:
    """Loads of steps from numbers and arrays [n]: float64[n] each.

    Neuron passes are those of the placement, unless they are given.
    """
    if passes is None:
      owners = self.placement.tile_core
      passes = self.placement.sum_by(owners, self.placement.passes)
      passes = passes.max(initial=0)
    each = (walk, passes, host, link, mesh)
    arrays = (np.atleast_1d(np.asarray(x, np.float64)) for x in each)
    return Loads(*np.broadcast_arrays(*arrays))

  @functools.cached_property
  def full(self) -> Loads:
    """A step of the full pipeline, [1]."""
    link, mesh = self.links
    return self.loads(self.piped.max(), 0.0, link, mesh)

  @functools.cached_property
  def depth(self) -> Loads:
    """Every depth of a token alone in the network, [steps per token]."""
    placement = self.placement
    walk, total = _walk(placement)
    share = self.single / max(1, total)
    link, mesh = link_steps.by_depth(placement)
    return self.loads(walk * share, 0.0, link * share, mesh * share)

  def of(self, stretch: Stretch) -> Loads:
    """Every step of a stretch, [steps]."""
    rows = stretch.steps_of
    if "busiest_stored" in rows:
      get = lambda name: rows.get(name, 0.0)
      return self.loads(
        *(rows["busiest_stored"], get("host_messages")),
        *(get("busiest_link"), get("busiest_mesh")),
        rows.get("busiest_passes"),
      )
    if stretch.mode != "fall-through":
      full = self.full
      to = lambda x: np.broadcast_to(x, (stretch.steps,))
      return dataclasses.replace(full, **_each(full, to))
    # Steps between tokens, or a profile that had more steps, are floor.
    depth = self.depth
    fill = np.arange(stretch.steps) < stretch.tokens * len(depth.walk)
    tokens = -(-stretch.steps // len(depth.walk))
    many = lambda x: np.tile(x, tokens)[: stretch.steps] * fill
    each = _each(depth, many) | {
      "passes": np.broadcast_to(depth.passes[0], (stretch.steps,))
    }
    return dataclasses.replace(depth, **each)


def _walk(placement: Placement) -> tuple[np.ndarray, int]:
  """Largest of `Placement.walk` at each depth, and its sum over all."""
  core = np.searchsorted(placement.used_cores, placement.tile_core)
  entries = [np.zeros((3, 0), np.int64)]
  for synapse, code in zip(placement.network.synapses, placement.encodings):
    mine = list(placement.tiles_of[synapse.dst])
    size = placement.sizes[mine] * code.entries
    each = np.broadcast_arrays(synapse.depth, core[mine], size)
    entries.append(np.stack(each))
  depth, place, size = np.concatenate(entries, axis=1)
  cores, column = len(placement.used_cores), np.zeros_like(depth)
  skew = Skew.of(depth, place, column, size, cores, 1)
  one, now = np.ones((1, 1), np.int64), np.zeros(1, np.int64)
  most, total = skew.peaks(one, now, placement.steps_per_token)
  return most, int(total.sum())


def _each(loads: Loads, function) -> dict[str, np.ndarray]:
  names = (f.name for f in dataclasses.fields(loads))
  return {name: function(getattr(loads, name)) for name in names}


class Clock:
  """Times of the steps of one placement, in s.

  Args:
    forms: loads of the steps, on a chip whose `synop_s` is known.

  Attributes:
    constants: of the placement's hardware.
    floor: shortest step.
    full_s: step of a full pipeline.
    depth_s: step of each depth of a token alone in the network, float[steps].
  """

  def __init__(self, forms: Forms):
    self.forms = forms
    self.constants = constants_of(forms.placement.hardware)
    self.floor = float(self.steps(0)[0])
    self.full_s = float(self._seconds(forms.full)[0])
    self.depth_s = self._seconds(forms.depth)

  def _seconds(self, loads: Loads) -> np.ndarray:
    chips = len(self.forms.placement.chips)
    return step_seconds(self.constants, loads, chips, np)

  def steps(self, busiest, host=0, link=0, mesh=0) -> np.ndarray:
    """Seconds of steps.

    Args:
      busiest: stored weights that the busiest core walks in each, number or
        array.
      host: messages from and to the host in each.
      link: messages on the busiest link between chips in each.
      mesh: words on the busiest link of a mesh in each.

    Returns:
      float64[n]; n is 1 if all are numbers.
    """
    return self._seconds(self.forms.loads(busiest, host, link, mesh))

  def stretch(self, stretch: Stretch) -> np.ndarray:
    """Seconds of every step of a stretch, float[steps]."""
    return self._seconds(self.forms.of(stretch))
