"""What one message of each value costs, from a placement alone.

A message walks the stored weights of its source's column at every target, and
crosses once to every other chip that it reaches: with the constants of
`energy`, the part of a token's energy that falls when a value is zero and is
not sent.
"""

from jaxnmc.chip.costs.energy import Energy
from jaxnmc.chip.placement.tiles import Placement

__all__ = ["joules_per_message"]


def joules_per_message(
  placement: Placement, energy: Energy
) -> dict[str, float]:
  """Value -> J per message, averaged over its neurons.

  Args:
    placement: where the network is.
    energy: constants; unknown ones count as nothing.

  Returns:
    Path of every value that is sent, in order of synapses.
  """
  network, tiles = placement.network, placement.tiles_of
  walked, crossed = dict[str, float](), dict[str, float]()
  sent = dict[str, float]()
  for synapse in network.synapses:
    path, src, dst = synapse.path, tiles[synapse.src], tiles[synapse.dst]
    # The host's own weights and messages are not the chips' (no tiles).
    sent[path] = float(bool(src))
    # Dense encodings store zeros, too; a relay is one to one.
    column = network.populations[synapse.dst].width if dst else 0
    if synapse.kind in ("relay", "reduce"):
      column = min(column, 1)
    walked[path] = walked.get(path, 0.0) + column
    there = {placement.tiles[t].chip for t in dst}
    reach = [len(there - {placement.tiles[t].chip}) for t in src]
    # A message goes once to a chip, however many synapses there read it.
    mean = sum(reach) / max(1, len(reach))
    crossed[path] = max(crossed.get(path, 0.0), mean)
  return {
    path: (energy.synop_j or 0.0) * walked[path]
    + (energy.message_j or 0.0) * sent[path]
    + (energy.crossing_j or 0.0) * crossed[path]
    for path in walked
  }
