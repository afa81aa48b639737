"""Fits constants to published or measured rows, through `price`.

Constants move in log space, so they stay positive, and by Gauss-Newton steps
(Levenberg-Marquardt damping) on the logarithms of the figures: entries of the
Jacobian are elasticities, d log figure / d log constant. Its singular values
say which directions the rows fix at all; along the others nothing moves, and
constants there keep the value they came with, their prior.

Residuals are computed in float64 on NumPy and slopes by `jax.grad`, whose
float32 only costs a step or two more.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.chip.costs.constants import Constants
from jaxnmc.chip.costs.pricing import Prices, Work, price
from jaxnmc.errors import UserError

__all__ = ["FIGURES", "Fit", "FittedConstant", "FittedRow", "Row", "fit_costs"]

# Figures that a row may have: name -> (unit, function of the prices).
FIGURES: Mapping[str, tuple[str, Callable[[Prices], Any]]] = {
  "prefill_tokens_per_s": ("tokens/s", lambda p: 1 / p.prefill_s),
  "generate_tokens_per_s": ("tokens/s", lambda p: 1 / p.generate_s),
  "generate_ms_per_token": ("ms", lambda p: 1e3 * p.generate_s),
  "ttft_ms": ("ms", lambda p: 1e3 * p.ttft_s),
  "run_ms": ("ms", lambda p: 1e3 * p.run_s),
  "prefill_mj_per_token": ("mJ/token", lambda p: 1e3 * p.prefill_j),
  "generate_mj_per_token": ("mJ/token", lambda p: 1e3 * p.generate_j),
  "prefill_w": ("W", lambda p: p.prefill_w),
  "generate_w": ("W", lambda p: p.generate_w),
  "mean_w": ("W", lambda p: p.mean_w),
}
# How much of a constant the rows must see for it to count as identified, and
# below which it counts as not seen at all.
_SEEN, _UNSEEN = 0.99, 0.01
_ITERATIONS, _LONGEST = 200, 1.0  # steps; longest step, in logarithms


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
  """A figure that somebody measured or published.

  Attributes:
    figure: of `FIGURES`, named as in `Report`.
    value: positive.
    unit: unit of the value: "tokens/s", "ms", "mJ/token" or "W".
    work: what was run (`jaxnmc.chip.costs.work.work_of`).
    name: for people.
  """

  figure: str
  value: float
  unit: str
  work: Work
  name: str = ""


@dataclasses.dataclass(frozen=True)
class FittedRow:
  """What a row became.

  Attributes:
    name: of the row.
    figure: of the row.
    unit: of both values.
    value: of the row.
    found: with the fitted constants.
    residual: found / value - 1.
  """

  name: str
  figure: str
  unit: str
  value: float
  found: float
  residual: float


@dataclasses.dataclass(frozen=True)
class FittedConstant:
  """What a free constant became.

  Attributes:
    name: of `Constants`.
    value: after the fit, in the unit of `Constants`.
    prior: before it.
    resolution: part of it that the rows see, 0 to 1: the squared length of its
      axis within the directions that they fix.
    state: `identified` by the rows; `prior`: not seen by them, as it came; or
      `combination`: only a product with other constants is fixed, and it is as
      near to the prior as that allows.
  """

  name: str
  value: float
  prior: float
  resolution: float
  state: str


@dataclasses.dataclass(frozen=True)
class Fit:
  """Result of `fit_costs`.

  Attributes:
    constants: all of them, fitted ones replaced.
    rows: in order.
    free: in order.
    singular_values: of the Jacobian of log figures by log constants at the
      result, falling.
    threshold: smaller ones count as nothing.
    converged: whether the steps ended by themselves.
  """

  constants: Constants
  rows: tuple[FittedRow, ...]
  free: tuple[FittedConstant, ...]
  singular_values: tuple[float, ...]
  threshold: float
  converged: bool

  def __getitem__(self, name: str) -> FittedConstant:
    """The free constant of this name."""
    return {c.name: c for c in self.free}[name]


def fit_costs(
  rows: Sequence[Row],
  constants: Constants,
  free: Sequence[str],
  *,
  threshold: float = 1e-3,
) -> Fit:
  """Adjusts free constants to rows by gradient descent through `price`.

  Args:
    rows: what should come out; every one counts by its relative error.
    constants: start of the free constants, their prior, and the others.
    free: names of constants. More than there are rows is allowed.
    threshold: singular values of the Jacobian below it are not used: along
      such a direction an error of 1 % in the rows would move constants by a
      factor of exp(0.01 / threshold).

  Returns:
    Constants, residual of each row, and what the rows say of each constant.

  Raises:
    UserError: no rows, a row without a unit or with another figure's, an
      unknown figure or constant, a value that is not positive, a free constant
      that is 0 (unknown), or a figure that is 0 with these constants.
  """
  rows, free = tuple(rows), tuple(free)
  _check(rows, constants, free, threshold)
  start = np.array([float(getattr(constants, name)) for name in free])
  goal = np.log([row.value for row in rows])
  at = lambda x: dataclasses.replace(
    constants, **dict(zip(free, (start * np.exp(x)).tolist()))
  )
  error = lambda x: np.log(_figures(rows, at(x))) - goal
  x, damping, converged = np.zeros(len(free)), 0.0, False
  now = error(x)
  jacobian = _jacobian(rows, at(x), free)
  for _ in range(_ITERATIONS):
    move = -_solve(jacobian, now, damping, threshold)
    length = np.linalg.norm(move)
    if length < 1e-13:
      converged = True
      break
    new = x + move * min(1.0, _LONGEST / length)
    then = error(new)
    if then @ then < now @ now:
      x, now, damping = new, then, damping / 10
      jacobian = _jacobian(rows, at(x), free)
    elif damping > 1e8 or length < 1e-9:
      converged = True  # nothing near is better
      break
    else:
      damping = max(10 * damping, 1e-6)
  return _result(rows, at(x), free, start, jacobian, threshold, converged)


def _result(
  rows, fitted, free, start, jacobian, threshold: float, converged: bool
) -> Fit:
  _, sizes, directions = np.linalg.svd(jacobian)
  kept = directions[: len(sizes)][sizes > threshold]
  seen = (kept**2).sum(0)
  state = lambda s: (
    "identified" if s >= _SEEN else "prior" if s <= _UNSEEN else "combination"
  )
  found = _figures(rows, fitted)
  return Fit(
    constants=fitted,
    rows=tuple(
      FittedRow(r.name, r.figure, r.unit, r.value, f, f / r.value - 1)
      for r, f in zip(rows, found.tolist())
    ),
    free=tuple(
      FittedConstant(n, getattr(fitted, n), prior, float(s), state(s))
      for n, prior, s in zip(free, start.tolist(), seen)
    ),
    singular_values=tuple(sizes.tolist()),
    threshold=threshold,
    converged=converged,
  )


def _solve(jacobian, error, damping: float, threshold: float) -> np.ndarray:
  """Shortest damped least-squares solution in directions that are seen."""
  left, sizes, right = np.linalg.svd(jacobian, full_matrices=False)
  kept = sizes > threshold
  gain = sizes[kept] / (sizes[kept] ** 2 + damping)
  return (gain * (error @ left[:, kept])) @ right[kept]


def _figures(rows: Sequence[Row], constants: Constants) -> np.ndarray:
  """Figures of the rows in float64."""
  return np.array(
    [float(FIGURES[r.figure][1](price(constants, r.work, np))) for r in rows]
  )


@functools.partial(jax.jit, static_argnums=0)
def _slopes(figure: str, constants: Constants, work: Work) -> Constants:
  """d log figure / d log constant, for all constants."""
  log = lambda c: jnp.log(FIGURES[figure][1](price(c, work)))
  slopes = jax.grad(log)(constants)
  return jax.tree.map(jnp.multiply, slopes, constants)


def _jacobian(
  rows: Sequence[Row], constants: Constants, free: Sequence[str]
) -> np.ndarray:
  """d log figure / d log free constant, float64[rows, free]."""
  each = [_slopes(r.figure, constants, r.work) for r in rows]
  return np.array(
    [[float(getattr(s, name)) for name in free] for s in each], np.float64
  )


def _check(rows, constants: Constants, free, threshold: float) -> None:
  if not rows or not free:
    what = "row" if not rows else "free constant"
    raise UserError(f"fit_costs needs at least one {what}; there is none")
  if not 0 < threshold < 1:
    raise UserError(
      f"threshold is {threshold!r}; it must be between 0 and 1, such as 1e-3"
    )
  names = Constants.names()
  for name in free:
    if name not in names or free.count(name) > 1:
      found = "unknown" if name not in names else "there twice"
      raise UserError(
        f"free constant {name!r} is {found}; there are {', '.join(names)}"
      )
    value = getattr(constants, name)
    if np.ndim(value) or not np.isfinite(value) or value <= 0:
      raise UserError(
        f"free constant {name} is {value!r} (0 is unknown); a fit needs a"
        " positive number to start from: give one, or leave it out of free"
      )
  for i, row in enumerate(rows):
    which = f"row {i}" + (f" ({row.name})" if row.name else "")
    if row.figure not in FIGURES:
      raise UserError(
        f"{which}: unknown figure {row.figure!r}; it must be one of"
        f" {', '.join(FIGURES)}"
      )
    unit = FIGURES[row.figure][0]
    if row.unit != unit:
      found = f"has the unit {row.unit!r}" if row.unit else "has no unit"
      raise UserError(f"{which}: {row.figure} {found}; it must be {unit!r}")
    good = isinstance(row.value, int | float) and np.isfinite(row.value)
    if not good or row.value <= 0:
      raise UserError(
        f"{which}: {row.figure} is {row.value!r}; it must be a positive number"
      )
    prices = price(constants, row.work, np)
    with np.errstate(divide="ignore"):
      found = FIGURES[row.figure][1](prices)
    if not np.isfinite(found) or found <= 0:
      raise UserError(
        f"{which}: {row.figure} is {float(found)} with the constants given, so"
        " nothing can be fitted to it; give constants that set it"
      )
