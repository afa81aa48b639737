"""`jaxnmc plan`, and commands under a plan of a file."""

import json

import pytest

import jaxnmc
from jaxnmc.quantize import Plan


@pytest.fixture
def made(run, folders, tmp_path):
  """Makes a plan of the tiny model with flags: its file."""

  def make(name, *flags):
    path = tmp_path / name
    status, _, err = run("plan", "make", folders["bare"], *flags, "--out", path)
    assert status == 0, err
    return path

  return make


@pytest.fixture
def text(tmp_path):
  path = tmp_path / "text.txt"
  path.write_text("Once there was a cat.\n")
  return path


def test_make_writes_what_show_shows(run, made, as_json):
  path = made("p.json")
  plan = Plan.load(path)
  assert plan.name == "W8A16"
  assert plan.integers
  shown = as_json("plan", "show", path)
  assert shown["fingerprint"] == plan.fingerprint
  assert shown["calibration"] == plan.calibration
  sites = {row["site"]: row for row in shown["sites"]}
  assert sites["head.out"]["format"] == str(plan.format("head.out"))
  assert sites["layers.0.mlp.norm.mean_square"]["format"] == "u24.12"
  status, out, _ = run("plan", "show", path)
  assert status == 0
  assert "head.out" in out
  assert max(len(line) for line in out.splitlines()) <= 80


def test_rules_and_rows(made, text):
  path = made(
    "r.json",
    *("--calibrate", text),
    *("--rule", r"layers\.0\.attn\..*:bits=8,on=activation,calibration=mse"),
    *("--rule", r".*gain:bits=6,per=channel"),
  )
  plan = Plan.load(path)
  assert not plan.integers
  assert plan.format("layers.0.attn.u").bits == 8
  assert len(plan.site("layers.0.attn.norm.gain").scales) == 32
  assert str(plan.site("head.out")) == "float"
  plan = Plan.load(made("w.json", "--row", "W8A8", "--eps", "1e-3"))
  assert (plan.name, plan.eps, plan.dynamic) == ("W8A8 eps 1e-3", 1e-3, True)


def test_rules_of_a_file_are_those_typed(made, tmp_path):
  rules = tmp_path / "mixed.txt"
  change = r"layers\.\d+\.mlp\..*:on=activation,bits=8,override"
  rules.write_text(f"# eight bits in the MLP\npreset W8A16\n\n{change}\n")
  one = Plan.load(made("one.json", "--rules", rules))
  two = made("two.json", "--preset", "W8A16", "--rule", change)
  assert one.name == "mixed"
  assert one.integers
  assert one.formats == Plan.load(two).formats
  assert one.format("layers.0.mlp.glu").bits == 8
  assert one.format("layers.0.attn.u").bits == 16


def test_diff(run, made, folders):
  first = made("a.json")
  change = r"head\.out:bits=24,override"
  second = made("b.json", "--preset", "W8A16", "--rule", change)
  status, out, _ = run("plan", "diff", first, second)
  assert status == 1
  assert "head.out" in out
  assert "s24" in out
  path = first.parent / "d.json"
  assert run("plan", "diff", first, first, "--json", path)[0] == 0
  assert json.loads(path.read_text()) == {"equal": True, "changes": []}
  # A model's own plan has a name, too.
  status, out, _ = run("plan", "diff", folders["tiny"], first)
  assert status == 1
  assert "calibration" in out


def test_commands_take_a_plan_file(run, refused, made, folders, text):
  mixed = made("m.json", "--row", "A16")
  flags = ("evaluate", folders["bare"], "--text", text, "--plan", mixed)
  status, out, err = run(*flags, "--backend", "fake_quant")
  assert status == 0, err
  data = json.loads(out)
  assert data["plan_sha256"] == Plan.load(mixed).fingerprint
  line = refused(*flags, "--backend", "fixed")
  assert "quantize_params takes integers at every site" in line
  assert "leaves embed in float" in line
  whole = made("i.json")
  flags = ("evaluate", folders["tiny"], "--text", text, "--backend", "fixed")
  own, other = (
    json.loads(run(*flags, *more)[1]) for more in ((), ("--plan", whole))
  )
  assert own["plan_sha256"] == jaxnmc.load(folders["tiny"]).plan.fingerprint
  assert other["plan_sha256"] == Plan.load(whole).fingerprint
  assert other["plan_sha256"] != own["plan_sha256"]


@pytest.mark.parametrize(
  ("argv", "text"),
  [
    (("show",), "required: PLAN"),
    (("show", "a", "b"), "unrecognized arguments: b; see 'jaxnmc plan show"),
    (("diff", "a"), "required: PLAN"),
    (("show", "a", "--row", "W8"), "unrecognized arguments: --row W8"),
    (("make", "a", "--eps", "1e-3"), "--eps goes with --row only"),
    (("make", "a", "--preset", "W8", "--eps", "1e-3"), "--row only"),
    (("make", "a", "--eps", "2"), "invalid choice"),
    (
      ("make", "a", "--row", "W8", "--preset", "W8"),
      "makes one plan, found 2: --row W8; --preset W8 (--rule comes after",
    ),
    (("make", "a", "--rule", ".*:bits=8", "--preset", "W8"), "found 2: --rule"),
    (("make", "a", "--out", "/no/such/p"), "does not exist"),
    (("make", "a", "--rule", "x"), "rule 'x': expected PATTERN"),
    (("make", "a", "--rules", "/no/such/r"), "/no/such/r: cannot be read"),
  ],
)
def test_flags_that_do_not_go_together(refused, argv, text):
  assert text in refused("plan", *argv)


def test_plans_that_cannot_be_used(refused, made, folders, tmp_path, text):
  assert "brings no plan" in refused("plan", "show", folders["bare"])
  nothing = ("plan", "make", folders["bare"], "--rule", "layer.0.*:bits=8")
  line = refused(*nothing)
  assert "matches nothing" in line
  assert "layers.0." in line
  twice = ("--preset", "W8A16", "--rule", "head.out:bits=8")
  line = refused("plan", "make", folders["bare"], *twice)
  assert "disagree about bits (16 and 8)" in line
  bad = tmp_path / "bad.json"
  bad.write_text('{"version": 9}')
  assert "plan version 9" in refused("plan", "show", bad)
  evaluate = ("evaluate", folders["bare"], "--text", text)
  both = ("--plan", bad, "--calibrate", text, "--backend", "fixed")
  assert "exclude each other" in refused(*evaluate, *both)
  path = made("p.json")
  data = json.loads(path.read_text())
  data["roles"]["embed.weight"][2] = [9, 9]
  path.write_text(json.dumps(data))
  line = refused(*evaluate, "--plan", path, "--backend", "fake_quant")
  assert "parameter embed.weight has shape [259, 32]" in line
