"""Which site needs its bits, and what fewer of them save on the chip."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import jaxnmc
from jaxnmc.chip.costs import energy as energies
from jaxnmc.chip.costs.energy import Energy
from jaxnmc.chip.costs.messages import joules_per_message
from jaxnmc.errors import PlanError
from jaxnmc.evaluate.search import Found
from jaxnmc.evaluate.trials import Effect
from jaxnmc.numerics.formats import Format
from jaxnmc.quantize.plan import Plan
from jaxnmc.report import backends, plots

__all__ = ["choice", "data_of", "frontier", "heatmap", "joules", "place"]
__all__ += ["priced", "sites_of"]

_LAYER = re.compile(r"layers\.(\d+)\.(.*)")
# Below this a divergence (nats per id) is float32 noise; drawn as nothing.
_LEAST_HARM = 1e-7


def sites_of(plan: Plan, bits: int, pattern: str | None = None) -> list[str]:
  """Sites of more bits, those of a pattern (the whole path); sorted.

  Raises:
    PlanError: there is none, or the pattern is no regular expression.
  """
  try:
    wanted = re.compile(pattern or ".*")
  except re.error as error:
    raise PlanError(
      f"--sites {pattern!r} is no regular expression ({error})"
    ) from error
  wide = [
    path
    for path, fmt in sorted(plan.formats.items())
    if isinstance(fmt, Format) and fmt.bits > bits
  ]
  found = [path for path in wide if wanted.fullmatch(path)]
  if not found:
    near = ", ".join(wide[:3]) or "none"
    raise PlanError(
      f"--sites {pattern or '.*'!r} names no site of more than {bits} bits (it"
      f" must match a whole path); such are {near}"
    )
  return found


def place(model, plan: Plan):
  """The model in integers on as few chips as do.

  Raises:
    PlanError: the plan is not integers everywhere.
    PlacementError: it does not fit.
  """
  qparams = jaxnmc.quantize_params(model.params, plan)
  graph = jaxnmc.record(model.fn, plan, qparams)
  return backends.place_on(graph, None), qparams


def _constants(placement) -> Energy:
  """What this chip's energy is made of, or no constants at all.

  Raises:
    PlanError: nothing is known about it.
  """
  steps = placement.network.steps_per_layer
  block = float(np.mean(steps)) if steps else energies.STEPS_PER_BLOCK
  found = energies.candidates(placement.hardware, block)
  if not found:
    raise PlanError(
      f"{placement.hardware.name}: its energy constants are unknown, so no plan"
      " is cheaper than another; give them with the hardware"
    )
  return found[0]


def joules(placement, plan: Plan) -> tuple[dict[str, float], Energy]:
  """(J per message of every site of the plan that is sent, the constants).

  Raises:
    PlanError: the chip's energy constants are unknown.
  """
  constants = _constants(placement)
  each = joules_per_message(placement, constants)
  sent = {path: j for path, j in each.items() if path in plan.formats}
  return sent, constants


def priced(model, plan: Plan, ids: np.ndarray) -> dict[str, Any]:
  """A plan on the chip: runs a prompt there and prices it.

  Args:
    model: what `jaxnmc.load` returned.
    plan: integers everywhere.
    ids: int32[n], pipelined.

  Returns:
    Modelled mJ per token of prompt and generation, weights walked and messages
    per token.

  Raises:
    PlanError, PlacementError: as `place`.
  """
  placement, qparams = place(model, plan)
  run = jaxnmc.loihi(model.fn, plan, placement)
  counters = run(qparams, {"ids": ids})[2]
  report = jaxnmc.cost(counters, placement)
  tokens = max(1, counters.tokens)
  return {
    "label": report.prefill_mj_per_token.label,
    "source": report.prefill_mj_per_token.source,
    "prefill_mj_per_token": report.prefill_mj_per_token.value,
    "generate_mj_per_token": report.generate_mj_per_token.value,
    "prefill_step_us": report.prefill_step_us.value,
    "synops_per_token": report.synops_per_token.value,
    "messages_per_token": float(counters.total("messages_out").sum()) / tokens,
  }


def data_of(
  effects: Sequence[Effect], joules: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
  """Effects as rows for JSON, the most harmful first."""
  rows = sorted(effects, key=lambda e: -e.divergence.value)
  return [
    dataclasses.asdict(e)
    | {"joules_per_message": None if joules is None else joules.get(e.site)}
    for e in rows
  ]


def choice(found: Found) -> dict[str, Any]:
  """A measured choice for JSON; the price is None at the start."""
  return {
    "price": found.price if np.isfinite(found.price) else None,
    "joules_per_token": found.joules,
    "divergence": dataclasses.asdict(found.divergence),
    "loss": dataclasses.asdict(found.loss),
    "bits": dict(found.bits),
  }


def heatmap(rows: Sequence[Mapping[str, Any]], bits: int, title: str):
  """Harm of `bits` bits at each site: layers against names.

  Args:
    rows: of `data_of`.
    bits: the width to draw.
    title: of the figure.

  Returns:
    matplotlib figure.
  """
  cells: dict[tuple[str, str], float] = {}
  for row in rows:
    if row["bits"] != bits:
      continue
    inside = _LAYER.fullmatch(row["site"])
    key = (inside[2], inside[1]) if inside else (row["site"], "-")
    cells[key] = row["divergence"]["value"]
  columns = sorted(
    {c for _, c in cells}, key=lambda c: (c == "-", int(c) if c != "-" else 0)
  )
  worst = {name: 0.0 for name, _ in cells}
  for (name, _), value in cells.items():
    worst[name] = max(worst[name], value)
  names = sorted(worst, key=lambda n: worst[n])
  table = np.full((len(names), len(columns)), np.nan)
  for (name, column), value in cells.items():
    table[names.index(name), columns.index(column)] = max(value, _LEAST_HARM)
  height = 1.3 + 0.19 * len(names)
  figure, (axis,) = plots.new(1, 3.4 + 0.42 * len(columns), height)
  drawn = axis.pcolormesh(
    np.log10(table), cmap="viridis", edgecolors="white", linewidth=0.5
  )
  axis.set_xticks(np.arange(len(columns)) + 0.5, columns)
  axis.set_yticks(np.arange(len(names)) + 0.5, names, fontsize=7)
  axis.set_xlabel("layer (-: outside of layers)")
  bar = figure.colorbar(drawn, ax=axis)
  bar.set_label("log10 KL, nats per id (measured)")
  figure.suptitle(title, fontsize=10)
  return figure


def frontier(choices: Sequence[Mapping[str, Any]], bound: float, title: str):
  """Energy of messages against loss, of all choices that were measured.

  Args:
    choices: of `choice`; the first without a price is the start.
    bound: loss that was allowed, relative.
    title: of the figure.

  Returns:
    matplotlib figure.
  """
  figure, (axis,) = plots.new(1, 6.4, 3.8)
  start = next(c for c in choices if c["price"] is None)
  for one in choices:
    axis.errorbar(
      100 * one["loss"]["value"],
      100 * one["joules_per_token"] / start["joules_per_token"],
      xerr=100 * (one["loss"]["spread"] or 0.0),
      fmt="s" if one is start else "o",
      color=plots.COLOURS[1] if one is start else plots.COLOURS[0],
      elinewidth=0.6,
      markersize=4,
    )
  axis.axvline(100 * bound, color=plots.GREY, linestyle="--", linewidth=1)
  axis.annotate("allowed", (100 * bound, 100), fontsize=8, ha="right")
  axis.set_xlabel("growth of perplexity, % (measured)")
  axis.set_ylabel("energy of messages, % (modelled)")
  axis.grid(alpha=0.3)
  figure.suptitle(title, fontsize=10)
  return figure
