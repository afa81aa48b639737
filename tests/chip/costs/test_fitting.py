"""Fits through `price`: what was put in comes out, and what is not seen."""

import dataclasses

import numpy as np
import pytest
from numpy import testing as npt

from jaxnmc.chip import hardware
from jaxnmc.chip.costs import energy
from jaxnmc.chip.costs.constants import Constants, constants_of
from jaxnmc.chip.costs.fitting import FIGURES, Row, fit_costs
from jaxnmc.chip.costs.pricing import Loads, Work, price
from jaxnmc.chip.costs.work import work_of
from jaxnmc.chip.counting.counters import Counters
from jaxnmc.chip.placement import place
from jaxnmc.errors import UserError
from tests.chip import synthetic

TRUE = Constants(
  synop_s=0.7e-9,
  neuron_s=4e-9,
  barrier_s=2e-6,
  barrier_system_s=9e-6,
  host_message_s=6e-9,
  link_message_s=15e-9,
  mesh_word_s=0.1e-9,
  static_w=0.13,
  chip_step_j=30e-6,
  synop_j=5e-12,
  crossing_j=25e-9,
)


@pytest.fixture(scope="module")
def works():
  """A block on a chip, and three blocks on three chips."""
  made = []
  for chips in (1, 3):
    net = synthetic.matmulfree(layers=chips, vocab=64)
    placed = place.place(net, hardware.loihi2(chips=chips))
    parts = [synthetic.traffic(placed, p) for p in (range(8), [0])]
    made.append(work_of(Counters.of(parts, placed), placed))
  return made


def _rows(works, names, constants=TRUE):
  rows = []
  for k, work in enumerate(works):
    prices = price(constants, work, np)
    for name in names:
      unit, of = FIGURES[name]
      rows.append(Row(name, float(of(prices)), unit, work, f"work {k}"))
  return rows


def test_known_constants_come_out(works):
  names = ("prefill_tokens_per_s", "generate_ms_per_token", "prefill_w")
  rows = _rows(works, (*names, "generate_mj_per_token"))
  free = ("synop_s", "barrier_s", "barrier_system_s", "static_w")
  free += ("chip_step_j", "synop_j")
  start = TRUE.replace(
    **{
      n: getattr(TRUE, n) * f for n, f in zip(free, (1.4, 0.8, 1.3, 2, 3, 0.2))
    }
  )
  fit = fit_costs(rows, start, free)
  assert fit.converged
  for name in free:
    npt.assert_allclose(getattr(fit.constants, name), getattr(TRUE, name), 1e-6)
    assert fit[name].state == "identified", fit[name]
    assert fit[name].value == getattr(fit.constants, name)
    assert fit[name].prior == getattr(start, name)
  for name in set(Constants.names()) - set(free):
    assert getattr(fit.constants, name) == getattr(TRUE, name)
  assert all(abs(row.residual) < 1e-9 for row in fit.rows)
  assert [row.unit for row in fit.rows[:3]] == ["tokens/s", "ms", "W"]
  assert min(fit.singular_values) > fit.threshold


def test_what_the_rows_do_not_see_stays(works):
  """A pipelined step is set by the walk: no row sees barrier or links."""
  rows = _rows(works, ("prefill_tokens_per_s",))
  free = ("synop_s", "barrier_s", "link_message_s")
  start = TRUE.replace(synop_s=1e-9, barrier_s=3e-6)
  fit = fit_costs(rows, start, free)
  npt.assert_allclose(fit.constants.synop_s, TRUE.synop_s, rtol=1e-9)
  assert fit["synop_s"].state == "identified"
  for name in free[1:]:
    assert fit[name].state == "prior"
    assert fit[name].value == fit[name].prior == getattr(start, name)
    assert fit[name].resolution == 0


def test_only_a_combination_is_seen(works):
  """Power of one mode: static and running watts are one number."""
  rows = _rows(works, ("prefill_w", "generate_w"), TRUE.replace(running_w=0.4))
  start = TRUE.replace(static_w=0.2, running_w=0.2)
  fit = fit_costs(rows, start, ("static_w", "running_w", "neuron_s"))
  assert fit["static_w"].state == fit["running_w"].state == "combination"
  npt.assert_allclose(fit["static_w"].resolution, 0.5, atol=0.2)
  both = fit.constants.static_w + fit.constants.running_w
  npt.assert_allclose(both, TRUE.static_w + 0.4, rtol=1e-6)
  assert fit["neuron_s"].state == "prior"
  assert min(fit.singular_values) < fit.threshold


def test_rows_that_disagree_leave_residuals(works):
  (row,) = _rows(works[:1], ("prefill_tokens_per_s",))
  other = dataclasses.replace(row, value=row.value * 1.21)
  fit = fit_costs([row, other], TRUE, ["synop_s"])
  # Least squares of logarithms: half way between them.
  npt.assert_allclose(fit.constants.synop_s, TRUE.synop_s / 1.1, rtol=1e-9)
  npt.assert_allclose([r.residual for r in fit.rows], [0.1, 1 / 1.1 - 1])


def _table4(steps: float):
  """The four rows of the paper, at their own times."""
  rows = []
  weights = energy.BLOCKS * energy.BLOCK_WEIGHTS
  for rate, joule, generation, many in energy._TABLE4:
    walk = 1 / rate / TRUE.synop_s  # so long that the walk takes this time
    per = steps * energy.BLOCKS if generation else 1
    if generation and not many:
      per /= energy.BLOCKS  # the authors let one chip step at a time
    one = np.array([walk, walk])
    zero = np.zeros(2)
    crossed = 23 * 1024.0 if many else 0.0
    work = Work(
      chips=24.0,
      loads=Loads(one, zero, zero, zero, zero),
      times=np.eye(4, 2),
      steps=np.array([per, per, 0.0, 0.0]),
      events=np.tile([weights, crossed, 0.0, 0.0], (4, 1)),
      stored=zero,
      crossings=zero,
      passes=0.0,
      known=zero,
    )
    name = "generate" if generation else "prefill"
    figure = f"{name}_mj_per_token"
    rows.append(Row(figure, 1e3 * joule, "mJ/token", work))
  return rows


def test_table_4_is_the_closed_form():
  found = energy.constants("step", 15)
  names = ("static_w", "chip_step_j", "synop_j", "crossing_j")
  no_floor = TRUE.replace(barrier_system_s=1e-9)
  fit = fit_costs(_table4(15), no_floor, names)
  for name in names:
    npt.assert_allclose(
      getattr(fit.constants, name), getattr(found, name), 1e-6
    )
    assert fit[name].state == "identified"
  assert max(abs(r.residual) for r in fit.rows) < 1e-9
  # Without joules per crossing the four rows do not come out: form B.
  less = fit_costs(_table4(15), no_floor.replace(crossing_j=0.0), names[:3])
  residuals = 100 * np.array([r.residual for r in less.rows])
  # Published with least squares of relative errors, here of logarithms.
  npt.assert_allclose(residuals, [-11.2, -0.3, 8.4, 1.1], atol=2)
  npt.assert_allclose(less.constants.static_w, 0.131, atol=0.01)


def test_steps_per_block_are_not_in_the_table():
  """Energy fixes steps times joules per step only."""
  each = [
    fit_costs(
      _table4(n),
      TRUE.replace(barrier_system_s=1e-9),
      ("static_w", "chip_step_j", "synop_j"),
    )
    for n in (10, 20)
  ]
  product = [n * f.constants.chip_step_j for n, f in zip((10, 20), each)]
  npt.assert_allclose(*product, rtol=0.02)


@pytest.mark.parametrize(
  ("change", "words"),
  [
    ({"unit": ""}, "row 0 .work 0.: prefill_w has no unit; it must be 'W'"),
    ({"unit": "mJ"}, "has the unit 'mJ'; it must be 'W'"),
    ({"figure": "smell"}, "unknown figure 'smell'"),
    ({"value": 0}, "prefill_w is 0; it must be a positive"),
    ({"value": float("nan")}, "prefill_w is nan"),
    ({"value": None}, "prefill_w is None"),
  ],
)
def test_a_row_that_is_none_is_refused(works, change, words):
  (row,) = _rows(works[:1], ("prefill_w",))
  with pytest.raises(UserError, match=words):
    fit_costs([dataclasses.replace(row, **change)], TRUE, ["static_w"])


def test_constants_that_cannot_be_fitted_are_refused(works):
  rows = _rows(works[:1], ("prefill_w",))
  for free, words in (
    ((), "at least one free constant"),
    (("colour",), "'colour' is unknown"),
    (("static_w", "static_w"), "'static_w' is there twice"),
    (("running_w",), "running_w is 0.0 .0 is unknown."),
  ):
    with pytest.raises(UserError, match=words):
      fit_costs(rows, TRUE, free)
  with pytest.raises(UserError, match="at least one row"):
    fit_costs([], TRUE, ["static_w"])
  with pytest.raises(UserError, match="threshold is 0"):
    fit_costs(rows, TRUE, ["static_w"], threshold=0)
  dark = Constants(synop_s=1e-9)
  with pytest.raises(UserError, match="prefill_w is 0.0 with the constants"):
    fit_costs(rows, dark, ["synop_s"])


def test_constants_of_the_chip_are_a_prior(works):
  chip = hardware.loihi2()
  start = constants_of(chip, energy.constants("running"))
  rows = _rows(works, ("prefill_tokens_per_s",), start)
  fit = fit_costs(rows, start, ["synop_s", "static_w"])
  assert fit.constants == start
  assert fit["static_w"].state == "prior"
