"""What a run did, step by step, core by core, message by message: for charts.

Everything is reduced to at most some hundred numbers, ready for JSON, which the
HTML page (`charts`) and the plots (`plots`) draw alike.
"""

import dataclasses
from typing import Any

import numpy as np

from jaxnmc.chip.costs import energy as energies
from jaxnmc.chip.costs import pricing, work
from jaxnmc.chip.costs.constants import constants_of
from jaxnmc.chip.costs.figures import Report
from jaxnmc.chip.counting import histograms
from jaxnmc.chip.counting.counters import Counters
from jaxnmc.chip.placement.tiles import Placement

__all__ = ["COLUMNS", "RATES", "collect", "core_messages", "messages"]
__all__ += ["power", "steps"]

COLUMNS = 240  # of the chart of steps
# Messages of a neuron per token: never, up to 5 %, ..., below 100 %, always.
RATES = ("0", *(f"{5 * k}-{5 * k + 5}" for k in range(20)), "100")
# Parts of the power: name -> (energy constants, what they are charged for).
PARTS = {
  "static": ("static_w",),
  "running": ("running_w",),
  "time steps": ("chip_step_j",),
  "weights walked": ("synop_j",),
  "messages to other chips": ("crossing_j",),
  "neuron passes": ("neuron_j",),
  "messages": ("message_j",),
}
_MODES = {
  "prompt": ("prefill_j", "prefill_s"),
  "writing": ("generate_j", "generate_s"),
}


def collect(
  counters: Counters, placement: Placement, report: Report
) -> dict[str, Any]:
  """All that follows, by the name of its function."""
  return {
    "steps": steps(counters, placement),
    "power": power(counters, placement, report),
    "core_messages": core_messages(counters, placement),
    "messages": messages(counters),
  }


def steps(
  counters: Counters, placement: Placement, columns: int = COLUMNS
) -> dict[str, Any] | None:
  """Time per step over the run, and what set it.

  Args:
    counters: of a run.
    placement: of the same run.
    columns: most columns; steps in a row share one.

  Returns:
    "steps" of the run; "ends": step after the last one of each column; "us":
    per bound (of `pricing.TERMS`) that ever was the longest term, the mean time
    of a step in each column that steps under this bound took (their sum is the
    mean time of a step); "bounds": per bound its steps and ms; "prompt_steps":
    steps before the first stretch of generation; None where the chip's times
    are unknown.
  """
  if placement.hardware.synop_s is None:
    return None
  done = work.work_of(counters, placement)
  constants = constants_of(placement.hardware)
  terms = pricing.terms(constants, done.loads, done.chips, np)
  terms = terms[:, done.times[pricing.SPANS.index("run")] > 0]
  seconds, bound = terms.max(axis=0), terms.argmax(axis=0)
  count = len(seconds)
  ends = np.unique(np.linspace(0, count, min(columns, count) + 1).astype(int))
  starts, ends = ends[:-1], ends[1:]
  table, bounds = {}, []
  for k, name in enumerate(pricing.TERMS):
    mine = np.where(bound == k, seconds, 0.0)
    if not (bound == k).any():
      continue
    mean = np.add.reduceat(mine, starts) / (ends - starts)
    table[name] = (1e6 * mean).tolist()
    bounds.append(
      {
        "bound": name,
        "steps": int((bound == k).sum()),
        "ms": 1e3 * float(mine.sum()),
        "percent_of_time": 100 * float(mine.sum() / seconds.sum()),
      }
    )
  prompt = 0
  for stretch in counters.stretches:
    if work.is_falling(stretch):
      break
    prompt += stretch.steps
  return {
    "label": "modelled",
    "steps": count,
    "ends": ends.tolist(),
    "us": table,
    "bounds": bounds,
    "prompt_steps": prompt,
  }


def power(
  counters: Counters, placement: Placement, report: Report
) -> dict[str, Any] | None:
  """Mean power of both modes, split into what it is drawn for.

  Args:
    counters: of a run.
    placement: of the same run.
    report: `cost` of the two, whose energy constants are taken.

  Returns:
    "label", "source", "rows": mode -> part -> W, parts that draw nothing left
    out; None where times or energies are unknown.
  """
  source = report.prefill_w.source
  blocks = placement.network.steps_per_layer
  block = float(np.mean(blocks)) if blocks else energies.STEPS_PER_BLOCK
  found = energies.candidates(placement.hardware, block)
  chosen = [e for e in found if e.source == source]
  if report.prefill_w.value is None or not chosen:
    return None
  done = work.work_of(counters, placement)
  every = constants_of(placement.hardware, chosen[0])
  names = [name for part in PARTS.values() for name in part]
  none = dataclasses.replace(every, **dict.fromkeys(names, 0.0))
  rows: dict[str, dict[str, float]] = {mode: {} for mode in _MODES}
  for part, mine in PARTS.items():
    only = dataclasses.replace(none, **{n: getattr(every, n) for n in mine})
    prices = pricing.price(only, done, np)
    for mode, (joules, seconds) in _MODES.items():
      time = float(getattr(prices, seconds))
      watts = float(getattr(prices, joules)) / time if time else 0.0
      rows[mode][part] = watts
  rows = {
    mode: {p: w for p, w in parts.items() if any(r[p] for r in rows.values())}
    for mode, parts in rows.items()
  }
  return {"label": report.prefill_w.label, "source": source, "rows": rows}


def core_messages(counters: Counters, placement: Placement) -> dict[str, Any]:
  """Messages per token of every core in use: "core" numbers, "in", "out"."""
  used = placement.used_cores
  found: dict[str, Any] = {"cores": used.tolist(), "label": "modelled"}
  found["cores_per_chip"] = placement.hardware.cores_per_chip
  tokens = max(1, counters.tokens)
  for key, name in (("out", "messages_out"), ("in", "messages_in")):
    found[key] = None
    if name in counters.names:
      values = counters.by("core", name, placement)
      found[key] = (values[used] / tokens).tolist()
  return found


def messages(counters: Counters) -> dict[str, Any] | None:
  """Sizes of messages and rates of neurons, by role; None: not counted.

  Returns:
    "tokens"; "roles": rows of "role", "neurons" (of all layers), "sent_percent"
    of the values, "bits" (how many values had a magnitude of so many bits, 0 to
    32; 0 was not sent) and "rates" (how many neurons sent in so many of the
    tokens, bins of `RATES`).
  """
  if not counters.histograms:
    return None
  rows = []
  for role, one in histograms.by_role(counters.histograms).items():
    total = max(1, int(one.bits.sum()))
    rows.append(
      {
        "role": role,
        "neurons": len(one.sent),
        "sent_percent": 100 * float(one.sent.sum()) / total,
        "bits": one.bits.tolist(),
        "rates": _rates(one).tolist(),
      }
    )
  tokens = max(one.tokens for one in counters.histograms.values())
  return {"label": "modelled", "tokens": tokens, "roles": rows}


def _rates(one: histograms.Histogram) -> np.ndarray:
  """Neurons by how often they sent: int64[22], bins of `RATES`."""
  # In integers: exactly 5 % of the tokens belongs to the second bin.
  inside = np.minimum(20 * one.sent // max(1, one.tokens), 19)
  place = np.where(one.sent >= one.tokens, len(RATES) - 1, 1 + inside)
  place = np.where(one.sent == 0, 0, place)
  return np.bincount(place, minlength=len(RATES))
