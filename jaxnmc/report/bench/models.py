"""Cases of whole models: a prompt, and tokens after it."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

import jaxnmc
from jaxnmc.chip.counting.counters import Counters
from jaxnmc.report import backends
from jaxnmc.report.bench.case import Case
from jaxnmc.report.bench.shapes import Built

# Tokens of a decode case, whose counters are read at its end: as in a run.
TOKENS = 8


def model_cases(model, names: Sequence[str], quick: bool) -> list[Case]:
  """Prefill and some tokens after it, of a model in several backends."""
  prompt = 16 if quick else 128
  draw = np.random.default_rng(0)
  ids = draw.integers(0, model.config.vocab_size, prompt, np.int32)
  cases = []
  for name in names:
    backend = backends.prepare(model, name)
    run = jax.jit(backend.run) if backend.jit else backend.run
    size = sum(x.nbytes for x in jax.tree.leaves(backend.params))
    cases += _pair("model", name, run, backend.params, ids, (size, size))
  return cases


def shape_cases(
  built: Built, name: str, prompt: int, others: bool = True
) -> list[Case]:
  """The same of a shape with random weights.

  Args:
    built: the model.
    name: of the shape, for the rows.
    prompt: ids of the prompt.
    others: also `fixed`, which takes minutes to compile, and float.

  Returns:
    The cases; the bytes are those of the matrices that a token meets.
  """
  ids, cases = built.ids(prompt), []
  run = jaxnmc.loihi(
    built.fn, built.plan, built.placement, mode="fall-through", donate=True
  )
  sizes = (run.weight_bytes(prompt), run.weight_bytes(1))
  cases += _pair(name, "loihi", run, built.qparams, ids, sizes)
  if others:
    size = built.shape.weights
    fixed = jax.jit(jaxnmc.fixed(built.fn, built.plan))
    cases += _pair(name, "fixed", fixed, built.qparams, ids, (size, size))
    real = jax.jit(jaxnmc.reference(built.fn))
    params = built.float_params()
    cases += _pair(name, "float", real, params, ids, (size, size))
  return cases


def _pair(
  group: str, name: str, run, params, ids: np.ndarray, sizes: tuple[int, int]
) -> list[Case]:
  """Prefill and decode, which goes on from what the last run left."""
  left: dict[str, Any] = {}

  def call(ids, state) -> list:
    found = run(params, {"ids": ids}, state)
    left["state"] = jax.block_until_ready(found[:2])[1]
    return list(found[2:])

  def prefill():
    read(call(ids, None))

  def decode():
    counted = []
    for _ in range(TOKENS):
      counted += call(ids[:1], left["state"])
    read(counted)

  beside = None if name == "float" else "float"
  mine = lambda what: f"{name} {what}"
  other = lambda what: beside and f"{beside} {what}"
  much, one = f"prefill {len(ids)}", "decode"
  return [
    Case(mine(much), group, prefill, sizes[0], len(ids), other(much)),
    Case(
      *(mine(one), group, decode, TOKENS * sizes[1], TOKENS, other(one)),
      facts=lambda: {"copies": TOKENS},
    ),
  ]


def read(counted: Sequence[Counters]) -> None:
  """Asks for what is counted by step, which is not worked out before."""
  for counters in counted:
    for stretch in counters.stretches:
      for name in stretch.steps_of:
        stretch.steps_of[name]
