"""A spiking model in integers."""

import dataclasses
from typing import Any

import numpy as np

import jaxnmc as nmc
from jaxnmc.models import gpt


@dataclasses.dataclass(frozen=True, eq=False)
class Integers:
  """A model in W8A16.

  Attributes:
    fn: model function.
    plan: formats.
    qparams: integer parameters.
  """

  fn: Any
  plan: Any
  qparams: Any


def of(config: gpt.Config, params: Any, calibration: np.ndarray) -> Integers:
  """Integers of a model.

  Args:
    config: of the model.
    params: its float parameters.
    calibration: int[B, T], text that formats are chosen on.
  """
  fn = gpt.make(config)
  stats = nmc.calibrate(fn)(params, [{"ids": np.asarray(calibration)}])
  plan = nmc.plan(stats, nmc.quantize.W8A16)
  return Integers(fn, plan, nmc.quantize_params(params, plan))
