"""Ways to read a token: by potential, by the most active neuron, in few ticks.

The head is a matrix of 8-bit weights behind the last hidden states, integers of
`fixed`.  They are sent as spikes of their bits, the highest first, or as one
drive for all ticks.
"""

from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from edge import states
from edge.bench import Bench
from edge.states import Examples
from jaxnmc.chip import learning
from jaxnmc.spike import codes, neurons, readout

_CODE = "signed_bitwise"
_TICKS = (4, 8, 16, 64)
_BATCH = 32


def by_bits(head: learning.Head, some: Examples) -> dict[str, Any]:
  """Tokens by potential, stopped as soon as no other can win.

  Args:
    head: in integers.
    some: what it reads.

  Returns:
    Whether all tokens are those of the whole sum, and ticks that were saved.
  """
  ticks = codes.ticks_for(_CODE, head.formats.hidden.high)
  low, high = readout.bounds(np.asarray(head.weight), signed=True)
  worth = codes.weights(_CODE, ticks)
  turned = head.weight.astype(jnp.int32).T

  @jax.jit
  def read(hidden):
    spikes = codes.encode(_CODE, hidden, ticks).astype(jnp.int32)
    drive = lambda t: spikes[t] @ turned
    early = readout.potential_early(drive, ticks, low, high, worth)
    whole = jnp.argmax(hidden @ turned, -1)
    return early, jnp.sum(early.token == whole)

  same = used = whole = tied = 0
  for part in _parts(some):
    early, equal = read(part.hidden)
    found = readout.saved(early, ticks)
    same, used = same + int(equal), used + found.used
    whole += found.whole
    tied += int(np.sum(np.asarray(early.tied) > 1))
  count = len(some) // _BATCH * _BATCH
  return {
    "positions": count,
    "same": same,
    "ticks": ticks,
    "mean_ticks": used / count,
    "saved": 1 - used / whole,
    "tie_rate": tied / count,
    "label": "measured",
  }


def by_activity(head: learning.Head, some: Examples) -> list[dict[str, Any]]:
  """Tokens by the most active neuron, and how many of them tie.

  Logits drive neurons for some ticks; the threshold lets the largest logits of
  all positions fire in about every tick.
  """
  rows = []
  logits = np.concatenate(
    [np.asarray(learning.logits(head, p.hidden)) for p in _parts(some)]
  )
  count = len(logits)
  answers, best = some.rows[:count], logits.argmax(-1)
  threshold = int(max(1, np.percentile(logits.max(-1), 99)))
  for ticks in _TICKS:
    neuron = neurons.IF(threshold=threshold)

    @jax.jit
    def read(x, ticks=ticks, neuron=neuron):
      drive = neurons.constant(x, ticks)
      charge = ticks * head.formats.logits.high
      state, spikes = neurons.run(neuron, drive, charge=charge)
      return readout.activity(spikes, state.v)

    found = [
      read(jnp.asarray(logits[k : k + _BATCH], jnp.int32))
      for k in range(0, count, _BATCH)
    ]
    token = np.concatenate([np.asarray(r.token) for r in found])
    tied = np.concatenate([np.asarray(r.tied) for r in found])
    rows.append(
      {
        "ticks": ticks,
        "threshold": threshold,
        "tie_rate": float(np.mean(tied > 1)),
        "mean_tied": float(tied.mean()),
        "same_token": float(np.mean(token == best)),
        "accuracy": float(np.mean(token == answers)),
      }
    )
  return rows


def _parts(some: Examples) -> list[Examples]:
  """Whole batches; what is left over is dropped."""
  return [
    some[k : k + _BATCH] for k in range(0, len(some) - _BATCH + 1, _BATCH)
  ]


def figures(bench: Bench, source: str) -> dict[str, Any]:
  """All ways to read, on the hidden states behind the test commands."""
  made, some = bench.integers(source), bench.tested(source)
  head = learning.from_model(made.plan, made.qparams, hidden=states.HIDDEN)
  return {
    "potential": by_bits(head, some),
    "activity": by_activity(head, some),
  }
