"""A transformer in integers, as the studies take it."""

import dataclasses
from typing import Any

import numpy as np

import jaxnmc as nmc
from jaxnmc.models import gpt


@dataclasses.dataclass(frozen=True, eq=False)
class Integers:
  """A model in integers.

  Attributes:
    config: of the model.
    params: its float parameters.
    fn: model function.
    plan: formats.
    qparams: integer parameters.
  """

  config: gpt.Config
  params: Any
  fn: Any
  plan: Any
  qparams: Any


def of(
  config: gpt.Config,
  params: Any,
  calibration: np.ndarray,
  preset: str = "W8A16",
) -> Integers:
  """Integers of a model.

  Args:
    config: of the model.
    params: its float parameters.
    calibration: int[B, T], text that formats are chosen on.
    preset: of `jaxnmc.quantize`.
  """
  fn = gpt.make(config)
  stats = nmc.calibrate(fn)(params, [{"ids": np.asarray(calibration)}])
  plan = nmc.plan(stats, getattr(nmc.quantize, preset))
  qparams = nmc.quantize_params(params, plan)
  return Integers(config, params, fn, plan, qparams)
