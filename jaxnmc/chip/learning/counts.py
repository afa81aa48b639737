"""What learning did: updates, reads, writes, random numbers, saturations."""

import dataclasses

import jax
import numpy as np
from flax import struct

from jaxnmc.chip.costs.figures import Figure
from jaxnmc.errors import ConfigError
from jaxnmc.spike.energy_constants import CONVENTIONS, SRAM, Memory


@struct.dataclass
class Counts:
  """Events of one example (int32[]) or of several (int32[examples]).

  Attributes:
    rows: rows whose error is not 0.
    updates: weights with a change that was not 0 before it was rounded; each
      is read once.
    writes: of them, those whose code changed.
    biases: biases with an error that is not 0.
    randoms: random numbers drawn.
    saturations: weights and biases that their format clipped.
  """

  rows: jax.Array
  updates: jax.Array
  writes: jax.Array
  biases: jax.Array
  randoms: jax.Array
  saturations: jax.Array

  def totals(self) -> dict[str, int]:
    """Sums over all examples, Python's integers."""
    return {
      f.name: int(np.asarray(getattr(self, f.name)).sum(dtype=np.int64))
      for f in dataclasses.fields(self)
    }


# Davies et al. 2018, IEEE Micro 38(1): a pairwise STDP update on Loihi 1.
LOIHI1_UPDATE_PJ, LOIHI1_UPDATE_NS = 120.0, 6.1
_DAVIES = "Davies et al. 2018: one pairwise STDP update of Loihi 1"
# The fitted file of the SANA-FE simulator for Loihi 1.
RANDOM_PJ = 6.0


def energy(
  totals: dict[str, int], *, memory: Memory = SRAM, weight_bits: int = 8
) -> dict[str, Figure]:
  """Energy and time of the updates alone, without the forward pass.

  Args:
    totals: of `Counts.totals`.
    memory: that holds the weights.
    weight_bits: bits of a weight.

  Returns:
    name -> `Figure`: `arithmetic_uj` (a multiplication and two additions of 32
    bits for each update), `memory_uj` (a weight read for each update, one
    written for each write), `random_uj` (numbers drawn), `loihi1_uj` and
    `loihi1_ms` (as if each were an STDP update of Loihi 1, one after the
    other), and `loihi2_uj`, which nobody published.

  Raises:
    ConfigError: weights without bits.
  """
  if weight_bits < 1:
    raise ConfigError(f"weight_bits is {weight_bits}; allowed is 1 or more")
  int32 = CONVENTIONS["int32"]
  updates = totals["updates"] + totals["biases"]
  one = int32.multiply + 2 * int32.add
  moved = (totals["updates"] + totals["writes"]) * weight_bits
  micro = lambda pj, source: Figure(pj / 1e6, "uJ", "modelled", source)
  return {
    "arithmetic_uj": micro(updates * one, f"counts; {int32.source}"),
    "memory_uj": micro(
      moved * memory.bit, f"counts; {memory.name}: {memory.source}"
    ),
    "random_uj": micro(
      totals["randoms"] * RANDOM_PJ,
      "counts; 6 pJ a number, constants of the SANA-FE simulator for Loihi 1",
    ),
    "loihi1_uj": micro(updates * LOIHI1_UPDATE_PJ, f"counts; {_DAVIES}"),
    "loihi1_ms": Figure(
      updates * LOIHI1_UPDATE_NS / 1e6,
      "ms",
      "modelled",
      f"counts, on one core; {_DAVIES}",
    ),
    "loihi2_uj": Figure(
      None, "uJ", "modelled", "no energy of a synaptic update is published"
    ),
  }
