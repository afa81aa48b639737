"""Seconds per time step, from counters and the chip's constants.

A time step ends when the last core is done (Timcheck et al. 2026, Eq. 1, a
maximum of affine terms; the links' term is not in this version):

    T = max(synop_s * most weights walked on a core,
            neuron_s * most neuron passes on a core,
            host messages / host rate, barrier)
"""

import numpy as np

from jaxnmc.chip.folding import Stretch
from jaxnmc.chip.tiles import Placement

__all__ = ["Clock"]


class Clock:
  """Times of the steps of one placement.

  Where a stretch has no numbers per step (a real chip's profile may have totals
  only), the per-token form is used: in pipelined mode every core walks in every
  step what it walks for one token; in fall-through mode the cores walk depth by
  depth, as `Placement.walk` says, scaled by the traffic counted.

  Args:
    placement: placement on a chip whose `synop_s` is known.
    piped: weights that each core walks per token, float[cores], from the
      pipelined stretches.
    single: weights walked by all cores per token, from the others.

  Attributes:
    full_s: step of a full pipeline.
    depth_s: step of each depth of a token alone in the network, float[steps].
  """

  def __init__(self, placement: Placement, piped: np.ndarray, single: float):
    hardware = placement.hardware
    self.synop_s = hardware.synop_s
    self.host_s = 1 / (hardware.host_messages_per_s or np.inf)
    many = len(placement.chips) > 1
    floor = hardware.barrier_system_s if many else hardware.barrier_s
    passes = placement.sum_by(placement.tile_core, placement.passes)
    busiest = int(passes.max(initial=0))
    self.floor = max(floor or 0.0, busiest * (hardware.neuron_s or 0.0))
    self.full_s = float(self.steps(piped.max()))
    share = single / max(1, int(placement.walk.sum()))
    self.depth_s = self.steps(placement.walk.max(axis=1, initial=0) * share)

  def steps(self, busiest, host=0) -> np.ndarray:
    """Seconds of steps.

    Args:
      busiest: stored weights that the busiest core walks in each, number or
        array.
      host: messages from and to the host in each.

    Returns:
      float64 of the shape of the two.
    """
    walk = np.asarray(busiest) * self.synop_s
    link = np.asarray(host) * self.host_s
    return np.maximum(np.maximum(walk, link), self.floor)

  def stretch(self, stretch: Stretch) -> np.ndarray:
    """Seconds of every step of a stretch, float[steps]."""
    rows = stretch.steps_of
    if "busiest_stored" in rows:
      return self.steps(rows["busiest_stored"], rows.get("host_messages", 0))
    if stretch.mode == "fall-through":
      # Steps between tokens, or a profile that had more steps, are floor.
      known = np.tile(self.depth_s, stretch.tokens)[: stretch.steps]
      rest = np.full(stretch.steps - len(known), self.floor)
      return np.concatenate([known, rest])
    return np.full(stretch.steps, self.full_s)
