"""Fewer tokens, and fewer rows of the head for each of them."""

from typing import Any

import numpy as np

from edge import measure, states
from edge.bench import Bench
from jaxnmc.chip import learning
from jaxnmc.io import reduced
from jaxnmc.models import clusters, families, hierarchical

_SHARES = (1.0, 0.5, 0.25)
_LOOKED = (1, 2, 4, 8)
_BATCH = 64


def smaller(bench: Bench, source: str) -> list[dict[str, Any]]:
  """The model of a stage with the most frequent tokens; nothing is trained.

  Bits per byte and answers compare vocabularies, perplexities do not.
  """
  config, params = bench.run.model(source)
  model = families.model(source, config, params, tokenizer=bench.tokenizer)
  texts = bench.corpus.documents()
  rows = []
  least = len(reduced.table(bench.tokenizer).fixed)
  sizes = {max(least, int(share * config.vocab_size)) for share in _SHARES}
  for size in sorted(sizes, reverse=True):
    made = reduced.reduce(model, texts, size).model
    asked = measure.asked(
      made.tokenizer, bench.corpus.test[: len(bench.judge.test)], config.context
    )
    judge = measure.Judge(
      *(made.tokenizer, asked, bench.judge.calibration, config.context)
    )
    score = judge.floats(made.config, made.params)
    rows.append(
      {
        "tokens": made.config.vocab_size,
        "parameters": made.config.num_params,
        "bits_per_byte": score["bits_per_byte"],
        "accuracy": score["accuracy"],
        "ids": int(asked.lengths.sum()),
      }
    )
  return rows


def two_stages(bench: Bench, source: str) -> dict[str, Any]:
  """How often a shortcut through clusters finds the token of the whole head."""
  made, some = bench.integers(source), bench.tested(source)
  head = learning.from_model(made.plan, made.qparams, hidden=states.HIDDEN)
  x = some.hidden * 2.0**-head.formats.hidden.frac
  weight = np.asarray(head.weight) * 2.0**-head.formats.weight.frac
  x, weight = np.float32(x), np.float32(weight)
  best = np.argmax(x @ weight.T, -1)
  parts = clusters.by_rows(weight)
  arrays = hierarchical.convert(parts, weight)
  rows = []
  for looked in _LOOKED:
    found = [
      hierarchical.choose(parts, arrays, x[k : k + _BATCH], looked)
      for k in range(0, len(x), _BATCH)
    ]
    token = np.concatenate([np.asarray(f.token) for f in found])
    read = np.concatenate([np.asarray(f.rows) for f in found])
    rows.append(
      {
        "clusters": looked,
        "same": float(np.mean(token == best)),
        "accuracy": float(np.mean(token == some.rows)),
        "rows_read": float(np.mean(read)),
      }
    )
  return {
    "of": int(parts.members.shape[0]),
    "whole_rows": len(weight),
    "whole_accuracy": float(np.mean(best == some.rows)),
    "looked": rows,
  }


def figures(bench: Bench) -> dict[str, Any]:
  """Both, of the float model and of the one on cores."""
  return {
    "smaller": smaller(bench, "baseline"),
    "two_stages": two_stages(bench, "thresholds"),
  }
