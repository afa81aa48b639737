"""Flags of `plan` and `bits`, and the rule sets they name.

A rule set begins with `--preset`, `--row`, `--rules` or `--plan`; `--rule` and
`--eps` belong to the set before them, and `--rule` begins one where there is
none.  Nothing heavy is imported here.
"""

import argparse
import dataclasses

from jaxnmc.cli import flags

PLAN = "make, show and compare plans, and tell what they cost"
PRESETS = ("FP16", "PT", "W8", "A8", "A16", "W8A8", "W8A16")
_DOCUMENTS, _MAX_IDS = 16, 256


@dataclasses.dataclass(frozen=True)
class RuleSet:
  """What number formats a user asks for.

  Attributes:
    kind: "preset", "row", "rules" (a file), "plan" (a file, or a MODEL that
      brings one), or None: `rules` alone.
    value: name or file; "" for None.
    eps: of a row, or None for its own.
    rules: further rules, as typed.
  """

  kind: str | None
  value: str = ""
  eps: float | None = None
  rules: tuple[str, ...] = ()

  def __str__(self) -> str:
    said = [f"--{self.kind} {self.value}"] if self.kind else []
    said += [f"--rule {rule}" for rule in self.rules]
    return " ".join(said)


class _Begin(argparse.Action):
  """Begins a rule set."""

  def __call__(self, parser, namespace, values, option_string=None):
    kind = self.option_strings[0].removeprefix("--")
    namespace.sets = (*namespace.sets, RuleSet(kind, str(values)))


class _Rule(argparse.Action):
  """Adds a rule to the set before it."""

  def __call__(self, parser, namespace, values, option_string=None):
    before = namespace.sets or (RuleSet(None),)
    last = before[-1]
    if last.kind == "plan":
      parser.error(
        f"--rule {values}: --plan {last.value} is complete; rules come after"
        " --preset, --row or --rules, or alone"
      )
    changed = dataclasses.replace(last, rules=(*last.rules, str(values)))
    namespace.sets = (*before[:-1], changed)


class _Eps(argparse.Action):
  """Says the eps of the row before it."""

  def __call__(self, parser, namespace, values, option_string=None):
    if not namespace.sets or namespace.sets[-1].kind != "row":
      parser.error("--eps goes with --row only; name the row before it")
    last = dataclasses.replace(namespace.sets[-1], eps=values)
    namespace.sets = (*namespace.sets[:-1], last)


def planning(plan, parser_class) -> None:
  """Actions of `plan`.

  Args:
    plan: its parser.
    parser_class: of the actions.
  """
  actions = plan.add_subparsers(
    dest="action", metavar="ACTION", required=True, parser_class=parser_class
  )

  def add(name: str, text: str, model: bool = False):
    action = actions.add_parser(
      name, help=text, description=flags.sentence(text), allow_abbrev=False
    )
    flags.common(action, model)
    return action

  make = add("make", "make a plan: a number format for every site", model=True)
  _sets(make, "default: W8A16")
  _ranges(make)
  make.add_argument("--out", metavar="FILE", help="write the plan there")

  cost = add("cost", "what plans cost a model on a text", model=True)
  cost.add_argument(
    "--text",
    required=True,
    metavar="FILE",
    help="text that every plan is measured on, beside the model in float",
  )
  _sets(cost, "may be given several times; default: W8A16 and W8A8")
  cost.add_argument(
    "--plan",
    action=_Begin,
    dest="sets",
    default=(),
    metavar="PLAN",
    help="a plan file, or a MODEL that brings a plan",
  )
  _ranges(cost)
  _pieces(cost)
  flags.number(cost, "batch", 16, "texts side by side")

  plan_help = "a plan file, or a MODEL that brings a plan"
  show = add("show", "show a plan as a table")
  show.add_argument("plan", metavar="PLAN", help=plan_help)
  diff = add("diff", "what differs between two plans; exit status 1 if any")
  diff.add_argument("plans", nargs=2, metavar="PLAN", help=plan_help)


def _sets(command, default: str) -> None:
  """Flags that name rule sets."""
  named = ", ".join(PRESETS)
  for name, options in (
    (
      "preset",
      {
        "choices": PRESETS,
        "metavar": "NAME",
        "help": f"{named}: bits of gains (W) and activations (A); W8A8 and"
        f" W8A16 are integers everywhere ({default})",
      },
    ),
    (
      "row",
      {
        "choices": PRESETS,
        "metavar": "NAME",
        "help": "the same as a row of the paper's Table 1, in float",
      },
    ),
    (
      "rules",
      {
        "metavar": "FILE",
        "help": "rules of a file, one a line; its first line may be 'preset"
        " NAME', else what they do not say is float",
      },
    ),
  ):
    command.add_argument(
      f"--{name}", action=_Begin, dest="sets", default=(), **options
    )
  command.add_argument(
    "--rule",
    action=_Rule,
    dest="sets",
    default=(),
    metavar="RULE",
    help="PATTERN:field=value,... added to the one before it, e.g."
    " 'layers.0.*:bits=8,override'; may be given several times; alone, what"
    " rules do not say is float",
  )
  command.add_argument(
    "--eps",
    action=_Eps,
    dest="sets",
    default=(),
    type=float,
    choices=(1e-6, 1e-3),
    help="of the --row before it, for every norm (default: 1e-06)",
  )


def _ranges(command) -> None:
  """The text that ranges are chosen on."""
  command.add_argument(
    "--calibrate",
    metavar="FILE",
    help="text to choose ranges on (default: a few built-in sentences)",
  )


def _pieces(command) -> None:
  """Which part of a text is measured."""
  flags.number(command, "documents", _DOCUMENTS, "first documents of the text")
  flags.number(
    command, "max_ids", _MAX_IDS, "ids of a piece; longer documents are cut"
  )


def widths(bits) -> None:
  """Flags of `bits`."""
  bits.add_argument(
    "--text",
    required=True,
    metavar="FILE",
    help="text that the cost of fewer bits is measured on",
  )
  bits.add_argument(
    "--loss",
    type=float,
    metavar="PERCENT",
    help="search for the plan with the least energy on the chip whose"
    " perplexity grows by at most so much (default: only measure each site)",
  )
  bits.add_argument(
    "--bits",
    type=int,
    nargs="+",
    metavar="N",
    help="widths to try at each site (default: 8; with --loss 4 5 6 8 10)",
  )
  bits.add_argument(
    "--sites",
    metavar="PATTERN",
    help="regular expression over whole paths of sites (default: all of more"
    " bits; with --loss all that cross a synapse)",
  )
  bits.add_argument(
    "--preset",
    choices=("W8A16", "W8A8"),
    default="W8A16",
    metavar="NAME",
    help="plan to start from, W8A16 or W8A8 (default: W8A16)",
  )
  _ranges(bits)
  _pieces(bits)
  bits.add_argument(
    "--out", metavar="FILE", help="with --loss: write the plan there"
  )
  bits.add_argument(
    "--plots", metavar="DIR", help="write plots as PNG (extra plot)"
  )
