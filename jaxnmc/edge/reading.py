"""What comes out of a spiking network, under the tutorial's names.

The tutorial decodes by the most active neuron.  T ticks give T + 1 different
counts, so that among thousands of neurons most tokens tie: give the potentials,
or read them alone (`jaxnmc.spike.readout.potential`).
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.errors import ConfigError
from jaxnmc.models.spike_counts import Counts
from jaxnmc.report.firing import spike_histogram
from jaxnmc.report.stats import stats
from jaxnmc.spike import readout

__all__ = ["decode_spikes_to_tokens", "get_spike_histogram", "get_stats"]

get_stats = stats


def decode_spikes_to_tokens(
  spikes, tokenizer, potentials=None
) -> str | list[str]:
  """The text that the most active neurons stand for.

  Args:
    spikes: [time, tokens, vocabulary] of 0 and 1, or [time, batch, ...].
    tokenizer: `decode(ids) -> str`.
    potentials: of the neurons after the last tick, which decide between equal
      counts, then the smallest id; None: the smallest id alone.

  Returns:
    The text, or one per text of the batch.

  Raises:
    ConfigError: other axes.
  """
  spikes = jnp.asarray(spikes)
  if spikes.ndim not in (3, 4):
    raise ConfigError(
      f"decode_spikes_to_tokens: found spikes of shape {list(spikes.shape)};"
      " allowed are [time, tokens, vocabulary] and [time, batch, tokens,"
      " vocabulary]"
    )
  v = jnp.zeros(spikes.shape[1:], jnp.int32)
  read = readout.activity(spikes, v if potentials is None else potentials)
  ids = np.asarray(jax.device_get(read.token))
  if ids.ndim == 1:
    return tokenizer.decode(ids)
  return [tokenizer.decode(row) for row in ids]


def get_spike_histogram(
  spikes: Counts | Mapping[str, Any],
) -> list[dict[str, Any]]:
  """How often neurons fired, by layer.

  Args:
    spikes: `Counts` of a transformer, or layer -> spikes [time, ...].

  Returns:
    Rows of `jaxnmc.report.firing.spike_histogram`; of arrays the layer is its
    name and there is no site.
  """
  if isinstance(spikes, Counts):
    return spike_histogram(spikes)
  rows = []
  for name, x in spikes.items():
    counts = np.abs(np.asarray(x, np.int64)).sum(0).ravel()
    ticks = len(x)
    rows.append(
      {
        "layer": name,
        "site": None,
        "ticks": ticks,
        "times": np.bincount(counts, minlength=ticks + 1).tolist(),
        "label": "measured",
      }
    )
  return rows
