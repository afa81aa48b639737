"""Presets: the rows of the paper's table, and integers as they always were."""

import hashlib
import json

import numpy as np
import pytest

from jaxnmc import quantize
from jaxnmc.chip.engines.loihi import loihi
from jaxnmc.errors import FormatError, PlanError
from jaxnmc.ops import transform
from jaxnmc.ops.record import record
from jaxnmc.quantize import Float, Format, NormFormat, presets
from tools import golden


@pytest.fixture(scope="module")
def blocks():
  """Statistics of a model with layers."""
  case = golden.tiny(num_layers=1, hidden_size=8, intermediate_size=8)
  return quantize.calibrate(case.fn)(case.params, [case.inputs["ids"][:1]])


def kinds(plan):
  """What has which bits: gains, sites in blocks, everything else, norms."""
  gains, inside, rest = set(), set(), set()
  for path, fmt in plan.formats.items():
    group = (
      gains
      if path.endswith(".gain")
      else inside
      if path.startswith("layers.")
      else rest
    )
    group.add(None if isinstance(fmt, Float) else fmt.bits)
  return gains, inside, rest, set(plan.norms.values())


FLOAT, INSIDE = {None}, {NormFormat(12, 24)}
TABLE1 = [
  ("PT", 1e-6, (FLOAT, FLOAT, FLOAT, FLOAT)),
  ("FP16", 1e-6, (FLOAT, FLOAT, FLOAT, FLOAT)),
  ("W8", 1e-6, ({8}, FLOAT, FLOAT, FLOAT)),
  ("W8", 1e-3, ({8}, FLOAT, FLOAT, FLOAT)),
  ("A8", 1e-6, (FLOAT, {8}, FLOAT, FLOAT)),
  ("A8", 1e-3, (FLOAT, {8}, FLOAT, INSIDE)),
  ("A16", 1e-6, (FLOAT, {16}, FLOAT, FLOAT)),
  ("W8A8", 1e-6, ({8}, {8}, FLOAT, FLOAT)),
  ("W8A8", 1e-3, ({8}, {8}, FLOAT, INSIDE)),
  ("W8A16", 1e-6, ({8}, {16}, FLOAT, FLOAT)),
  ("W8A16", 1e-3, ({8}, {16}, FLOAT, INSIDE)),
]


@pytest.mark.parametrize(("row", "eps", "want"), TABLE1)
def test_rows_of_the_paper(blocks, row, eps, want):
  plan = quantize.plan(blocks, quantize.paper(row, eps))
  assert kinds(plan) == want
  assert (plan.eps, plan.table, plan.dynamic) == (eps, None, True)
  assert plan.dtype == ("float16" if row == "FP16" else None)
  assert not plan.integers
  assert plan.name == (row if eps == 1e-6 else f"{row} eps 1e-3")
  for path, fmt in plan.formats.items():
    # Symmetric, per tensor, a power of two; [0, 1] without a sign.
    assert isinstance(fmt, Float | Format), path


def test_integer_rows(blocks):
  for row, preset in (("W8A8", quantize.W8A8), ("W8A16", quantize.W8A16)):
    assert quantize.paper(row, 1e-3, integers=True) is preset
    plan = quantize.plan(blocks, preset)
    assert plan.integers
    plan.need_integers("this")


@pytest.mark.parametrize(
  ("row", "eps", "integers", "text"),
  [
    ("W4", 1e-6, False, "found row 'W4' .* allowed are FP16, PT, W8"),
    ("W8", 1e-4, False, "with eps 0.0001, allowed"),
    ("A8", 1e-3, True, "A8 with eps 0.001 is not integers"),
    ("W8A8", 1e-6, True, "W8A8 with eps 1e-06 is not integers"),
  ],
)
def test_rows_that_do_not_exist(row, eps, integers, text):
  with pytest.raises(PlanError, match=text):
    quantize.paper(row, eps, integers)


def test_a_model_without_blocks_has_no_block_activations(small):
  assert quantize.plan(small.stats, quantize.W8).site("norms.u.gain").bits == 8
  with pytest.raises(PlanError, match="layers.* matches nothing"):
    quantize.plan(small.stats, quantize.A8)


def test_impossible_presets():
  with pytest.raises(PlanError, match="dtype 'float8', allowed are float16"):
    quantize.PT.replace(dtype="float8")
  with pytest.raises(FormatError, match="margin"):
    quantize.PT.replace(margin=17)


def test_fingerprints_of_integer_plans_are_those_of_version_1():
  # Qparams and placements that were saved under them stay valid.
  for name in golden.CASES:
    stored = golden.load(name)["plan"]
    assert stored["version"] == 1
    text = json.dumps(stored, sort_keys=True, separators=(",", ":"))
    want = hashlib.sha256(text.encode()).hexdigest()
    assert quantize.Plan.from_json(text).fingerprint == want


# --- who refuses what is not integers


@pytest.mark.parametrize(
  ("preset", "reason"),
  [
    (quantize.W8, "leaves bound in float .and 10 more sites"),
    (quantize.W8A16.replace(norm=None), "leaves norms.mean_square in float"),
    (quantize.W8A16.replace(table=None), "has no sigmoid table"),
    (quantize.W8A16.replace(dynamic=True), "keeps the dynamic quantiser"),
    (quantize.W8A16.replace(dtype="bfloat16"), "stores values in bfloat16"),
    (
      quantize.W8A16.with_rules(quantize.Rule("logits", scale="free")),
      "gives logits a scale that is no power of two per tensor",
    ),
  ],
)
def test_integers_are_refused_with_the_first_reason(small, preset, reason):
  plan = quantize.plan(small.stats, preset)
  inputs = {"ids": small.ids[0]}
  for what, use in (
    ("quantize_params", lambda: quantize.quantize_params(small.params, plan)),
    (
      "fixed",
      lambda: transform.fixed(small.fn, plan)(small.qparams, inputs),
    ),
    ("record", lambda: record(small.fn, plan, small.qparams)),
    ("loihi", lambda: loihi(small.fn, plan, None)),
  ):
    with pytest.raises(PlanError, match=reason) as caught:
      use()
    assert str(caught.value).startswith(f"{what} takes integers")
    assert "use fake_quant" in str(caught.value)
  run = transform.fake_quant(small.fn, plan)
  out, _ = run(small.params, inputs)
  assert np.isfinite(np.asarray(out, np.float32)).all()


def test_a_site_asked_for_by_hand_is_refused_too(small):
  plan = quantize.plan(small.stats, quantize.W8)
  with pytest.raises(PlanError, match="leaves logits in float"):
    plan.format("logits")
  with pytest.raises(PlanError, match="leaves norms.mean_square in float"):
    plan.norm("norms")


def test_a_file_of_rules(tmp_path):
  path = tmp_path / "mixed.txt"
  line = r"layers\..*:on=activation,bits=8,override"
  path.write_text(f"\n# a comment\npreset W8A16\n  {line}\n")
  made = presets.read(path)
  rule = quantize.Rule(r"layers\..*", on="activation", bits=8, override=True)
  assert made == quantize.W8A16.with_rules(rule).replace(name="mixed")
  path.write_text(line)
  alone = presets.read(path)
  assert alone == presets.of_rules([rule], "mixed")


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("", ["holds no rule"]),
    ("# only this\n", ["holds no rule"]),
    ("a:bits=8\npreset W8\n", ["line 2", "in front of all rules"]),
    ("preset W9\n", ["line 1", "'preset W9'", "W8A16"]),
    ("preset W8\n\nno rule\n", ["line 3", "expected PATTERN:field=value"]),
    ("a:bits=99\n", ["line 1", "bits must lie in 2..24"]),
  ],
)
def test_files_that_are_no_rules(tmp_path, text, words):
  path = tmp_path / "bad.txt"
  path.write_text(text)
  with pytest.raises((PlanError, FormatError)) as caught:
    presets.read(path)
  for word in (str(path), *words):
    assert word in str(caught.value)
  with pytest.raises(PlanError, match=r"no\.txt: cannot be read"):
    presets.read(tmp_path / "no.txt")
