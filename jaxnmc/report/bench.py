"""Speed of kernels and whole models, beside what memory allows.

Every case is timed `repeats` times with all cases interleaved, so that a busy
moment of the machine hits them alike; medians are reported, compile time
apart.  The limit of a case is the time in which its weights can be read once
at the bandwidth measured in the same run.
"""

import dataclasses
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.errors import ConfigError
from jaxnmc.evaluate import provenance
from jaxnmc.kernels.ternary import MAX_TWO_PLANES, ternary_matmul
from jaxnmc.report import backends, bench_circuits

_MIN_REPEATS = 5
_MIN_SECONDS = 2e-3  # a measurement is repeated inside until it takes this
# Layers of the 370M shape: attention, gate and up, down.
_SHAPES = ((1024, 1024), (1024, 5632), (2816, 1024))
_QUICK_SHAPES = ((256, 256),)


@dataclasses.dataclass(frozen=True)
class Case:
  """One thing to time.

  Attributes:
    name: what it is.
    group: "memory", "kernel", "model" or "circuit".
    run: does it once and waits for the result.
    weight_bytes: bytes that have to be read at least once, 0 if not of use.
    tokens: tokens per run, for models.
    facts: what a run was, for the row; of circuits, see `bench_circuits`.
  """

  name: str
  group: str
  run: Callable[[], Any]
  weight_bytes: int = 0
  tokens: int = 0
  facts: Callable[[], dict[str, Any]] = dict


def _jitted(function, *args) -> Callable[[], Any]:
  compiled = jax.jit(function)
  return lambda: jax.block_until_ready(compiled(*args))


def memory_case(quick: bool) -> Case:
  """A sum over an array far larger than the caches."""
  size = (32 if quick else 256) * 2**20
  array = jnp.ones(size // 4, jnp.int32)
  run = _jitted(lambda x: jnp.sum(x), array)
  return Case("read memory", "memory", run, weight_bytes=size)


def kernel_cases(quick: bool) -> list[Case]:
  """The exact ternary product and a float product of the same shape."""
  draw = np.random.default_rng(0)
  cases = []
  for k, n in _QUICK_SHAPES if quick else _SHAPES:
    codes = jnp.asarray(draw.integers(-1, 2, (n, k)), jnp.int8)
    weight = codes.astype(jnp.float32)
    for m in (1, 128):
      most = MAX_TWO_PLANES
      x = jnp.asarray(draw.integers(-most, most + 1, (m, k)), jnp.int32)
      exact = lambda x, w: ternary_matmul(x, w, MAX_TWO_PLANES)
      shape = f"{m} x {k} x {n}"
      cases += [
        Case(f"ternary {shape}", "kernel", _jitted(exact, x, codes), n * k),
        Case(
          f"float32 {shape}",
          "kernel",
          _jitted(lambda x, w: x @ w.T, x.astype(jnp.float32), weight),
          4 * n * k,
        ),
      ]
  return cases


def model_cases(model, names: Sequence[str], quick: bool) -> list[Case]:
  """Prefill and one decode step of a model in several backends."""
  prompt = 16 if quick else 128
  draw = np.random.default_rng(0)
  ids = draw.integers(0, model.config.vocab_size, (1, prompt), np.int32)
  cases = []
  for name in names:
    backend = backends.prepare(model, name)
    run = jax.jit(backend.run) if backend.jit else backend.run
    size = sum(x.nbytes for x in jax.tree.leaves(backend.params))

    def call(inputs, state, run=run, params=backend.params):
      return jax.block_until_ready(run(params, inputs, state)[:2])

    # A token needs the state that the prompt, which runs first, leaves here.
    left: dict[str, Any] = {}

    def prefill(call=call, left=left):
      left["state"] = call({"ids": ids}, None)[1]

    def decode(call=call, left=left):
      call({"ids": ids[:, :1]}, left["state"])

    cases += [
      Case(f"{name} prefill {prompt}", "model", prefill, size, prompt),
      Case(f"{name} decode", "model", decode, size, 1),
    ]
  return cases


def circuit_cases(quick: bool) -> list[Case]:
  """Recurrent LIF neurons and a full chip, stepped with counters on."""
  return [
    Case(name, "circuit", load, facts=load.facts)
    for name, load in bench_circuits.loads(quick).items()
  ]


def check_repeats(repeats: int) -> None:
  """Refuses too few measurements for a median.

  Raises:
    ConfigError: fewer than 5.
  """
  if repeats < _MIN_REPEATS:
    raise ConfigError(
      f"--repeats {repeats}: a median needs at least {_MIN_REPEATS}"
    )


def measure(cases: Sequence[Case], repeats: int) -> list[dict[str, Any]]:
  """Times cases, interleaved.

  Args:
    cases: what to time.
    repeats: measurements of each, at least 5.

  Returns:
    One row per case: first call (with compilation), median, least and largest
    seconds, and the facts of the case.

  Raises:
    ConfigError: fewer than 5 repeats.
  """
  check_repeats(repeats)
  first, inner = [], []
  for case in cases:
    first.append(_seconds(case.run, 1))
    inner.append(max(1, round(_MIN_SECONDS / _seconds(case.run, 1))))
  times: list[list[float]] = [[] for _ in cases]
  for _ in range(repeats):
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


def bench(model, repeats: int = 5, quick: bool = False) -> dict[str, Any]:
  """Everything `jaxnmc bench` says, ready for JSON.

  Args:
    model: a model to time, or None for kernels only.
    repeats: measurements of each case.
    quick: small cases.

  Returns:
    Rows of `measure`, each with the time that reading its weights takes at
    the bandwidth measured here, and the share of it that was reached.

  Raises:
    ConfigError: fewer than 5 repeats.
  """
  load = os.getloadavg()[0]
  cases = [memory_case(quick), *kernel_cases(quick)]
  if model is not None:
    cases += model_cases(model, ("float", "fixed", "loihi"), quick)
  cases += circuit_cases(quick)
  rows = measure(cases, repeats)
  bandwidth = rows[0]["weight_bytes"] / rows[0]["median_s"]
  for row in rows:
    limit = row["weight_bytes"] / bandwidth
    row["memory_limit_s"] = limit
    row["share_of_limit"] = limit / row["median_s"]
    row["tokens_per_s"] = (
      row["tokens"] / row["median_s"] if row["tokens"] else None
    )
    for name in ("steps", "synops", "synops_stored"):
      if name in row:
        row[f"{name}_per_s"] = row[name] / row["median_s"]
  return {
    "bandwidth_bytes_per_s": bandwidth,
    "load_average": {"before": load, "after": os.getloadavg()[0]},
    "cores": os.cpu_count(),
    "repeats": repeats,
    "model": None if model is None else model.name,
    "rows": rows,
    "versions": provenance.versions(),
  }
