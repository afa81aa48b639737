"""One thing to time, and how things are timed: interleaved, medians."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxnmc.errors import ConfigError

MIN_REPEATS = 5
_MIN_SECONDS = 2e-3  # a measurement is repeated inside until it takes this


@dataclasses.dataclass(frozen=True)
class Case:
  """One thing to time.

  Attributes:
    name: what it is.
    group: "memory", "kernel", "model", "370M" (or another shape) or "circuit".
    run: does it once and waits for the result.
    weight_bytes: bytes that have to be read at least once, 0 if not of use.
    tokens: tokens per run, for models.
    beside: name of the case in float that it is compared with, or None.
    facts: what a run was, for the row; of circuits, see `circuits`.
  """

  name: str
  group: str
  run: Callable[[], Any]
  weight_bytes: int = 0
  tokens: int = 0
  beside: str | None = None
  facts: Callable[[], dict[str, Any]] = dict


def jitted(function, *args) -> Callable[[], Any]:
  """A function that computes `function(*args)` and waits for it."""
  compiled = jax.jit(function)
  return lambda: jax.block_until_ready(compiled(*args))


def check_repeats(repeats: int) -> None:
  """Refuses too few measurements for a median.

  Raises:
    ConfigError: fewer than 5.
  """
  if repeats < MIN_REPEATS:
    raise ConfigError(
      f"--repeats {repeats}: a median needs at least {MIN_REPEATS}"
    )


def measure(
  cases: Sequence[Case],
  repeats: int,
  say: Callable[[str], None] = lambda text: None,
) -> list[dict[str, Any]]:
  """Times cases, interleaved.

  Args:
    cases: what to time.
    repeats: measurements of each, at least 5.
    say: told what is done next.

  Returns:
    One row per case: first call (with compilation), median, least and largest
    seconds, and the facts of the case.

  Raises:
    ConfigError: fewer than 5 repeats.
  """
  check_repeats(repeats)
  first, inner = [], []
  for k, case in enumerate(cases):
    say(f"first call {k + 1}/{len(cases)}: {case.name}")
    first.append(_seconds(case.run, 1))
    inner.append(max(1, round(_MIN_SECONDS / _seconds(case.run, 1))))
  times: list[list[float]] = [[] for _ in cases]
  for n in range(repeats):
    say(f"all cases, round {n + 1}/{repeats}")
    for case, count, row in zip(cases, inner, times, strict=True):
      row.append(_seconds(case.run, count))
  return [
    {
      "name": case.name,
      "group": case.group,
      "first_call_s": f,
      "median_s": statistics.median(row),
      "min_s": min(row),
      "max_s": max(row),
      "weight_bytes": case.weight_bytes,
      "tokens": case.tokens,
      "beside": case.beside,
      "label": "measured",
    }
    | case.facts()
    for case, f, row in zip(cases, first, times, strict=True)
  ]


def _seconds(run: Callable[[], Any], count: int) -> float:
  start = time.perf_counter()
  for _ in range(count):
    run()
  return (time.perf_counter() - start) / count
