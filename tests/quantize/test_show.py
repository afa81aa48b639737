"""Plans as people read them, and what differs between two."""

import pytest

from jaxnmc import quantize
from jaxnmc.numerics.sigmoid import SigmoidTable
from jaxnmc.quantize import Float, Format, NormFormat, Plan, Scaled, show


def plan_of(formats, norms=None, **kw):
  fields = {"table": SigmoidTable(), "eps": 1e-3, **kw}
  return Plan("p", formats, norms or {}, {}, **fields)


LAYERS = {
  **{f"layers.{i}.h": Format(16, 10) for i in (0, 1, 2, 5)},
  **{f"layers.{i}.h": Format(16, 9) for i in (3, 4)},
  "layers.10.h": Format(16, 10),
  "logits": Scaled(8, (0.5,)),
  "embed": Float(),
}


def test_equal_layers_are_one_row():
  found = {row.site: row for row in show.rows(plan_of(LAYERS))}
  assert set(found) == {
    "layers.0-2,5,10.h",
    "layers.3-4.h",
    "logits",
    "embed",
  }
  row = found["layers.0-2,5,10.h"]
  assert row == ("layers.0-2,5,10.h", 5, "s16.10", 2.0**-10, 32639 / 1024)
  assert found["logits"][2:] == ("s8 x 0.5", 0.5, 63.5)
  assert found["embed"][2:] == ("float", None, None)


def test_norms_are_sites_of_their_own():
  plan = plan_of({}, {"layers.0.n": NormFormat(), "layers.1.n": None})
  assert [row[:3] for row in show.rows(plan)] == [
    ("layers.0.n.mean_square", 1, "u24.12"),
    ("layers.1.n.mean_square", 1, "float"),
  ]


def test_text_names_everything(small):
  text = str(small.plan)
  for word in ("W8A16", "0.001", "mix.cell.h", "norms.u.gain", "8 segments"):
    assert word in text
  assert str(small.plan.format("logits")) in text
  assert max(len(line) for line in text.splitlines()) <= 100


def test_equal_plans_do_not_differ(small):
  assert quantize.diff(small.plan, small.plan.replace()) == []


def test_differences_are_folded():
  other = {**LAYERS, "layers.0.h": Format(8, 2), "layers.1.h": Format(8, 2)}
  del other["embed"]
  after = plan_of(other, eps=None, dynamic=True, table=None)
  changes = {c.what: c[1:] for c in quantize.diff(plan_of(LAYERS), after)}
  assert changes["layers.0-1.h (2)"] == ("s16.10", "s8.2")
  assert changes["embed"] == ("float", "absent")
  assert changes["eps of norms"] == ("0.001", "the model's")
  assert changes["dynamic quantiser"] == ("none", "kept")
  assert changes["sigmoid"][1] == "exact"
  assert len(changes) == 5


def test_another_model_and_another_calibration_are_told(small):
  other = quantize.calibrate(small.fn)(
    small.make_params(vocab=11), [small.ids[:1]]
  )
  plan = quantize.plan(other, quantize.W8A16)
  changes = {c.what: c[1:] for c in quantize.diff(small.plan, plan)}
  assert changes["model: embed"] == ("[9, 6]", "[11, 6]")
  assert changes["calibration"] == (
    small.stats.digest[:12],
    other.digest[:12],
  )


@pytest.mark.parametrize(
  ("numbers", "text"),
  [([3], "3"), ([0, 1, 2], "0-2"), ([9, 1, 0, 4], "0-1,4,9")],
)
def test_spans(numbers, text):
  assert show._spans(numbers) == text
