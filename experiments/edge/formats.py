"""Eight-bit weights of a float model, and what a chip says to them."""

import pathlib
from typing import Any

import jax
import numpy as np
from integers import Integers

import jaxnmc as nmc
from edge import measure
from edge.bench import Bench
from jaxnmc.errors import UserError
from jaxnmc.numerics.weights import QDense

PRESETS = ("W8A16", "W8A8")


def quantise(bench: Bench, source: str, place: pathlib.Path) -> dict[str, Any]:
  """Scores under plans by calibration; nothing is trained.

  Args:
    bench: of the run.
    source: the stage whose model it is.
    place: folder of this stage; the plans are kept there.
  """
  config, params = bench.run.model(source)
  found: dict[str, Any] = {"size": measure.size(config, 8)}
  for preset in PRESETS:
    made = bench.judge.integers(config, params, preset)
    made.plan.save(place / f"{preset}.json")
    found[preset] = {
      "score": bench.judge.score(made),
      "export": exportable(made),
    }
  return found


def exportable(made: Integers) -> dict[str, Any]:
  """What synapses ask of weights, and whether the whole model has integers.

  Synapses hold symmetric codes; there is no zero point, and a scale is a shift.

  Returns:
    "matrices"; "largest_code" of them, of 127; "asymmetric", those that reach
    -128; "refused": why the model is no integer function, or None.
  """
  dense = lambda x: isinstance(x, QDense)
  found = jax.tree.leaves(made.qparams.tree, is_leaf=dense)
  leaves = [np.asarray(x.codes, np.int64) for x in found if dense(x)]
  ids = jax.ShapeDtypeStruct((8,), np.int32)
  try:
    jax.eval_shape(nmc.fixed(made.fn, made.plan), made.qparams, {"ids": ids})
    refused = None
  except UserError as error:
    refused = str(error)
  return {
    "matrices": len(leaves),
    "largest_code": max(int(np.abs(x).max()) for x in leaves),
    "asymmetric": sum(int(x.min()) == -128 for x in leaves),
    "refused": refused,
  }
