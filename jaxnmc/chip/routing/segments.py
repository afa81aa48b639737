"""What engines hand in: the traffic of each synapse, token by token."""

import dataclasses

import numpy as np

__all__ = ["Segment", "SynapseCount"]


@dataclasses.dataclass(frozen=True, eq=False)
class SynapseCount:
  """Traffic of one synapse, token by token.

  Attributes:
    synapse: its index in the network.
    depth: of its source: the events of token n are in step inject[n] + depth.
    out: messages sent, int[T, tiles of the source].
    inc: messages received, int[T, tiles of the target].
    synops: entries walked that are not zero, int[T, tiles of the target].
    stored: entries walked, int[T, tiles of the target].
  """

  synapse: int
  depth: int
  out: np.ndarray
  inc: np.ndarray
  synops: np.ndarray
  stored: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Segment:
  """One uninterrupted run, from empty cores until the last token has left.

  Attributes:
    inject: step at which each token enters, strictly increasing, int64[T].
    counts: traffic of the synapses that touch the chips.
  """

  inject: np.ndarray
  counts: tuple[SynapseCount, ...]
