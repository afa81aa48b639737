"""Histograms, percentiles and least errors, against NumPy on raw values."""

import jax
import numpy as np
import pytest

from jaxnmc import quantize
from jaxnmc.errors import PlanError
from jaxnmc.numerics import histogram
from jaxnmc.numerics.formats import frac_for, symmetric_limit
from jaxnmc.ops import transform
from jaxnmc.quantize import Rule, ranges

# Bins are 1/32 of an octave wide.
WIDTH = 1 / 32


def counts(x):
  found = jax.jit(histogram.magnitude_counts)(np.asarray(x, np.float32))
  return np.asarray(found, np.int64)


def samples(kind, n=4000):
  draw = np.random.default_rng(0)
  x = {
    "normal": lambda: draw.normal(size=n),
    "outliers": lambda: np.append(draw.normal(size=n), [60.0, -55.0]),
    "heavy": lambda: draw.standard_t(2, size=n),
    "uniform": lambda: draw.uniform(-3, 3, n),
    "wide": lambda: np.exp(draw.normal(0, 3, n)),
    "few": lambda: draw.choice([0.0, 0.75, -1.5, 3.0], n),
  }[kind]()
  return x.astype(np.float32)


KINDS = ("normal", "outliers", "heavy", "uniform", "wide", "few")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [50, 90, 99, 99.9, 100])
def test_percentile_is_numpys(kind, share):
  x = np.abs(samples(kind))
  got = ranges.percentile(counts(x), share, float(x.max()))
  # Between two values far apart NumPy interpolates; either is right.
  low = np.percentile(x, share, method="lower")
  high = np.percentile(x, share, method="higher")
  assert low * (1 - WIDTH) <= got <= high * (1 + WIDTH)


def brute_error(x, limit, bits):
  high = symmetric_limit(bits)
  step = limit / high
  q = np.clip(np.floor(x.astype(np.float64) / step + 0.5), -high, high)
  return float(np.mean((q * step - x) ** 2))


@pytest.mark.parametrize("kind", KINDS[:-1])
@pytest.mark.parametrize("bits", [4, 8])
def test_square_error_is_numpys(kind, bits):
  x = samples(kind)
  top = float(np.abs(x).max())
  for limit in (top, top / 2, top / 7):
    got = ranges.square_error(counts(x), limit, bits, top)
    assert got == pytest.approx(brute_error(x, limit, bits), rel=0.1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [4, 8, 16])
def test_least_error_is_numpys(kind, bits):
  x = samples(kind)
  top = float(np.abs(x).max())
  got = ranges.least_error(counts(x), bits, top, free=False)
  fracs = frac_for(top, bits) + np.arange(bits)
  limits = symmetric_limit(bits) * np.exp2(-fracs)
  best = min(brute_error(x, limit, bits) for limit in limits)
  assert got in limits
  # A handful of values have errors that no histogram knows; the others do not.
  if kind != "few":
    assert brute_error(x, got, bits) <= 1.02 * best
  free = ranges.least_error(counts(x), bits, top, free=True)
  tried = top * np.exp2(-np.arange(8 * bits) / 8)
  best = min(brute_error(x, limit, bits) for limit in tried)
  if kind != "few":
    assert brute_error(x, free, bits) <= 1.05 * best


def test_outliers_are_cut_off_by_mse_but_not_by_max():
  x = np.append(np.random.default_rng(2).normal(size=40000), 24.0)
  top = 24.0
  assert ranges.least_error(counts(x), 4, top, free=False) < top / 3
  assert ranges.least_error(counts(x), 16, top, free=False) >= top


def test_nothing_but_zeros():
  x = np.zeros(10)
  assert ranges.least_error(counts(x), 8, 0.0, free=True) == 0.0
  assert ranges.percentile(counts(x), 50, 0.0) == 0.0


# --- through calibration


@pytest.fixture(scope="module")
def measured(small):
  run = quantize.calibrate(small.fn, histograms=True, channels=True)
  _, _, taps = transform.reference(small.fn, taps=True)(
    small.params, {"ids": small.ids}
  )
  return run(small.params, [small.ids]), taps


def test_calibration_counts_every_value(small, measured):
  stats, taps = measured
  for site in ("norms.u", "mix.u", "mix.rest", "mix.cell.h", "logits"):
    want = counts(taps[site])
    # Two programs may differ by a rounding, so a value by a bin.
    moved = np.abs(np.cumsum(want) - np.cumsum(stats.histograms[site]))
    assert moved.max() <= 2, site
    assert stats.histograms[site].sum() == taps[site].size
    most = np.abs(taps[site]).reshape(-1, taps[site].shape[-1]).max(0)
    np.testing.assert_allclose(stats.channels[site], most, rtol=1e-5)
  assert stats.ranges == pytest.approx(small.stats.ranges)
  assert stats.notes == small.stats.notes


def test_nothing_more_is_kept_unless_asked(small):
  assert not small.stats.histograms
  assert not small.stats.channels


def test_batches_of_histograms_merge(small, measured):
  run = quantize.calibrate(small.fn, histograms=True, channels=True)
  parts = run(small.params, [small.ids[:1], small.ids[1:]])
  whole = measured[0]
  for site in ("mix.u", "logits"):
    same = np.cumsum(parts.histograms[site] - whole.histograms[site])
    assert np.abs(same).max() <= 2
    np.testing.assert_allclose(
      parts.channels[site], whole.channels[site], rtol=1e-5
    )
  one = run(small.params, [small.ids[0]])  # no batch axis
  assert one.histograms["logits"].sum() == small.ids.shape[1] * 9
  with pytest.raises(PlanError, match="only one of two .* histograms"):
    whole.merge(small.stats)


def test_plans_by_percentile_and_mse(measured):
  stats, taps = measured
  x = np.abs(np.asarray(taps["logits"]))
  rule = Rule("logits", bits=8, percentile=80, scale="free")
  (scale,) = quantize.plan(stats, [rule]).site("logits").scales
  low, high = (
    np.percentile(x, 80, method=m) / 127 for m in ("lower", "higher")
  )
  assert low * (1 - WIDTH) <= scale <= high * (1 + WIDTH)
  rule = Rule("logits", bits=4, calibration="mse")
  frac = quantize.plan(stats, [rule]).format("logits").frac
  fracs = frac_for(float(x.max()), 4) + np.arange(4)
  errors = [brute_error(x, 7 * 2.0**-f, 4) for f in fracs]
  assert errors[list(fracs).index(frac)] <= 1.1 * min(errors)


def test_unit_sites_keep_their_format(measured):
  plan = quantize.plan(
    measured[0], [Rule(".*", bits=8, calibration="percentile")]
  )
  assert plan.format("mix.rest").unit


def test_digest_sees_every_part(small, measured):
  stats = measured[0]
  counted = {k: v.copy() for k, v in stats.histograms.items()}
  counted["logits"][700] += 1
  most = {k: v.copy() for k, v in stats.channels.items()}
  most["logits"][0] += 1
  others = [
    small.stats,
    quantize.Stats({**stats.ranges, "logits": 9.0}, stats.notes, 15),
    quantize.Stats(stats.ranges, stats.notes, 16),
    quantize.Stats(stats.ranges, stats.notes, 15, counted, stats.channels),
    quantize.Stats(stats.ranges, stats.notes, 15, stats.histograms, most),
  ]
  assert len({s.digest for s in [stats, *others]}) == 1 + len(others)
  same = quantize.calibrate(small.fn, histograms=True, channels=True)
  assert same(small.params, [small.ids]) == stats
