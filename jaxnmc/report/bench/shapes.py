"""Models of any shape with random weights, for time and memory.

The number formats need a run in float, which takes several times the memory of
the integers; it is made in a process of its own, so that what is left here is
what a user of `loihi` has who brings a plan.
"""

import dataclasses
import multiprocessing
import os
import pathlib
import tempfile
from typing import Any

import numpy as np

import jaxnmc
from jaxnmc.models import matmulfree
from jaxnmc.models.random_params import random_params
from jaxnmc.quantize import Plan
from jaxnmc.report import placement as placements

_CALIBRATION_IDS = 32


@dataclasses.dataclass(frozen=True)
class Shape:
  """A MatMul-free LM.

  Attributes:
    layers: blocks.
    hidden: width.
    intermediate: width of the GLU.
    vocab: tokens.
    chips: chips of 120 cores; None: as few as hold it.
  """

  layers: int
  hidden: int
  intermediate: int
  vocab: int
  chips: int | None = None

  @property
  def config(self) -> matmulfree.Config:
    """The model's configuration."""
    return matmulfree.Config(
      vocab_size=self.vocab,
      hidden_size=self.hidden,
      num_layers=self.layers,
      intermediate_size=self.intermediate,
    )

  @property
  def weights(self) -> int:
    """Ternary weights that a token meets."""
    d, inner = self.hidden, self.intermediate
    return self.layers * (4 * d * d + 3 * d * inner) + d * self.vocab


SHAPES = {
  "370M": Shape(24, 1024, 2816, 32000, 24),
  "tiny": Shape(2, 64, 128, 96, 1),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Built:
  """A model of a shape, quantised and placed.

  Attributes:
    shape: what was asked for.
    fn: model function.
    plan: number formats.
    qparams: integer parameters.
    placement: on cores; embedding, final norm and head are on the host.
    seed: of the weights.
  """

  shape: Shape
  fn: Any
  plan: Plan
  qparams: Any
  placement: Any
  seed: int

  def float_params(self) -> dict:
    """The weights again, as `reference` takes them."""
    return random_params(self.shape.config, self.seed)

  def ids(self, tokens: int) -> np.ndarray:
    """Random ids, int32[tokens]."""
    draw = np.random.default_rng(1)
    return draw.integers(0, self.shape.vocab, tokens, np.int32)


def formats(shape: Shape, seed: int = 0) -> Plan:
  """W8A16 formats of random weights, chosen on random ids (in float)."""
  params = random_params(shape.config, seed)
  draw = np.random.default_rng([seed, 1])
  ids = draw.integers(0, shape.vocab, _CALIBRATION_IDS, np.int32)
  stats = jaxnmc.calibrate(matmulfree.make(shape.config))(params, [ids])
  return jaxnmc.plan(stats, jaxnmc.quantize.W8A16)


def _save_formats(shape: Shape, path: str) -> None:
  formats(shape).save(path)


def formats_apart(shape: Shape) -> Plan:
  """`formats`, in a process of its own."""
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "plan.json")
    fork = multiprocessing.get_context("spawn")
    other = fork.Process(target=_save_formats, args=(shape, path))
    other.start()
    other.join()
    if other.exitcode:
      raise RuntimeError(f"choosing formats ended with {other.exitcode}")
    return Plan.load(pathlib.Path(path))


def build(
  shape: Shape, plan: Plan | None = None, seed: int = 0, packed: bool = True
) -> Built:
  """Random weights of a shape, quantised and placed.

  Args:
    shape: sizes.
    plan: formats; chosen here, in this process, if None.
    seed: of the weights.
    packed: keep weights in two bits each on the host, too.

  Returns:
    The model; no float matrix is left.
  """
  plan = plan or formats(shape, seed)
  fn = matmulfree.make(shape.config)
  params = random_params(shape.config, seed, packed)
  qparams = jaxnmc.quantize_params(params, plan)
  del params
  graph = jaxnmc.record(fn, plan, qparams)
  if shape.chips is None:
    placement = placements.on_chips(graph, None)
  else:
    chips = jaxnmc.chip.loihi2(chips=shape.chips)
    placement = jaxnmc.place(graph, chips, head="host")
  return Built(shape, fn, plan, qparams, placement, seed)
