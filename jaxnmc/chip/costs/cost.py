"""Time, energy and power of a run, from its counters and sourced constants.

Arithmetic: `pricing`; what is priced: `work`; constants: `constants`; here the
numbers become labelled figures. What each means: `docs/hardware.md`.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from jaxnmc.chip.costs import energy as energies
from jaxnmc.chip.costs import work
from jaxnmc.chip.costs.constants import constants_of
from jaxnmc.chip.costs.energy import Energy
from jaxnmc.chip.costs.figures import Figure, Report
from jaxnmc.chip.costs.pricing import Prices, price
from jaxnmc.chip.costs.rows import chip_rows, core_rows, layer_rows
from jaxnmc.chip.costs.timing import Clock
from jaxnmc.chip.counting.counters import Counters
from jaxnmc.chip.placement import packing
from jaxnmc.chip.placement.tiles import Placement
from jaxnmc.chip.routing.links import link_loads
from jaxnmc.errors import PlacementError, UserError

__all__ = ["Figure", "Report", "cost"]

_UNITS = packing.COLUMN["synapse_units"]


def cost(
  counters: Counters,
  placement: Placement,
  energy: str | Energy = "auto",
  *,
  top: int = 10,
) -> Report:
  """Prices a run.

  Args:
    counters: of `loihi` on this placement, or of a real chip
      (`Counters.from_json`).
    placement: the placement that was run; times and limits come from its
      hardware (`dataclasses.replace` it to change them).
    energy: `auto`: what the hardware gives, else the fitted form `step`, or
      `running` where `step` would draw more than the chip can; or one of these
      two; or constants.
    top: rows in `per_core`.

  Returns:
    The report. Generation figures come from fall-through stretches, prefill
    figures from the others; where a mode was not run, they are predicted from
    the traffic per token of what was.

  Raises:
    UserError: counters of another placement, without tokens, or without
      `synops_stored`; or an unknown form of energy.
    PlacementError: a tile is on a core that does not exist.
  """
  work.needs(counters, placement)
  forms = work.forms_of(counters, placement)
  load = work.work_on(forms, counters)
  steps_per_layer = placement.network.steps_per_layer
  block = float(np.mean(steps_per_layer)) if steps_per_layer else None
  timed = placement.hardware.synop_s is not None

  def priced(chosen: Energy | None) -> Prices | None:
    if not timed:
      return None
    return price(constants_of(placement.hardware, chosen), load, np)

  chosen, note = _choose(energy, placement, block, priced)
  prices = priced(chosen)
  figures = _Figures(placement, counters, chosen, prices)
  clock = Clock(forms) if timed else None
  per_core = forms.piped
  tokens = {"prefill": 0, "generate": 0}
  for s in counters.stretches:
    tokens["generate" if work.is_falling(s) else "prefill"] += s.tokens
  plain = _plain(counters, placement, block)
  peak = figures.peak()
  return Report(
    **figures.times(),
    **figures.energies(),
    peak_w=peak,
    **plain,
    **_links(counters, placement),
    tokens=tokens,
    per_chip=chip_rows(placement, clock, per_core, chosen),
    per_layer=layer_rows(counters, placement, clock, chosen),
    per_core=core_rows(placement, per_core, top),
    notes=_notes(counters, placement, note, chosen, peak.value),
  )


def _choose(
  energy: str | Energy,
  placement: Placement,
  block: float | None,
  priced: Callable[[Energy], Prices | None],
) -> tuple[Energy | None, str]:
  """The energy constants in use, and a note."""
  block = block or energies.STEPS_PER_BLOCK
  if isinstance(energy, Energy):
    return energy, ""
  if energy != "auto":
    return energies.constants(energy, block), ""
  chips, ceiling = len(placement.chips), placement.hardware.ceiling_w
  options = energies.candidates(placement.hardware, block)
  if not options:
    return None, ""
  first, *rest = options
  found = priced(first)
  watts = 0.0
  if found is not None:
    watts = float(max(found.prefill_w, found.generate_w)) / chips
  if not rest or ceiling is None or watts <= ceiling:
    return first, ""
  return rest[0], (
    f"the energy form {first.name!r} would draw {watts:.2g} W per chip, more"
    f" than the {ceiling:g} W of a full system: these time steps are outside"
    f" what it was fitted on, so the form {rest[0].name!r} is used"
  )


def _is_the_papers(placement: Placement) -> bool:
  """Whether this is the very system the energy constants were fitted on."""
  stored = placement.sum_by(placement.tile_layer, placement.stored)
  same = np.abs(stored / energies.BLOCK_WEIGHTS - 1) < 0.01
  blocks = energies.BLOCKS
  return len(stored) == blocks == len(placement.chips) and bool(same.all())


class _Figures:
  """Prices with the right unit, label and source."""

  def __init__(
    self,
    placement: Placement,
    counters: Counters,
    chosen: Energy | None,
    prices: Prices | None,
  ):
    self.chosen, self.prices = chosen, prices
    self.fact = placement.hardware.fact("synop_s")
    fitted = chosen is not None and chosen.fitted and _is_the_papers(placement)
    self.label = "fitted" if fitted else "modelled"
    self.fell = any(work.is_falling(s) for s in counters.stretches)
    self.latency = placement.steps_per_token

  def _time(self, unit: str, what: str, value: Callable) -> Figure:
    """A function of the prices; without times, and of 1 / 0, unknown."""
    if self.prices is None:
      return Figure(None, unit, "modelled", "synop_s of this chip is unknown")
    found, source = value(self.prices), f"{what}; {self.fact.source}"
    return Figure(found, unit, "modelled", source)

  def _energy(self, unit: str, value: Callable) -> Figure:
    if self.prices is None or self.chosen is None:
      why = "times or energy constants of this chip are unknown"
      return Figure(None, unit, "modelled", why)
    return Figure(value(self.prices), unit, self.label, self.chosen.source)

  def times(self) -> dict[str, Figure]:
    """Latency and throughput."""
    how = "steps of the fall-through stretches"
    if not self.fell:
      how = "predicted depth by depth: no fall-through stretch was run"
    t, full, steps = self._time, "full pipeline", self.latency
    ms = lambda s: 1e3 * float(s)
    us = lambda s: 1e6 * float(s)
    rate = lambda s: 1 / float(s) if s else None
    return {
      "ttft_ms": t("ms", "steps of the first stretch", lambda p: ms(p.ttft_s)),
      "prefill_step_us": t("us", full, lambda p: us(p.prefill_s)),
      "prefill_tokens_per_s": t("1/s", full, lambda p: rate(p.prefill_s)),
      "generate_step_us": t("us", how, lambda p: us(p.generate_s) / steps),
      "generate_ms_per_token": t("ms", how, lambda p: ms(p.generate_s)),
      "generate_tokens_per_s": t("1/s", how, lambda p: rate(p.generate_s)),
      "run_ms": t("ms", "all stretches", lambda p: ms(p.run_s)),
    }

  def energies(self) -> dict[str, Figure]:
    """Energy per token and of the run, mean powers."""
    e = self._energy
    return {
      "prefill_mj_per_token": e("mJ", lambda p: 1e3 * float(p.prefill_j)),
      "generate_mj_per_token": e("mJ", lambda p: 1e3 * float(p.generate_j)),
      "prefill_w": e("W", lambda p: float(p.prefill_w)),
      "generate_w": e("W", lambda p: float(p.generate_w)),
      "mean_w": e("W", lambda p: float(p.mean_w) if p.run_s else None),
      "run_mj": e("mJ", lambda p: 1e3 * float(p.run_j)),
    }

  def peak(self) -> Figure:
    """Power of the step with the highest; of a mode, without steps."""
    return self._energy("W", lambda p: float(p.peak_w))


def _plain(
  counters: Counters, placement: Placement, block: float | None
) -> dict[str, Figure]:
  """Figures that need no constants."""
  make = lambda v, unit, what: Figure(v, unit, "modelled", what)
  room = placement.hardware.synapse_units
  used = float(placement.demand[:, _UNITS].sum())
  cores = len(placement.chips) * placement.hardware.cores_per_chip
  percent = None if room is None or not cores else 100 * used / room / cores
  nonzero = None
  stored = float(counters.total("synops_stored").sum())
  if "synops" in counters.names and stored:
    nonzero = 100 * float(counters.total("synops").sum()) / stored
  clipped = None
  if counters.saturations is not None:
    clipped = sum(counters.saturations.values())
  walked = float(work.core_walk(counters, placement).sum())
  depth = placement.steps_per_token
  return {
    "memory_bytes": make(placement.memory_bytes, "B", "placement"),
    "memory_percent": make(percent, "%", "placement"),
    "steps_per_token": make(depth, "steps", "depth of the placed network"),
    "steps_per_layer": make(block, "steps", "depth of our own graph"),
    "synops_per_token": make(walked, "weights", "counters"),
    "nonzero_percent": make(nonzero, "%", "counters"),
    "saturations": make(clipped, "values", "counters"),
  }


def _links(counters: Counters, placement: Placement) -> dict[str, Figure]:
  """Hops, and the load of the busiest link."""
  unit = {"hops_per_token": "hops", "link_words_per_token": "words"}
  try:
    loads = link_loads(counters, placement)
  except PlacementError:
    raise
  except UserError as error:
    # Counters of a profile, or a chip of another mesh: nothing to route.
    why = {k: Figure(None, u, "modelled", str(error)) for k, u in unit.items()}
    if "hops" in counters.names:
      passed = float(counters.total("hops").sum()) / counters.tokens
      why["hops_per_token"] = Figure(passed, "hops", "modelled", "counters")
    return why
  row, tokens = loads.busiest(), counters.tokens
  kind = "to another chip" if row["kind"] == "chip" else "of its mesh"
  mesh = loads.mesh
  text = {
    "hops_per_token": f"X-Y routes on {mesh.columns} x {mesh.rows} routers"
    " (quoted), order of cores and places of ports assumed; beside them"
    f" {loads.chip_hops / tokens:g} links between chips",
    "link_words_per_token": f"a link {row['direction']} {kind}, chip"
    f" {row['chip']}; 3 words per message to another chip (quoted), 2 on a"
    " chip (assumed)",
  }
  each = (loads.hops / tokens, row["words"] / tokens)
  return {
    name: Figure(value, u, "modelled", text[name])
    for (name, u), value in zip(unit.items(), each, strict=True)
  }


def _notes(
  counters: Counters, placement: Placement, note: str, chosen, peak
) -> tuple[str, ...]:
  """What is not in the figures."""
  out = [note] if note else []
  ceiling = placement.hardware.ceiling_w
  if peak and ceiling is not None and peak > ceiling * len(placement.chips):
    out.append(
      f"peak_w is above {ceiling:g} W per chip, a full system's ceiling: the"
      " shortest steps are outside what the constants were fitted on"
    )
  if all("busiest_mesh" in s.steps_of for s in counters.stretches):
    out.append(
      "a step waits for its busiest link; queues in front of links and the"
      " way of a message are not in the times"
    )
  else:
    out.append("links are not timed: what each carried in each step is unknown")
  if len(placement.chips) > 1:
    out.append(
      "24 chips of Abreu et al. 2025 took 2.1 times (prefill) and 1.7 times"
      " (generation) as long as their one chip: not in these times"
    )
  out.append(
    "generation is a lower bound: a step takes its longest walk, or the"
    " barrier; the published one-chip figure is about twice that sum"
  )
  if placement.host:
    shown = ", ".join(placement.host[:4])
    out.append(f"what the host computes is not timed ({shown})")
  if chosen is None:
    out.append("no energy: constants of this chip are unknown")
  own = {f.name for f in dataclasses.fields(Energy)}
  missing = [n for n in placement.hardware.unknown if n not in own]
  if missing:
    out.append(f"unknown, so not checked or counted: {', '.join(missing)}")
  return tuple(out)
