"""Plans: which format each site gets; saving, loading, refusing."""

import dataclasses
import json

import hypothesis
import pytest
from hypothesis import strategies as st

from jaxnmc import quantize
from jaxnmc.errors import FormatError, PlanError
from jaxnmc.numerics.formats import symmetric_limit
from jaxnmc.ops import transform
from jaxnmc.ops.observe import Notes
from jaxnmc.quantize import Format, NormFormat, Plan, Rule, SigmoidTable, Stats


def test_json_round_trip(small, tmp_path):
  for preset in (
    quantize.W8A16,
    quantize.W8A8,
    quantize.W8A16.replace(
      eps=None, table=SigmoidTable(segments=64, spacing=3), margin=0.25
    ),
  ):
    plan = quantize.plan(small.stats, preset)
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert hash(again) == hash(plan)
    assert again.roles == plan.roles
    assert again.formats == plan.formats
    assert again.norms == plan.norms
    assert (again.table, again.eps) == (plan.table, plan.eps)
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
  assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]


def test_plans_of_floats_round_trip(small, tmp_path):
  stats = quantize.calibrate(small.fn, channels=True)(small.params, [small.ids])
  rules = (
    Rule("logits", bits=8, scale="free"),
    Rule(r"mix\.v", bits=6, per="channel"),
    Rule(r"mix\.u", bits=8),
    Rule("norms", on="norm", bits=20, frac=10),
  )
  preset = quantize.FP16.with_rules(*rules)
  plan = quantize.plan(stats, preset)
  plan.save(tmp_path / "plan.json")
  again = Plan.load(tmp_path / "plan.json")
  for field in dataclasses.fields(Plan):
    assert getattr(again, field.name) == getattr(plan, field.name), field.name
  assert again == plan
  assert len(plan.site("mix.v").scales) == 4
  assert again.calibration == stats.digest


def test_plans_of_version_1_load(small):
  data = json.loads(small.plan.to_json())
  assert data["version"] == 2
  for field in ("dynamic", "dtype", "calibration"):
    del data[field]
  old = Plan.from_json(json.dumps({**data, "version": 1}))
  assert old == small.plan
  assert old.integers
  assert old.calibration is None


def test_calibration_is_remembered_but_changes_no_integer(small):
  assert small.plan.calibration == small.stats.digest
  other = small.plan.replace(calibration="0" * 64)
  assert other == small.plan
  assert other.to_json() != small.plan.to_json()
  small.qparams.check(other)
  with pytest.raises(PlanError, match="was made on calibration 000000000000"):
    other.check_calibration(small.stats)
  small.plan.check_calibration(small.stats)


def test_a_plan_of_another_model_is_refused_before_anything_runs(small):
  for plan in (small.plan, quantize.plan(small.stats, quantize.W8)):
    run = transform.fake_quant(small.fn, plan)
    params = small.make_params(vocab=11)
    with pytest.raises(PlanError) as caught:
      run(params, {"ids": small.ids})
    assert "parameter embed has shape [11, 6]" in str(caught.value)
    assert "[9, 6]; calibrate this one" in str(caught.value)
    fewer = {k: v for k, v in small.params.items() if k != "mix"}
    with pytest.raises(PlanError, match="parameter mix is not there"):
      run(fewer, {"ids": small.ids})


def test_every_field_is_in_the_fingerprint(small):
  plan = small.plan
  site = "mix.v"
  fmt = plan.format(site)
  others = [
    plan.replace(name="other"),
    plan.replace(eps=1e-4),
    plan.replace(eps=None),
    plan.replace(table=SigmoidTable(segments=16, spacing=5)),
    plan.with_formats({site: Format(fmt.bits, fmt.frac - 1)}),
    plan.with_formats({site: Format(fmt.bits - 1, fmt.frac)}),
    plan.replace(norms={**plan.norms, "norms": NormFormat(14)}),
    plan.replace(dynamic=True),
    plan.replace(dtype="float16"),
    plan.replace(table=None),
    plan.replace(norms={**plan.norms, "norms": None}),
    plan.with_formats({site: quantize.Float()}),
    plan.with_formats({site: quantize.Scaled(16, (0.1,))}),
    plan.with_formats({site: quantize.Scaled(16, (0.2,))}),
    plan.replace(roles={k: r for k, r in plan.roles.items() if k != "mix"}),
  ]
  prints = {p.fingerprint for p in [plan, *others]}
  assert len(prints) == 1 + len(others)
  assert plan != others[0]
  assert plan == plan.replace()


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("{", "not a plan"),
    ("[]", "not a plan"),
    ("{}", "not a plan"),
    ('{"version": 0}', "version 0 is none of 1, 2"),
    ('{"version": []}', r"version \[\] is none of"),
  ],
)
def test_text_that_is_no_plan(text, message, tmp_path):
  with pytest.raises(PlanError, match=message):
    Plan.from_json(text)
  (tmp_path / "p.json").write_text(text)
  with pytest.raises(PlanError, match=r"plan file .*p\.json: .*" + message):
    Plan.load(tmp_path / "p.json")


def test_damaged_fields_are_refused(small):
  data = json.loads(small.plan.to_json())
  for key in data:
    damaged = {k: v for k, v in data.items() if k != key}
    with pytest.raises(PlanError):
      Plan.from_json(json.dumps(damaged))
  for field, bad in (("dtype", "float8"), ("calibration", 3)):
    with pytest.raises(PlanError, match=f"not a plan: {field}"):
      Plan.from_json(json.dumps({**data, field: bad}))
  data["formats"]["mix.v"] = [99, 0, 0]
  with pytest.raises(PlanError, match="not a plan: .*99"):
    Plan.from_json(json.dumps(data))


def test_absent_file(tmp_path):
  with pytest.raises(PlanError, match=r"plan file .*none\.json: No such file"):
    Plan.load(tmp_path / "none.json")


def test_bits_by_kind(small):
  for preset, act in ((quantize.W8A16, 16), (quantize.W8A8, 8)):
    plan = quantize.plan(small.stats, preset)
    bits = {path: fmt.bits for path, fmt in plan.formats.items()}
    assert bits.pop("embed") == 16  # the host's table
    assert bits.pop("norms.u.gain") == 8
    assert bits.pop("out_norm.gain") == 8
    assert set(bits.values()) == {act}, preset.name
    assert plan.norms == {"norms": NormFormat(), "out_norm": NormFormat()}
    assert plan.eps == 1e-3
    assert plan.name == preset.name


def test_unit_sites_have_unit_formats(small):
  for path in ("bound", "mix.rest"):
    fmt = small.plan.format(path)
    assert (fmt.unit, fmt.frac, fmt.low, fmt.high) == (True, 15, 0, 1 << 15)


def test_formats_are_as_fine_as_the_range_allows(small):
  aligned = set(small.stats.notes.aligns)
  for path, limit in small.stats.ranges.items():
    if path.endswith("mean_square") or path in aligned:
      continue
    fmt = small.plan.format(path)
    if fmt.unit:
      continue
    high = symmetric_limit(fmt.bits)
    assert limit * 2.0**fmt.frac <= high, path
    assert limit * 2.0 ** (fmt.frac + 1) > high or fmt.frac == 30, path


def test_margin_leaves_headroom(small):
  wide = quantize.plan(small.stats, quantize.W8A16.replace(margin=1.0))
  for path, fmt in small.plan.formats.items():
    lost = 0 if fmt.unit else 1
    assert wide.format(path).frac == fmt.frac - lost, path
  with pytest.raises(FormatError, match="margin"):
    quantize.W8A16.replace(margin=-0.1)


def _stats(ranges, aligns):
  return Stats(ranges, Notes(aligns=aligns), 1)


def test_align_takes_the_coarser_point():
  # h is finer than v by its range; added to v it keeps v's fraction bits.
  ranges = {"l.v": 3.0, "l.cell.h": 0.1, "v": 900.0}
  plan = quantize.plan(_stats(ranges, {"l.cell.h": "v"}), quantize.W8A16)
  assert plan.format("l.cell.h") == Format(16, plan.format("l.v").frac)
  # A coarser one stays as its own range asks.
  ranges["l.cell.h"] = 50.0
  plan = quantize.plan(_stats(ranges, {"l.cell.h": "v"}), quantize.W8A16)
  assert plan.format("l.cell.h").frac == 9
  with pytest.raises(PlanError, match="l.cell.h aligns to 'w'"):
    quantize.plan(_stats(ranges, {"l.cell.h": "w"}), quantize.W8A16)


@hypothesis.given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
def test_align_holds_for_any_ranges(v, h):
  plan = quantize.plan(_stats({"v": v, "h": h}, {"h": "v"}), quantize.W8A16)
  free = quantize.plan(_stats({"v": v, "h": h}, {}), quantize.W8A16)
  assert plan.format("v") == free.format("v")
  want = min(free.format("h").frac, free.format("v").frac)
  assert plan.format("h") == Format(16, want)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_range_that_is_not_finite_is_named(bad):
  with pytest.raises(PlanError, match="site l.v took the value (nan|inf)"):
    quantize.plan(_stats({"l.v": bad}, {}), quantize.W8A16)


def test_unknown_site_is_named(small):
  with pytest.raises(PlanError, match="'W8A16' has no format for site nowhere"):
    small.plan.format("nowhere")
  with pytest.raises(PlanError, match="nowhere"):
    small.plan.with_formats({"nowhere": Format(8, 0)})
  with pytest.raises(PlanError, match="has no norm nowhere"):
    small.plan.norm("nowhere")


def test_plan_of_another_model_names_the_site(small):
  def other(ops, params, inputs, state=None):
    x = ops.embed("embed", params["embed"], inputs["ids"])
    with ops.at("deep"):
      return ops.site("er", x), state

  run = transform.fixed(other, small.plan)
  with pytest.raises(PlanError, match="no format for site deep.er"):
    run(small.qparams, {"ids": small.ids})
  run = transform.fake_quant(other, small.plan)
  with pytest.raises(PlanError, match="no format for site deep.er"):
    run(small.params, {"ids": small.ids})
