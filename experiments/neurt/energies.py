"""Energy of spiking attention beside softmax attention, by conventions."""

import dataclasses
from typing import Any

from jaxnmc.models import gpt
from jaxnmc.spike import energy
from jaxnmc.spike.energy_constants import CONVENTIONS
from jaxnmc.spike.energy_counts import Attention

# Savings that the paper claims (quoted), and the ticks times rate they need
# when only the operation changes.
CLAIMED = (0.6471, 0.8528)
TOKENS = (64, 256, 1024, 4096)
TICKS = (1, 2, 4, 8, 16)
RATES = (0.05, 0.1, 0.2, 0.3, 0.45)


def core(config: gpt.Config, tokens: int, ticks: int, rates: dict) -> dict:
  """Modelled energies (pJ) of the core over a sequence, and what is saved.

  Both forms are counted with all pairs, quadratic, as papers do; the same core
  as a running sum over tokens stands beside it with memory.
  """
  width = config.num_heads * config.head_size
  papers = Attention(tokens, width, config.num_heads, causal=False)
  causal = Attention(tokens, width, config.num_heads)
  one = energy.compare(papers.core(), ticks, rates)
  running = energy.compare(
    causal.core("linear"), ticks, rates, dense_form=causal.core()
  )
  return {
    "tokens": tokens,
    "quadratic": _figures(one),
    "running sum": _figures(running),
  }


def _figures(found: energy.Comparison) -> dict[str, Any]:
  return dataclasses.asdict(found) | {"savings": found.savings()}


def curves(config: gpt.Config) -> dict[str, list]:
  """Savings of the core (arithmetic; with memory) over three variables."""
  saved = lambda tokens, ticks, rate: core(
    config, tokens, ticks, dict.fromkeys("qkv", rate)
  )["quadratic"]["savings"]
  return {
    "tokens": [(n, saved(n, 4, 0.2)) for n in TOKENS],
    "ticks": [(t, saved(256, t, 0.2)) for t in TICKS],
    "rate": [(r, saved(256, 4, r)) for r in RATES],
  }


def inverted() -> list[tuple[str, float, float]]:
  """(convention, ticks times rate for each claimed saving)."""
  need = lambda saving, kind: float(energy.invert(1 - saving, kind))
  return [
    (k.name, *(need(s, k) for s in CLAIMED)) for k in CONVENTIONS.values()
  ]
