"""Speed of kernels and whole models, beside what memory allows.

Every case is timed `repeats` times with all cases interleaved, so that a busy
moment of the machine hits them alike; medians are reported, compile time
apart.  The limit of a case is the time in which its weights can be read once
at the bandwidth measured in the same run.
"""

import os
from collections.abc import Callable
from typing import Any

from jaxnmc.evaluate import provenance
from jaxnmc.report.bench import circuits, shapes
from jaxnmc.report.bench.case import Case, check_repeats, measure
from jaxnmc.report.bench.kernels import kernel_cases, memory_case
from jaxnmc.report.bench.models import model_cases, shape_cases

__all__ = ["Case", "bench", "check_repeats", "circuit_cases", "measure"]

_PROMPT, _QUICK_PROMPT = 512, 16


def circuit_cases(quick: bool) -> list[Case]:
  """Recurrent LIF neurons and a full chip, stepped with counters on."""
  return [
    Case(name, "circuit", load, facts=load.facts)
    for name, load in circuits.loads(quick).items()
  ]


def bench(
  model,
  repeats: int = 5,
  quick: bool = False,
  shape: str | None = None,
  say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
  """Everything `jaxnmc bench` says, ready for JSON.

  Args:
    model: a model to time, or None for kernels only.
    repeats: measurements of each case.
    quick: small cases.
    shape: also a model of this shape (of `shapes.SHAPES`) with random weights.
    say: told what is done next.

  Returns:
    Rows of `measure`, each with the time that reading its weights takes at
    the bandwidth measured here, the share of it that was reached, and the
    time of the case in float over its own.

  Raises:
    ConfigError: fewer than 5 repeats.
  """
  check_repeats(repeats)
  load = os.getloadavg()[0]
  cases = [memory_case(quick), *kernel_cases(quick)]
  if model is not None:
    cases += model_cases(model, ("float", "fixed", "loihi"), quick)
  if shape is not None:
    say(f"{shape}: random weights, formats")
    sizes = shapes.SHAPES[shape]
    built = shapes.build(sizes, shapes.formats_apart(sizes))
    prompt = _QUICK_PROMPT if quick else _PROMPT
    cases += shape_cases(built, shape, prompt)
  cases += circuit_cases(quick)
  rows = measure(cases, repeats, say)
  bandwidth = rows[0]["weight_bytes"] / rows[0]["median_s"]
  median = {(row["group"], row["name"]): row["median_s"] for row in rows}
  for row in rows:
    limit = row["weight_bytes"] / bandwidth
    row["memory_limit_s"] = limit
    row["share_of_limit"] = limit / row["median_s"]
    row["tokens_per_s"] = (
      row["tokens"] / row["median_s"] if row["tokens"] else None
    )
    other = median.get((row["group"], row["beside"]))
    row["times_float"] = other and other / row["median_s"]
    for name in ("steps", "synops", "synops_stored"):
      if name in row:
        row[f"{name}_per_s"] = row[name] / row["median_s"]
  return {
    "bandwidth_bytes_per_s": bandwidth,
    "load_average": {"before": load, "after": os.getloadavg()[0]},
    "cores": os.cpu_count(),
    "repeats": repeats,
    "model": None if model is None else model.name,
    "shape": shape,
    "rows": rows,
    "versions": provenance.versions(),
    "commit": provenance.commit(),
  }
