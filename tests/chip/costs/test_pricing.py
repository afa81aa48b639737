"""`price` under jit, vmap and grad, and constants as arrays."""

import dataclasses

import jax
import numpy as np
import pytest
from numpy import testing as npt

from jaxnmc.chip import hardware
from jaxnmc.chip.costs import energy, pricing
from jaxnmc.chip.costs.constants import Constants, constants_of, vary
from jaxnmc.chip.costs.pricing import price
from jaxnmc.chip.costs.work import work_of
from jaxnmc.errors import UserError


@pytest.fixture(scope="module")
def run(big):
  """(constants, work) of 370M on 24 chips."""
  placed, counted, _ = big
  chip = constants_of(placed.hardware, energy.constants("step"))
  return chip, work_of(counted, placed)


def _plain(prices):
  return {k: np.asarray(v) for k, v in dataclasses.asdict(prices).items()}


def test_float32_is_as_good_as_float64(run):
  """Times and energies of a whole 370M run, to 1e-6."""
  constants, work = run
  exact, quick = _plain(price(constants, work, np)), _plain(price(*run))
  assert quick["run_s"].dtype == np.float32
  for name, value in exact.items():
    assert value.dtype == np.float64, name
    npt.assert_allclose(quick[name], value, rtol=1e-6, err_msg=name)
    assert value > 0


def test_a_thousand_chips_in_one_call(run):
  constants, work = run
  rng = np.random.default_rng(3)
  draw = lambda name: getattr(constants, name) * 4 ** rng.uniform(-1, 1, 1000)
  names = [n for n in Constants.names() if getattr(constants, n)]
  assert len(names) == 11
  many = vary(constants, **{name: draw(name) for name in names})
  found = _plain(jax.jit(jax.vmap(price, in_axes=(0, None)))(many, work))
  single = [
    _plain(price(jax.tree.map(lambda x, k=k: float(x[k]), many), work, np))
    for k in range(1000)
  ]
  for name, values in found.items():
    want = np.array([one[name] for one in single])
    assert values.shape == (1000,)
    assert want.std() > 0
    npt.assert_allclose(values, want, rtol=1e-6, err_msg=name)


def test_slopes_are_those_of_small_changes(run):
  constants, work = run
  slopes = jax.grad(lambda c: price(c, work).run_j)(constants)
  for name in Constants.names():
    value, h = getattr(constants, name), 1e-6
    up, down = (
      price(constants.replace(**{name: value * f}), work, np).run_j
      for f in (1 + h, 1 - h)
    )
    want = (up - down) / (2 * h * value) if value else 0.0
    if value:
      share = float(getattr(slopes, name)) * value
      base = price(constants, work, np).run_j
      npt.assert_allclose(share / base, want * value / base, atol=1e-5)


def test_no_time_is_no_power(run):
  """And no slope that is not a number."""
  _, work = run
  nothing = Constants(static_w=1.0)
  prices = price(nothing, work, np)
  assert prices.run_s == prices.mean_w == prices.peak_w == 0
  slopes = jax.grad(lambda c: price(c, work).mean_w)(nothing)
  assert np.isfinite([float(x) for x in jax.tree.leaves(slopes)]).all()


def test_the_largest_term_is_the_time(run):
  constants, work = run
  each = pricing.terms(constants, work.loads, work.chips, np)
  assert len(each) == len(pricing.TERMS)
  time = pricing.step_seconds(constants, work.loads, work.chips, np)
  npt.assert_array_equal(each.max(0), time)
  # Barriers: one of a chip, one of several chips.
  alone = pricing.terms(constants, work.loads, 1.0, np)
  assert alone[-1, 0] == constants.barrier_s
  assert each[-1, 0] == constants.barrier_system_s


def test_constants_of_a_chip():
  chip = hardware.loihi2(running_w=0.5)
  found = constants_of(chip)
  assert found.synop_s == 0.66e-9
  npt.assert_allclose(found.link_message_s, 15e-9, rtol=0.01)
  npt.assert_allclose(1 / found.mesh_word_s, 6.2e9, rtol=0.01)
  npt.assert_allclose(1 / found.host_message_s, 160e6)
  assert (found.static_w, found.running_w) == (0.0, 0.5)
  step = constants_of(chip, energy.constants("step"))
  assert step.running_w == 0.0
  assert step.chip_step_j == energy.constants("step").chip_step_j
  bare = constants_of(hardware.Hardware("mine", 1, 1))
  assert set(jax.tree.leaves(bare)) == {0.0}


def test_variants_are_checked():
  base = Constants(synop_s=1e-9)
  two = vary(base, barrier_s=[1e-6, 2e-6], static_w=3)
  assert {np.shape(x) for x in jax.tree.leaves(two)} == {(2,)}
  assert two.synop_s.tolist() == [1e-9] * 2
  assert two.static_w.tolist() == [3] * 2
  assert vary(base).synop_s.shape == (1,)
  for values, words in (
    ({"colour": 1}, "no constant colour"),
    ({"synop_s": [1, 2], "neuron_s": [1]}, "one length"),
    ({"synop_s": [[1]]}, "one length"),
    ({"synop_s": [1, -2.0]}, "synop_s has -2.0"),
    ({"synop_s": [1, np.inf]}, "synop_s has inf"),
  ):
    with pytest.raises(UserError, match=words):
      vary(base, **values)
