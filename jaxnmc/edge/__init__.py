"""Names of a practitioner's tutorial, on functions that exist.

The tutorial ("Optimizing small language models for edge ... neuromorphic
hardware") imports `lava.lib.dl.snn` with attention and int8 weights, and asks a
board for `get_stats`.  lava-dl has `slayer`, `bootstrap` and `netx` only; none
of these calls exists there.  Here they do, with its parameters (threshold 128,
decay 0.9, ticks), as thin descriptions over `jaxnmc.spike` and `jaxnmc.report`.
What differs is said in `jaxnmc.edge.layers`.  A model that is to write text is
`jaxnmc.models.gpt` with `attention="ssa"`, not these.
"""

from jaxnmc.edge.layers import (
  SpikingFeedForward,
  SpikingLinear,
  SpikingMultiHeadAttention,
  SpikingTransformerBlock,
)
from jaxnmc.edge.reading import (
  decode_spikes_to_tokens,
  get_spike_histogram,
  get_stats,
)

__all__ = [
  "SpikingFeedForward",
  "SpikingLinear",
  "SpikingMultiHeadAttention",
  "SpikingTransformerBlock",
  "decode_spikes_to_tokens",
  "get_spike_histogram",
  "get_stats",
]
