"""Statistics: what calibration measures, and merging."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from jaxnmc import quantize
from jaxnmc.errors import PlanError
from jaxnmc.ops import transform
from jaxnmc.ops.observe import Notes, Role
from jaxnmc.quantize import Stats


def test_ranges_are_the_largest_magnitudes(small):
  run = transform.reference(small.fn, taps=True)
  _, _, taps = run(small.params, {"ids": small.ids})
  for site in ("norms.u", "mix.u", "mix.rest", "mix.v", "mix.cell.h", "logits"):
    want = float(np.abs(taps[site]).max())
    assert small.stats.ranges[site] == pytest.approx(want, rel=1e-6), site
  # Tables and gains are measured whole, seen or not.
  assert small.stats.ranges["embed"] == np.abs(small.params["embed"]).max()
  gain = np.abs(small.params["norms"]["u"]).max()
  assert small.stats.ranges["norms.u.gain"] == pytest.approx(float(gain))
  mean = (np.asarray(small.params["embed"])[small.ids] ** 2).mean(-1).max()
  got = small.stats.ranges["norms.mean_square"]
  assert got == pytest.approx(float(mean), rel=1e-6)
  assert small.stats.tokens == small.ids.size


def test_roles_name_every_parameter(small):
  kinds = {path: role.kind for path, role in small.stats.roles.items()}
  assert kinds == {
    "embed": "table",
    "norms.u": "gain",
    "mix": "matrix",
    "bound": "const",
    "out_norm": "gain",
    "head": "matrix",
  }
  assert small.stats.roles["bound"].transform == "lower_bounds"
  assert small.stats.roles["mix"].site == "mix.weight"
  assert small.stats.notes.units == {"bound", "mix.rest"}
  assert small.stats.notes.aligns == {"mix.cell.h": "v"}


def test_batches_merge(small):
  run = quantize.calibrate(small.fn)
  batches = [small.ids[:2], {"ids": small.ids[1:]}]
  first, second = (run(small.params, [batch]) for batch in batches)
  merged = first.merge(second)
  assert merged == run(small.params, batches)
  assert merged.tokens == 4 * small.ids.shape[1]
  for site, value in small.stats.ranges.items():
    assert merged.ranges[site] == pytest.approx(value, rel=1e-6)


def test_no_batch_is_an_error(small):
  with pytest.raises(PlanError, match="at least one batch"):
    quantize.calibrate(small.fn)(small.params, [])


_RANGES = st.dictionaries(
  st.sampled_from("abcd"), st.floats(0, 1e6), min_size=1
)
_ROLES = {name: Role("gain", name + ".gain", (3,)) for name in "abcd"}


@st.composite
def _stats(draw):
  ranges = draw(_RANGES)
  names = draw(st.sets(st.sampled_from("abcd")))
  notes = Notes(
    {n: _ROLES[n] for n in names},
    set(names),
    dict.fromkeys(names, "x"),
  )
  return Stats(ranges, notes, draw(st.integers(0, 10**12)))


@hypothesis.given(_stats(), _stats(), _stats())
def test_merge_is_commutative_and_associative(a, b, c):
  assert a.merge(b) == b.merge(a)
  assert a.merge(b).merge(c) == a.merge(b.merge(c))
  assert a.merge(a).ranges == a.ranges
  for site in {*a.ranges, *b.ranges}:
    want = max(a.ranges.get(site, 0.0), b.ranges.get(site, 0.0))
    assert a.merge(b).ranges[site] == want


@pytest.mark.parametrize(
  ("use", "message"),
  [
    (lambda o, p, x: o.linear("w", 2 * p["mix"].value, x), "ops.const"),
    (lambda o, p, x: o.norm("n", x, np.ones(6), 1e-3), "params tree"),
  ],
)
def test_arithmetic_on_parameters_is_refused(small, use, message):
  def fn(ops, params, inputs, state=None):
    return use(ops, params, ops.embed("e", params["embed"], inputs["ids"])), 0

  with pytest.raises(PlanError, match=message):
    quantize.calibrate(fn)(small.params, [small.ids])


def test_a_parameter_has_one_part(small):
  def fn(ops, params, inputs, state=None):
    x = ops.embed("e", params["embed"], inputs["ids"])
    x = ops.norm("a", x, params["norms"]["u"], 1e-3)
    return ops.norm("b", x, params["norms"]["u"], 1e-3), None

  with pytest.raises(PlanError, match="norms.u is used twice.*a.gain.*b.gain"):
    quantize.calibrate(fn)(small.params, [small.ids])
