"""What the head of a model in integers reads behind a command."""

import jax
import numpy as np
from integers import Integers

import jaxnmc as nmc
from jaxnmc.evaluate.intents import Questions

HIDDEN = "norm"  # the site in front of the head
_BATCH = 64


class Examples:
  """What the head reads at the end of commands, and the row that is right.

  Attributes:
    hidden: int32[N, D], codes of `fixed`.
    rows: int32[N].
  """

  def __init__(self, hidden: np.ndarray, rows: np.ndarray):
    self.hidden, self.rows = hidden, rows

  def __len__(self) -> int:
    return len(self.rows)

  def __getitem__(self, some) -> "Examples":
    return Examples(self.hidden[some], self.rows[some])

  def __add__(self, other: "Examples") -> "Examples":
    return Examples(
      np.concatenate([self.hidden, other.hidden]),
      np.concatenate([self.rows, other.rows]),
    )


def reader(made: Integers):
  """A function from questions to what the head reads behind them."""
  fixed = nmc.fixed(made.fn, made.plan, taps=True)
  run = jax.jit(lambda ids: fixed(made.qparams, {"ids": ids})[2][HIDDEN].q)

  def read(asked: Questions) -> Examples:
    found = []
    for start in range(0, len(asked), _BATCH):
      rows = np.minimum(np.arange(start, start + _BATCH), len(asked) - 1)
      out = np.asarray(run(asked.ids[rows]))
      last = out[np.arange(_BATCH), asked.lengths[rows] - 1]
      found.append(last[: len(asked) - start])
    return Examples(np.concatenate(found), asked.answers)

  return read
