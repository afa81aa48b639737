"""Time, energy and power of a run, from its counters and sourced constants.

Times: `timing`; energy: `energy`; what each figure means: `docs/hardware.md`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnmc.chip import energy as energies
from jaxnmc.chip import packing
from jaxnmc.chip.counters import Counters
from jaxnmc.chip.energy import Energy
from jaxnmc.chip.figures import Figure, Report
from jaxnmc.chip.folding import Stretch
from jaxnmc.chip.links import link_loads
from jaxnmc.chip.tiles import Placement
from jaxnmc.chip.timing import Clock
from jaxnmc.errors import PlacementError, UserError

__all__ = ["Figure", "Report", "cost"]

_UNITS = packing.COLUMN["synapse_units"]


@dataclasses.dataclass(frozen=True)
class _Span:
  """A while on the chips.

  Attributes:
    seconds: its length.
    steps: time steps in it.
    counts: what `Energy.joules` wants.
  """

  seconds: float
  steps: int
  counts: tuple[Any, ...]


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
  _needs(counters, placement)
  falling = [s for s in counters.stretches if s.mode == "fall-through"]
  piped = [s for s in counters.stretches if s.mode != "fall-through"]
  passes = float(placement.passes.sum())
  latency = placement.steps_per_token
  per_core = _core_walk(counters, piped, placement)
  clock = spans = pipe = alone = None
  if placement.hardware.synop_s is not None:
    token = _per_token(falling or piped, passes * latency)
    clock = Clock(placement, per_core, token[0])
    pipe = _Span(clock.full_s, 1, _per_token(piped or falling, passes))
    spans = [
      _Span(float(clock.stretch(s).sum()), s.steps, _counts(s, passes))
      for s in counters.stretches
    ]
    measured = [
      t.seconds
      for t, s in zip(spans, counters.stretches)
      if s.mode == "fall-through"
    ]
    tokens = sum(s.tokens for s in falling)
    seconds = sum(measured) / tokens if tokens else float(clock.depth_s.sum())
    alone = _Span(seconds, latency, token)
  steps_per_layer = placement.network.steps_per_layer
  block = float(np.mean(steps_per_layer)) if steps_per_layer else None
  modes = [m for m in (pipe, alone) if m is not None]
  chosen, note = _choose(energy, placement, block, modes)
  price = _Prices(placement, chosen)
  figures = price.times(pipe, alone, spans, bool(falling))
  figures |= price.energies(pipe, alone, spans)
  peak = price.peak(counters, clock, passes, modes)
  return Report(
    **figures,
    peak_w=peak,
    **_plain(counters, placement, piped or falling, block),
    **_links(counters, placement),
    tokens={
      "prefill": sum(s.tokens for s in piped),
      "generate": sum(s.tokens for s in falling),
    },
    per_chip=_chip_rows(placement, clock, per_core, chosen),
    per_layer=_layer_rows(counters, placement, clock, chosen),
    per_core=_core_rows(placement, per_core, top),
    notes=_notes(placement, note, chosen, peak.value),
  )


def _needs(counters: Counters, placement: Placement) -> None:
  counters.check(placement)
  if not counters.tokens:
    raise UserError("cost needs counters of at least one token; there is none")
  for i, stretch in enumerate(counters.stretches):
    if "synops_stored" not in stretch.totals:
      raise UserError(
        f"stretch {i} of the counters has no 'synops_stored' (stored weights"
        " walked), which sets the time; add it to its totals"
      )


def _counts(stretch: Stretch, passes: float) -> tuple[float, ...]:
  """Weights walked, messages to other chips, neuron passes, messages sent."""

  def total(name: str) -> float:
    values = stretch.totals.get(name)
    return 0.0 if values is None else float(values.sum())

  executed = total("passes_executed") or passes * stretch.steps
  walked, crossed = total("synops_stored"), total("crossings")
  return (walked, crossed, executed, total("messages_out"))


def _per_token(stretches: Sequence[Stretch], passes: float) -> tuple:
  """Mean of `_counts` over tokens, with these neuron passes."""
  tokens = max(1, sum(s.tokens for s in stretches))
  rows = np.array([_counts(s, 0.0) for s in stretches]).sum(0) / tokens
  return (float(rows[0]), float(rows[1]), passes, float(rows[3]))


def _core_walk(counters: Counters, piped, placement: Placement) -> np.ndarray:
  """Stored weights walked per token, by core: float[cores]."""
  stretches = tuple(piped) or counters.stretches
  part = dataclasses.replace(counters, stretches=stretches)
  walked = part.by("core", "synops_stored", placement)
  return walked / max(1, part.tokens)


def _watts(e: Energy, span: _Span, chips: int) -> float:
  joules = e.joules(chips, span.seconds, span.steps, span.counts)
  return float(joules) / span.seconds if span.seconds else 0.0


def _choose(
  energy: str | Energy,
  placement: Placement,
  block: float | None,
  modes: Sequence[_Span],
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
  watts = max((_watts(first, m, chips) for m in modes), default=0.0) / chips
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


class _Prices:
  """Figures with the right label and source."""

  def __init__(self, placement: Placement, chosen: Energy | None):
    self.chosen, self.chips = chosen, len(placement.chips)
    self.fact = placement.hardware.fact("synop_s")
    fitted = chosen is not None and chosen.fitted and _is_the_papers(placement)
    self.label = "fitted" if fitted else "modelled"

  def seconds(self, value: float | None, unit: str, what: str) -> Figure:
    if value is None:
      return Figure(None, unit, "modelled", "synop_s of this chip is unknown")
    return Figure(value, unit, "modelled", f"{what}; {self.fact.source}")

  def joules(self, value: float | None, unit: str) -> Figure:
    if value is None or self.chosen is None:
      why = "times or energy constants of this chip are unknown"
      return Figure(None, unit, "modelled", why)
    return Figure(value, unit, self.label, self.chosen.source)

  def times(self, pipe, alone, spans, fell: bool) -> dict[str, Figure]:
    """Latency and throughput; `fell`: a fall-through stretch was run."""
    how = "steps of the fall-through stretches"
    if not fell:
      how = "predicted depth by depth: no fall-through stretch was run"
    s, none = self.seconds, pipe is None
    full = None if none else pipe.seconds
    one = None if none else alone.seconds
    run = None if none else sum(t.seconds for t in spans)
    ms = lambda t: None if t is None else 1e3 * t
    us = lambda t, n=1: None if t is None else 1e6 * t / n
    rate = lambda t: None if not t else 1 / t
    first = None if none else spans[0].seconds
    steps = 1 if none else alone.steps
    return {
      "ttft_ms": s(ms(first), "ms", "steps of the first stretch"),
      "prefill_step_us": s(us(full), "us", "full pipeline"),
      "prefill_tokens_per_s": s(rate(full), "1/s", "full pipeline"),
      "generate_step_us": s(us(one, steps), "us", how),
      "generate_ms_per_token": s(ms(one), "ms", how),
      "generate_tokens_per_s": s(rate(one), "1/s", how),
      "run_ms": s(ms(run), "ms", "all stretches"),
    }

  def energies(self, pipe, alone, spans) -> dict[str, Figure]:
    """Energy per token and of the run, mean powers."""
    e, j = self.chosen, self.joules
    values: dict[str, tuple[float | None, str]]
    values = dict.fromkeys(("prefill_w", "generate_w", "mean_w"), (None, "W"))
    tokens = ("prefill_mj_per_token", "generate_mj_per_token", "run_mj")
    values |= dict.fromkeys(tokens, (None, "mJ"))
    if e is not None and pipe is not None:
      for name, span in (("prefill", pipe), ("generate", alone)):
        watts = _watts(e, span, self.chips)
        values[f"{name}_w"] = watts, "W"
        values[f"{name}_mj_per_token"] = 1e3 * watts * span.seconds, "mJ"
      total = sum(_watts(e, m, self.chips) * m.seconds for m in spans)
      seconds = sum(m.seconds for m in spans)
      values["run_mj"] = 1e3 * total, "mJ"
      values["mean_w"] = (total / seconds if seconds else None), "W"
    return {name: j(*pair) for name, pair in values.items()}

  def peak(self, counters, clock, passes: float, modes) -> Figure:
    """Power of the step with the highest; of a mode, without steps."""
    if self.chosen is None or clock is None:
      return self.joules(None, "W")
    most = 0.0
    for stretch in counters.stretches:
      rows = stretch.steps_of
      if "stored" not in rows or not stretch.steps:
        continue
      times = clock.stretch(stretch)
      # Messages sent are not known by step: zero, also where they cost.
      counts = (rows["stored"], rows.get("crossings", 0), passes, 0.0)
      each = self.chosen.joules(self.chips, times, 1, counts)
      at = times > 0
      most = max(most, float((each[at] / times[at]).max(initial=0.0)))
    if not most:
      most = max(_watts(self.chosen, m, self.chips) for m in modes)
    return self.joules(most, "W")


def _plain(counters, placement, stretches, block) -> dict[str, Figure]:
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
  walked = _per_token(stretches, 0.0)[0]
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
  """Hops and the load of the busiest link: where messages go, not how long."""
  unit = {"hops_per_token": "hops", "link_words_per_token": "words"}
  try:
    loads = link_loads(counters, placement)
  except PlacementError:
    raise
  except UserError as error:
    # Counters of a profile, or a chip of another mesh: nothing to route.
    return {k: Figure(None, u, "modelled", str(error)) for k, u in unit.items()}
  row, tokens = loads.busiest(), counters.tokens
  kind = "to another chip" if row["kind"] == "chip" else "of its mesh"
  mesh = loads.mesh
  text = {
    "hops_per_token": f"X-Y routes on {mesh.columns} x {mesh.rows} routers"
    " (quoted), order of cores and places of ports assumed; beside them"
    f" {loads.chip_hops / tokens:g} links between chips",
    "link_words_per_token": f"a link {row['direction']} {kind}, chip"
    f" {row['chip']}; 3 words per message to another chip (quoted), 2 on a"
    " chip (assumed); it is not timed",
  }
  each = (loads.hops / tokens, row["words"] / tokens)
  return {
    name: Figure(value, u, "modelled", text[name])
    for (name, u), value in zip(unit.items(), each, strict=True)
  }


def _walk_mj(walked: float, chosen: Energy | None) -> float | None:
  if chosen is None or chosen.synop_j is None:
    return None
  return 1e3 * walked * chosen.synop_j


def _chip_rows(placement, clock, per_core, chosen) -> tuple[dict, ...]:
  """The placement's rows with traffic per token, slowest core and energy."""
  per = placement.hardware.cores_per_chip
  rows = []
  for row in placement.table():
    if row["chip"] == "host":
      continue
    mine = per_core[row["chip"] * per : (row["chip"] + 1) * per]
    step = None
    if clock is not None:
      step = 1e6 * float(clock.steps(mine.max()))
    walked = float(mine.sum())
    more = {"synops_per_token": walked, "step_us": step}
    rows.append(row | more | {"walk_mj_per_token": _walk_mj(walked, chosen)})
  return tuple(rows)


def _layer_rows(counters, placement, clock, chosen) -> tuple[dict, ...]:
  """Traffic of each layer, energy of its walk, time of a token alone in it."""
  if counters.per != "tile":
    return ()
  names = [n for n in counters.names if not n.startswith("passes")]
  sums = {n: counters.by("layer", n, placement) for n in names}
  net, rows = placement.network, []
  for layer in sorted({int(n) for n in placement.tile_layer if n >= 0}):
    row: dict[str, Any] = {"layer": layer}
    for name, values in sums.items():
      row[f"{name}_per_token"] = float(values[layer]) / counters.tokens
    depths = {
      s.depth for s in net.synapses if net.populations[s.dst].layer == layer
    }
    row["ms"] = None
    if clock is not None:
      row["ms"] = 1e3 * float(clock.depth_s[sorted(depths)].sum())
    walked = row["synops_stored_per_token"]
    rows.append(row | {"walk_mj_per_token": _walk_mj(walked, chosen)})
  return tuple(rows)


def _core_rows(placement, per_core, top: int) -> tuple[dict, ...]:
  """The busiest cores."""
  hardware = placement.hardware
  per, room = hardware.cores_per_chip, hardware.synapse_units
  rows = []
  for core in np.argsort(-per_core, kind="stable")[:top].tolist():
    mine = np.flatnonzero(placement.tile_core == core)
    units = float(placement.demand[mine, _UNITS].sum())
    walk, synop_s = float(per_core[core]), hardware.synop_s
    rows.append(
      {
        "chip": core // per,
        "core": core % per,
        "populations": [placement.tiles[i].population for i in mine],
        "neurons": int(placement.sizes[mine].sum()),
        "weights": int(placement.stored[mine].sum()),
        "synops_per_token": walk,
        "walk_us": None if synop_s is None else 1e6 * synop_s * walk,
        "neuron_passes": int(placement.passes[mine].sum()),
        "memory_percent": None if room is None else 100 * units / room,
      }
    )
  return tuple(rows)


def _notes(placement, note: str, chosen, peak) -> tuple[str, ...]:
  """What is not in the figures."""
  out = [note] if note else []
  ceiling = placement.hardware.ceiling_w
  if peak and ceiling is not None and peak > ceiling * len(placement.chips):
    out.append(
      f"peak_w is above {ceiling:g} W per chip, a full system's ceiling: the"
      " shortest steps are outside what the constants were fitted on"
    )
  out.append("links between cores and chips are not timed in this version")
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
