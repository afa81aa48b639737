"""Real parameters of a population as the integers of a core.

A population has a unit, the real value of a weight of 1.  Where none is given
it is the smallest power of two with which

    all weights times the largest messages fit the input of a neuron, 2^18
    the current they can sum up to does not wrap, 2^17
    16 thresholds below rest the voltage is not held yet, 2^17
    the bias fits 13 bits and a shift by 7

Weights of a connection are 8 bits (7 and a sign where both occur) times a
power of two, the smallest from 1 on that holds the largest.  Everything is
rounded to the nearest, ties to even.
"""

import math

import numpy as np

from jaxnmc.chip.neurons import lif
from jaxnmc.io.nir.cells import Cell

ONE, FINER = 4096, 64
CURRENT = 2**17 - 1  # of states of 24 bits, in weights
HEADROOM = 16
MANTISSA = (-4096, 4095)

__all__ = ["bias_words", "decays", "matrix", "power_of_two", "unit_of"]


def power_of_two(least: float) -> float:
  """The smallest power of two from `least` on; 1 for 0."""
  if least <= 0:
    return 1.0
  exponent = math.ceil(math.log2(least))
  # The logarithm is rounded, so its neighbours are looked at, too.
  fits = [k for k in range(exponent - 1, exponent + 2) if 2.0**k >= least]
  return 2.0 ** fits[0]


def unit_of(cell: Cell, reach: float) -> float:
  """The unit of neurons with a voltage.

  Args:
    cell: the neurons.
    reach: the largest |gain x| that connections can bring in a step.
  """
  current = reach / cell.ks
  bias = float(np.abs(cell.bias).max(initial=0))
  bounds = [
    reach / lif.LARGEST_INPUT,
    current / CURRENT,
    bias * FINER / (MANTISSA[1] << 7),
  ]
  if cell.threshold is None:
    leak = cell.km or 1 / HEADROOM
    bounds.append((current + bias) / leak / CURRENT)
  else:
    top = float(cell.threshold.max(initial=0))
    bounds.append(HEADROOM * top / CURRENT)
  return power_of_two(max(bounds))


def decays(cell: Cell) -> tuple[int, int]:
  """du and dv of the neuron."""
  du = int(np.clip(np.rint(ONE * cell.ks) - 1, 0, ONE - 1))
  return du, int(np.clip(np.rint(ONE * cell.km), 0, ONE - 1))


def bias_words(bias: np.ndarray, unit: float):
  """Mantissas and exponents of a bias.

  Args:
    bias: float[n].
    unit: of the population.

  Returns:
    (int[n] mantissas, int[n] exponents 0 to 7, float[n] as held); a bias that
    does not fit is cut to the largest.
  """
  exact = bias * FINER / unit
  mantissas = np.zeros(len(bias), int)
  exponents = np.full(len(bias), 7)
  low, high = MANTISSA
  for exp in range(7, -1, -1):
    rounded = np.rint(exact / (1 << exp))
    fits = (rounded >= low) & (rounded <= high)
    exponents[fits] = exp
  mantissas = np.clip(np.rint(exact / (1 << exponents)), low, high).astype(int)
  return mantissas, exponents, (mantissas << exponents) * unit / FINER


def matrix(weights: np.ndarray) -> tuple[np.ndarray, int]:
  """Weights in units as mantissas and one exponent.

  Args:
    weights: float[...].

  Returns:
    (int[...] mantissas of 8 bits, even where both signs occur; exponent from 0,
    above 31 if nothing holds them).
  """
  mixed = bool((weights < 0).any() and (weights > 0).any())
  grid, low, high = (2, -256, 254) if mixed else (1, -255, 255)
  exp = 0
  while True:
    whole = np.rint(weights / (grid << exp)) * grid
    if (whole >= low).all() and (whole <= high).all():
      return whole.astype(int), exp
    exp += 1
