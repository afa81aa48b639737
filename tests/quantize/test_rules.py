"""Rules: what they match, what they set, and what is refused."""

import math

import numpy as np
import pytest

from jaxnmc import quantize
from jaxnmc.errors import FormatError, PlanError
from jaxnmc.ops import transform
from jaxnmc.quantize import Float, Format, NormFormat, Rule, Scaled
from jaxnmc.quantize import rules as rules_lib

SITES = [
  ("embed", "table"),
  ("layers.0.attn.f.out", "activation"),
  ("layers.0.norm", "activation"),
  ("layers.0.norm", "norm"),
  ("layers.0.norm.gain", "gain"),
  ("layers.11.attn.f.out", "activation"),
]


def resolved(*rules):
  return rules_lib.resolve(rules, SITES)


def test_a_pattern_matches_whole_paths():
  found = resolved(Rule(r"layers\.\d+\.attn\..*", bits=8))
  bits = {path for (path, _), s in found.items() if s}
  assert bits == {"layers.0.attn.f.out", "layers.11.attn.f.out"}
  found = resolved(Rule(r"layers\.1\..*|embed", bits=8))
  assert [p for (p, _), s in found.items() if s] == ["embed"]


def test_kinds():
  found = resolved(Rule(".*", bits=16))
  # The inside of a norm is meant only where a rule says so.
  assert [key for key, s in found.items() if not s] == [
    ("layers.0.norm", "norm")
  ]
  found = resolved(Rule(".*", on="gain", bits=8))
  assert [key for key, s in found.items() if s] == [
    ("layers.0.norm.gain", "gain")
  ]


def test_fields_of_several_rules_add_up():
  found = resolved(
    Rule(".*", bits=16, margin=0.5),
    Rule("embed", scale="free"),
    Rule("embed", bits=16),  # the same value again is no quarrel
  )
  assert found["embed", "table"] == {
    "bits": 16,
    "floating": False,
    "margin": 0.5,
    "scale": "free",
  }


def test_two_rules_that_disagree_are_named():
  first, second = Rule(".*", bits=16), Rule(r".*\.out", bits=8)
  with pytest.raises(PlanError) as caught:
    resolved(first, second)
  for text in (
    "site layers.0.attn.f.out",
    str(first),
    str(second),
    "16",
    "override=True",
  ):
    assert text in str(caught.value)


def test_float_and_bits_disagree():
  with pytest.raises(PlanError, match="disagree about floating"):
    resolved(Rule(".*", bits=16), Rule("embed", floating=True))
  won = Rule("embed", floating=True, override=True)
  assert resolved(Rule(".*", bits=16), won)["embed", "table"]["floating"]


def test_override_changes_only_its_fields_and_only_what_came_before():
  change = Rule("embed", bits=8, override=True)
  found = resolved(Rule(".*", bits=16, margin=1.0), change)
  assert found["embed", "table"] == {
    "bits": 8,
    "margin": 1.0,
    "floating": False,
  }
  assert found["layers.0.norm", "activation"]["bits"] == 16
  with pytest.raises(PlanError, match="disagree about bits"):
    resolved(change, Rule(".*", bits=16))


@pytest.mark.parametrize(
  ("rule", "near"),
  [
    (Rule(r"layers\.\d+\.atn\.f\.out", bits=8), "layers.0.attn.f.out"),
    (Rule("embedding", bits=8), "embed"),
    (Rule("attn.f.out", bits=8), "layers.0.attn.f.out"),
  ],
)
def test_a_rule_that_matches_nothing_names_near_misses(rule, near):
  with pytest.raises(PlanError, match="matches nothing") as caught:
    resolved(rule)
  assert near in str(caught.value)
  assert str(rule) in str(caught.value)


def test_a_rule_on_the_wrong_kind_says_so():
  with pytest.raises(PlanError, match="of kind table only; change 'on'"):
    resolved(Rule("embed", on="gain", bits=8))


@pytest.mark.parametrize(
  ("error", "message", "fields"),
  [
    (PlanError, "sets nothing", {}),
    (PlanError, "sets nothing", {"override": True}),
    (FormatError, "bits must lie in 2..24", {"bits": 25}),
    (FormatError, "margin must lie in 0..16", {"margin": -1}),
    (FormatError, "frac must lie in -40..40", {"frac": 41}),
    (PlanError, "scale 'log', allowed are power-of-two", {"scale": "log"}),
    (PlanError, "on 'weight', allowed are act", {"on": "weight", "bits": 8}),
    (PlanError, "percentile must lie in", {"percentile": 0}),
    (PlanError, "goes with", {"percentile": 9, "calibration": "mse"}),
    (PlanError, "so bits means nothing", {"floating": True, "bits": 8}),
    (PlanError, "frac is the scale", {"frac": 3, "bits": 8, "scale": "free"}),
    (PlanError, "drop margin", {"on": "norm", "margin": 1.0}),
  ],
)
def test_impossible_rules(error, message, fields):
  with pytest.raises(error, match=message):
    Rule(".*", **fields)


def test_pattern_that_is_no_expression():
  with pytest.raises(PlanError, match="no regular expression"):
    Rule("layers.(0", bits=8)


@pytest.mark.parametrize(
  ("text", "rule"),
  [
    (".*:bits=8", Rule(".*", bits=8)),
    ("(?:a|b):float,override", Rule("(?:a|b)", floating=True, override=True)),
    (
      "x:on=gain,bits=8,frac=-2",
      Rule("x", on="gain", bits=8, frac=-2),
    ),
    (
      "x:percentile=99.5,margin=0.1,per=channel",
      Rule("x", percentile=99.5, margin=0.1, per="channel"),
    ),
  ],
)
def test_rules_as_text(text, rule):
  assert rules_lib.parse(text) == rule


@pytest.mark.parametrize(
  "text", ["", ".*", ":bits=8", ".*:", ".*:bits", ".*:bits=x", ".*:wide=8"]
)
def test_text_that_is_no_rule(text):
  with pytest.raises(PlanError, match="rule '"):
    rules_lib.parse(text)


# --- through `plan`


def test_rules_alone_leave_the_rest_in_float(small):
  plan = quantize.plan(small.stats, [Rule(r"mix\.v", bits=12)])
  assert plan.site("mix.v").bits == 12
  others = {p: f for p, f in plan.formats.items() if p != "mix.v"}
  assert set(others.values()) == {Float()}
  assert set(plan.norms.values()) == {None}
  assert (plan.table, plan.eps, plan.dynamic) == (None, None, True)
  assert not plan.integers


def test_per_site_overrides_of_a_preset(small):
  change = Rule("logits", bits=24, override=True)
  plan = quantize.plan(small.stats, quantize.W8A16.with_rules(change))
  base = quantize.plan(small.stats, quantize.W8A16)
  assert plan.format("logits").bits == 24
  same = {p for p in base.formats if plan.formats[p] == base.formats[p]}
  assert same == set(base.formats) - {"logits"}
  assert plan.integers
  with pytest.raises(PlanError, match="site logits: .*disagree"):
    quantize.plan(
      small.stats, quantize.W8A16.with_rules(Rule("logits", bits=24))
    )


def test_fraction_bits_and_norms_can_be_given(small):
  plan = quantize.plan(
    small.stats,
    quantize.W8A16.with_rules(
      Rule("logits", frac=5),
      Rule("norms", on="norm", frac=20, override=True),
      Rule("out_norm", on="norm", floating=True, override=True),
    ),
  )
  assert plan.format("logits") == Format(16, 5)
  assert plan.norms == {"norms": NormFormat(20, 24), "out_norm": None}
  with pytest.raises(PlanError, match="5 fraction bits, but none says how"):
    quantize.plan(small.stats, [Rule("logits", frac=5)])
  change = Rule("norms", on="norm", frac=13, override=True)
  with pytest.raises(FormatError, match="norm norms: .*even"):
    quantize.plan(small.stats, quantize.W8A16.with_rules(change))


def test_norms_are_as_fine_as_their_mean_square_allows(small):
  plan = quantize.plan(small.stats, [Rule(".*", on="norm", bits=20)])
  for path, inside in plan.norms.items():
    limit = small.stats.ranges[path + ".mean_square"]
    assert inside.bits == 20
    assert inside.frac % 2 == 0
    assert limit * 2.0**inside.frac < 2**20 <= limit * 2.0 ** (inside.frac + 2)


def test_given_fraction_bits_stand_against_align(small):
  frac = small.plan.format("mix.v").frac + 2
  change = Rule(r"mix\.cell\.h", frac=frac)
  plan = quantize.plan(small.stats, quantize.W8A16.with_rules(change))
  assert plan.format("mix.cell.h").frac == frac
  assert small.plan.format("mix.cell.h").frac == frac - 2


def test_free_scales_use_the_whole_range(small):
  rules = [Rule(".*", bits=8, scale="free")]
  plan = quantize.plan(small.stats, rules)
  for path, fmt in plan.formats.items():
    assert isinstance(fmt, Scaled), path
    (scale,) = fmt.scales
    assert scale * 127 == pytest.approx(small.stats.ranges[path]), path


def test_scales_per_channel(small):
  stats = quantize.calibrate(small.fn, channels=True)(small.params, [small.ids])
  for scale in ("free", "power-of-two"):
    rule = Rule("mix.v|embed", bits=8, per="channel", scale=scale)
    plan = quantize.plan(stats, [rule])
    run = transform.reference(small.fn, taps=True)
    _, _, taps = run(small.params, {"ids": small.ids})
    for path, values in (("mix.v", taps["mix.v"]), ("embed", None)):
      table = small.params["embed"] if values is None else values
      most = np.abs(np.asarray(table)).reshape(-1, table.shape[-1]).max(0)
      got = np.array(plan.site(path).scales)
      want = most / 127
      if scale == "power-of-two":
        want = np.exp2([math.ceil(math.log2(w)) for w in want])
      np.testing.assert_allclose(got, want, rtol=1e-6)
  with pytest.raises(PlanError, match="calibrate with channels=True"):
    quantize.plan(small.stats, [rule])
  with pytest.raises(PlanError, match="calibrated by max, found mse"):
    quantize.plan(
      stats, [Rule("mix.v", bits=8, per="channel", calibration="mse")]
    )


def test_histograms_that_were_not_kept_are_missed(small):
  for how in ("percentile", "mse"):
    rules = [Rule(r"mix\.v", bits=8, calibration=how)]
    with pytest.raises(PlanError, match=f"mix.v: .*{how}.*histograms=True"):
      quantize.plan(small.stats, rules)


def test_bits_the_chip_has_not_are_refused_where_integers_are_made(small):
  change = Rule(r"mix\.u|norms\.u", bits=20, override=True)
  plan = quantize.plan(small.stats, quantize.W8A16.with_rules(change))
  qparams = quantize.quantize_params(small.params, plan)
  with pytest.raises(FormatError, match="norms.u may reach .*give it 16 bits"):
    transform.fixed(small.fn, plan)(qparams, {"ids": small.ids})
  for path, kind in (("embed", "table"), ("norms.u.gain", "gain")):
    change = Rule(path, bits=20, override=True)
    plan = quantize.plan(small.stats, quantize.W8A16.with_rules(change))
    with pytest.raises(PlanError, match=f"a {kind} 20 bits, .* at most 16"):
      quantize.quantize_params(small.params, plan)


# --- adjust


def test_adjust_changes_the_named_sites_only(small):
  plan = quantize.adjust(small.plan, small.stats, Rule(r"mix\.v", bits=8))
  assert plan.format("mix.v").bits == 8
  # h is added to v, so it follows to the coarser point.
  assert plan.format("mix.cell.h") == Format(16, plan.format("mix.v").frac)
  changed = {p for p, f in plan.formats.items() if f != small.plan.formats[p]}
  assert changed == {"mix.v", "mix.cell.h"}
  assert plan.integers
  assert plan.name == "W8A16, adjusted"
  again = quantize.adjust(plan, small.stats, Rule("logits", margin=1.0))
  assert again.name == "W8A16, adjusted"
  assert again.format("logits").frac == small.plan.format("logits").frac - 1
  norm = quantize.adjust(plan, small.stats, Rule(".*", on="norm", frac=20))
  assert set(norm.norms.values()) == {NormFormat(20, 24)}


def test_adjust_refuses_another_calibration(small):
  other = quantize.calibrate(small.fn)(small.params, [small.ids[:1]])
  rule = Rule("logits", bits=8)
  with pytest.raises(PlanError, match="made on calibration .* these stat"):
    quantize.adjust(small.plan, other, rule)
  # Where nothing is known, nothing is refused.
  free = small.plan.replace(calibration=None)
  assert quantize.adjust(free, other, rule).format("logits").bits == 8


def test_adjust_refuses_another_model(small):
  params = small.make_params(vocab=11)
  other = quantize.calibrate(small.fn)(params, [small.ids])
  with pytest.raises(PlanError, match="are of two models"):
    quantize.adjust(small.plan, other, Rule("logits", bits=8))
