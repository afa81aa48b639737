"""Reads counters from JSON, field by field; the format is in `counters`."""

import types
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnmc.chip.counting.folding import MODES, STEPS, TOTALS, Stretch
from jaxnmc.errors import UserError

__all__ = ["CORE_STEPS", "Reader"]

# Counts that may be given per step and core -> names in `steps_of` of the
# busiest core's and of the sum; "" is not kept.
CORE_STEPS: Mapping[str, tuple[str, str]] = types.MappingProxyType(
  {
    "synops_stored": ("busiest_stored", "stored"),
    "synops": ("", ""),
    "passes_executed": ("busiest_passes", ""),
    "messages_out": ("", ""),
    "messages_in": ("", ""),
    "crossings": ("", "crossings"),
    "hops": ("", ""),
  }
)


class Reader:
  """Checked fields of the JSON."""

  def __init__(self, where: str):
    self.where = where

  def error(self, field: str, found: Any, allowed: str) -> UserError:
    shown = repr(found)
    shown = shown if len(shown) < 60 else shown[:57] + "..."
    return UserError(f"{self.where}: {field} is {shown}; it must be {allowed}")

  def whole(self, data: Mapping, key: str, field: str) -> int:
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
      raise self.error(field, value, "a whole number that is not negative")
    return value

  def arrays(self, data: Any, field: str, names, length: int) -> dict:
    if not isinstance(data, dict) or not set(data) <= set(names):
      raise self.error(
        field, data, f"an object with some of {', '.join(names)}"
      )
    out = {}
    for name, values in data.items():
      good = isinstance(values, list) and len(values) == length
      if not good or any(type(v) is not int or v < 0 for v in values):
        allowed = f"{length} whole numbers that are not negative"
        raise self.error(f"{field}.{name}", values, allowed)
      out[name] = np.array(values, np.int64)
    return out

  def stretch(self, data: Any, field: str, owners: int, per: str) -> Stretch:
    if not isinstance(data, dict):
      raise self.error(field, data, "an object")
    mode = data.get("mode")
    if mode not in MODES:
      raise self.error(f"{field}.mode", mode, f"one of {', '.join(MODES)}")
    tokens = self.whole(data, "tokens", f"{field}.tokens")
    steps = self.whole(data, "steps", f"{field}.steps")
    first = data.get("first_logits")
    if first is not None:
      first = self.whole(data, "first_logits", f"{field}.first_logits")
    totals = data.get("totals", {})
    totals = self.arrays(totals, f"{field}.totals", TOTALS, owners)
    rows = data.get("steps_of", {})
    rows = self.arrays(rows, f"{field}.steps_of", STEPS, steps)
    found = data.get("core_steps", {})
    if found and per != "core":
      raise self.error(f"{field}.core_steps", found, 'left out but per "core"')
    self.core_steps(found, f"{field}.core_steps", steps, owners, totals, rows)
    sent = self.sent(data.get("sent"), f"{field}.sent")
    return Stretch(mode, tokens, steps, first, totals, rows, sent)

  def core_steps(
    self, data: Any, field: str, steps: int, cores: int, totals, rows
  ) -> None:
    """Reduces numbers per step and core, into `totals` and `rows`."""
    if not isinstance(data, dict) or not set(data) <= set(CORE_STEPS):
      allowed = f"an object with some of {', '.join(CORE_STEPS)}"
      raise self.error(field, data, allowed)
    for name, values in data.items():
      good = isinstance(values, list) and len(values) == steps
      good = good and all(
        isinstance(row, list)
        and len(row) == cores
        and all(type(v) is int and v >= 0 for v in row)
        for row in values
      )
      if not good:
        allowed = (
          f"{steps} lists (steps) of {cores} whole numbers (cores) that are"
          " not negative"
        )
        raise self.error(f"{field}.{name}", values, allowed)
      each = np.array(values, np.int64).reshape(steps, cores)
      most, every = CORE_STEPS[name]
      reduced = {most: each.max(axis=1, initial=0), every: each.sum(axis=1)}
      reduced.pop("", None)
      twice = [k for k in reduced if k in rows]
      twice += [name] * (name in totals)
      if twice:
        raise self.error(
          f"{field}.{name}", values, f"left out where {twice[0]} is given too"
        )
      totals[name] = each.sum(axis=0)
      rows |= reduced

  def sent(self, data: Any, field: str) -> dict | None:
    if data is None:
      return None
    if not isinstance(data, dict) or not all(k.isdecimal() for k in data):
      raise self.error(field, data, "an object with numbers of synapses")
    out = {}
    for key, pair in data.items():
      good = isinstance(pair, list) and len(pair) == 2
      good = good and all(isinstance(side, list) for side in pair)
      if not good or any(type(n) is not int or n < 0 for n in sum(pair, [])):
        allowed = "two lists of whole numbers that are not negative"
        raise self.error(f"{field}.{key}", pair, allowed)
      out[int(key)] = tuple(np.array(side, np.int64) for side in pair)
    return out
