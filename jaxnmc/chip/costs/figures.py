"""The report of `cost`: labelled figures and tables."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

__all__ = ["Figure", "Report"]


@dataclasses.dataclass(frozen=True)
class Figure:
  """A number of a report.

  Attributes:
    value: None where it is unknown.
    unit: its unit.
    label: `measured`, `modelled`, `fitted` or `quoted`.
    source: what it was computed from, or why it is unknown.
  """

  value: float | None
  unit: str
  label: str
  source: str


def _short(value: float | None) -> str:
  if value is None:
    return "unknown"
  return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


@dataclasses.dataclass(frozen=True)
class Report:
  """What a run costs on the chips; see `docs/hardware.md` for each figure.

  Attributes:
    ttft_ms: first token in until the last prompt token's result is there.
    prefill_step_us: time step of a full pipeline.
    prefill_tokens_per_s: one token per such step.
    generate_step_us: mean time step of one token alone in the network.
    generate_ms_per_token: one token through the network.
    generate_tokens_per_s: its inverse.
    prefill_mj_per_token: at the full pipeline.
    generate_mj_per_token: one token alone.
    prefill_w: power of the full pipeline.
    generate_w: power of one token alone.
    mean_w: energy of the run by its time.
    peak_w: of the time step with the highest power.
    run_ms: time of the run.
    run_mj: energy of the run.
    memory_bytes: synapses and neuron state on the chips.
    memory_percent: synapse memory in use, of the chips in use.
    steps_per_token: time steps from injection until the result.
    steps_per_layer: mean over the layers.
    synops_per_token: stored weights walked.
    hops_per_token: links between routers of a chip that messages passed.
    link_words_per_token: 32-bit words on the busiest link.
    nonzero_percent: of them, not zero.
    saturations: values clipped by their format.
    tokens: tokens run, by mode.
    per_chip: rows.
    per_layer: rows.
    per_core: rows of the busiest cores.
    notes: what is not in the figures.
  """

  ttft_ms: Figure
  prefill_step_us: Figure
  prefill_tokens_per_s: Figure
  generate_step_us: Figure
  generate_ms_per_token: Figure
  generate_tokens_per_s: Figure
  prefill_mj_per_token: Figure
  generate_mj_per_token: Figure
  prefill_w: Figure
  generate_w: Figure
  mean_w: Figure
  peak_w: Figure
  run_ms: Figure
  run_mj: Figure
  memory_bytes: Figure
  memory_percent: Figure
  steps_per_token: Figure
  steps_per_layer: Figure
  synops_per_token: Figure
  hops_per_token: Figure
  link_words_per_token: Figure
  nonzero_percent: Figure
  saturations: Figure
  tokens: Mapping[str, int]
  per_chip: tuple[dict, ...]
  per_layer: tuple[dict, ...]
  per_core: tuple[dict, ...]
  notes: tuple[str, ...]

  @property
  def figures(self) -> dict[str, Figure]:
    """All figures by name."""
    values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    return {k: v for k, v in values.items() if isinstance(v, Figure)}

  def rows(self) -> list[dict]:
    """Rows (name, value, unit, label, source) for tables."""
    rows = self.figures.items()
    return [{"name": name} | dataclasses.asdict(f) for name, f in rows]

  def __str__(self) -> str:
    lines = [
      f"{name:<24}{_short(f.value):>14} {f.unit:<8} {f.label}"
      for name, f in self.figures.items()
    ]
    return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

  def to_dict(self) -> dict[str, Any]:
    """Plain data."""
    return dataclasses.asdict(self)

  def to_json(self) -> str:
    """Plain data as text."""
    return json.dumps(self.to_dict(), indent=2)
