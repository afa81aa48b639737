"""Commands and flags.  Nothing heavy is imported here."""

import argparse
from typing import NoReturn

from jaxnmc._version import __version__
from jaxnmc.errors import UserError

BACKENDS = ("float", "fake_quant", "fixed", "spiking", "loihi")
# Spike codes: `jaxnmc.spike.interpreter`.
CODES = ("bitwise", "twos", "unary")
INTERPRETERS = ("float", "fake_quant", "fixed", "graph")
PRESETS = ("FP16", "PT", "W8", "A8", "A16", "W8A8", "W8A16")
ENGINES = ("functional", "stepped")
# How multiple-choice items are asked: `jaxnmc.evaluate.tasks`.
FORMS = ("plain", "question", "blank", "hellaswag")
ZOO_MODEL = "stories-mmf"
DEMO_PROMPT = "Once upon a time, there was a little"

_MODEL = (
  f"a model of the zoo ({ZOO_MODEL}) or a folder of its form, a Hugging Face"
  " folder, or a folder or npz of a training run"
)


class Parser(argparse.ArgumentParser):
  """Wrong flags are a `UserError`: one line and exit status 2."""

  def error(self, message: str) -> NoReturn:
    """Raises a `UserError` with the message."""
    raise UserError(f"{message}; see '{self.prog} --help'")


def build() -> argparse.ArgumentParser:
  """The parser of all commands."""
  parser = Parser(
    prog="jaxnmc",
    description="A language model in JAX: in float, in integers, and on the"
    " cores of a simulated Loihi 2.",
    allow_abbrev=False,
  )
  parser.add_argument("--version", action="version", version=__version__)
  commands = parser.add_subparsers(
    dest="command", metavar="COMMAND", required=True, parser_class=Parser
  )

  def add(name: str, text: str, model: bool | str = False):
    command = commands.add_parser(
      name, help=text, description=_sentence(text), allow_abbrev=False
    )
    if model:
      nargs = "?" if model == "optional" else None
      command.add_argument("model", metavar="MODEL", help=_MODEL, nargs=nargs)
    command.add_argument(
      "--json",
      metavar="FILE",
      nargs="?",
      const="-",
      help="write the result as JSON; '-' (or no FILE) is standard output",
    )
    command.add_argument(
      "--compile-cache",
      metavar="FOLDER",
      help="keep compiled programs here, so that they are compiled only once",
    )
    return command

  demo = add("demo", "a story from integers on simulated Loihi 2 cores")
  demo.add_argument("--prompt", default=DEMO_PROMPT, help="how it begins")
  _number(demo, "tokens", 128, "most tokens to write")
  _number(demo, "chips", None, "chips to place it on (default: as few as do)")
  # The placed network itself: slower, and shares no interpreter with `fixed`.
  _engine(demo, "stepped")
  _sampling(demo)

  run = add("run", "generate text and report what it cost", model=True)
  run.add_argument("--prompt", required=True, help="text to continue")
  _backend(run)
  _engine(run)
  _spikes(run)
  _number(run, "tokens", 64, "most tokens to write")
  _number(run, "chips", None, "chips to place it on (default: as few as do)")
  run.add_argument(
    "--report", metavar="FILE.html", help="write a self-contained HTML page"
  )
  run.add_argument(
    "--plots",
    metavar="DIR",
    help="write plots of the cores as PNG (backend loihi, extra plot)",
  )
  run.add_argument(
    "--trace",
    metavar="FILE.json",
    help="write the first time steps of the cores for ui.perfetto.dev"
    " (backend loihi)",
  )
  _number(run, "trace_steps", 256, "time steps in the trace")
  _calibrate(run)
  _sampling(run)

  verify = add(
    "verify", "compare a checkpoint with recorded outputs", model=False
  )
  verify.add_argument("model", metavar="DIR", help=_MODEL)
  verify.add_argument(
    "reference", metavar="REFERENCE.npz", help="recorded ids and outputs"
  )

  add("info", "parameters, memory and operations of a model", model=True)

  evaluate = add(
    "evaluate", "perplexity of a text, or accuracy on tasks, JSON", model=True
  )
  _evaluating(evaluate)
  _backend(evaluate)
  _engine(evaluate)
  _spikes(evaluate)
  _number(evaluate, "chips", None, "chips to place it on (backend loihi)")
  _calibrate(evaluate)

  place = add(
    "place", "place a model on chips, or say why not", model="optional"
  )
  _placing(place)
  _calibrate(place)

  _planning(
    add("plan", "make, show and compare plans: a number format for every site")
  )

  _widths(
    add(
      "bits",
      "which site needs its bits; the cheapest plan within a loss",
      model=True,
    )
  )

  doctor = add(
    "doctor",
    "this installation; with MODEL: dead and saturated sites",
    model="optional",
  )
  doctor.add_argument("--text", metavar="FILE", help="text to run MODEL on")
  _calibrate(doctor)

  diverge = add(
    "diverge", "the first site at which two interpreters differ", model=True
  )
  diverge.add_argument(
    "--between",
    nargs=2,
    choices=INTERPRETERS,
    default=("fixed", "graph"),
    metavar=("A", "B"),
    help=f"two of {', '.join(INTERPRETERS)}; graph is what loihi runs"
    " (default: fixed graph)",
  )
  diverge.add_argument("--text", metavar="FILE", help="text to run MODEL on")
  _number(diverge, "tokens", 64, "most ids of it")
  diverge.add_argument(
    "--codes",
    type=float,
    default=0.0,
    metavar="X",
    help="values may lie so many codes of a site apart (default: 0)",
  )
  diverge.add_argument(
    "--float64", action="store_true", help="floats in float64, not float32"
  )
  _calibrate(diverge)

  bench = add("bench", "speed against the memory limit of this machine")
  _number(bench, "repeats", 5, "measurements of each case, at least 5")
  bench.add_argument("--quick", action="store_true", help="small cases only")
  bench.add_argument(
    "--shape",
    choices=("370M", "tiny"),
    help="also a model of this shape with random weights (370M: minutes)",
  )

  add("build-kernels", "compile the native kernels now, not on first use")
  return parser


def _planning(plan) -> None:
  """Flags of `plan`."""
  plan.add_argument("action", choices=("make", "show", "diff"))
  plan.add_argument(
    "what",
    nargs="+",
    metavar="MODEL|PLAN",
    help="make: a MODEL; show: a plan file or a MODEL that brings a plan;"
    " diff: two of those",
  )
  which = plan.add_mutually_exclusive_group()
  which.add_argument(
    "--preset",
    choices=PRESETS,
    metavar="NAME",
    help=f"make: {', '.join(PRESETS)}: bits of gains (W) and activations (A);"
    " W8A8 and W8A16 are integers everywhere (default: W8A16, or nothing but"
    " --rule)",
  )
  which.add_argument(
    "--row",
    choices=PRESETS,
    metavar="NAME",
    help="make: the same as a row of the paper's Table 1, in float",
  )
  plan.add_argument(
    "--eps",
    type=float,
    choices=(1e-6, 1e-3),
    help="make: of --row, for every norm (default: 1e-06)",
  )
  plan.add_argument(
    "--rule",
    action="append",
    default=[],
    metavar="RULE",
    help="make: PATTERN:field=value,... after the preset, e.g."
    " 'layers.0.*:bits=8,override'; may be given several times",
  )
  plan.add_argument("--out", metavar="FILE", help="make: write the plan there")
  plan.add_argument(
    "--calibrate",
    metavar="FILE",
    help="make: text to choose ranges on (default: a few built-in sentences)",
  )


def _widths(bits) -> None:
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
  bits.add_argument(
    "--calibrate",
    metavar="FILE",
    help="text to choose ranges on (default: a few built-in sentences)",
  )
  _number(bits, "documents", 16, "first documents of the text")
  _number(bits, "max_ids", 256, "ids of a piece; longer documents are cut")
  bits.add_argument(
    "--out", metavar="FILE", help="with --loss: write the plan there"
  )
  bits.add_argument(
    "--plots", metavar="DIR", help="write plots as PNG (extra plot)"
  )


def _evaluating(evaluate) -> None:
  """Flags of `evaluate`."""
  what = evaluate.add_mutually_exclusive_group(required=True)
  what.add_argument(
    "--text",
    metavar="FILE",
    help="UTF-8 text, plain or .gz; lines '<|endoftext|>' part documents",
  )
  what.add_argument(
    "--task",
    metavar="FILE",
    nargs="+",
    help="multiple-choice tasks: JSON lines with id, question, choices, label",
  )
  # None: given to neither kind; a flag of the other kind is refused.
  number = lambda name, text: _number(evaluate, name, None, text)
  number("max_ids", "--text: score only the first ids of a document")
  _flag(
    evaluate,
    "prefix_bytes",
    metavar="FILE",
    help="--text: JSON list: score only so many bytes of each document",
  )
  number("max_documents", "--text: score only the first documents")
  number("window", "--text: most ids that a prediction sees (default: all)")
  number("stride", "--text: ids between windows (default: half a window)")
  number("limit", "--task: only the first items of each file")
  evaluate.add_argument(
    "--form",
    choices=FORMS,
    help="--task: how items are asked (default: by the name of the file)",
  )
  evaluate.add_argument(
    "--journal",
    metavar="FOLDER",
    help="keep results there; an interrupted call goes on from them",
  )
  _number(evaluate, "batch", 16, "texts side by side")


def _placing(place) -> None:
  """Flags of `place`."""
  _number(place, "chips", None, "chips (default: as few as do)")
  place.add_argument(
    "--shape",
    type=_sizes,
    metavar="LAYERS,D,I,VOCAB",
    help="a MatMul-free model of these sizes in place of MODEL: no weights",
  )
  place.add_argument(
    "--norm",
    choices=("double", "fused", "gate"),
    default="fused",
    help="of --shape: norms in a row have a root each, one, or one with the"
    " gate's (default: fused)",
  )
  place.add_argument(
    "--preset",
    choices=("abreu2025",),
    help="as a paper placed it: MODEL, or without one the paper's",
  )
  place.add_argument(
    "--objective",
    choices=("time", "memory"),
    default="time",
    help="a short time step, or the fewest cores and chips (default: time)",
  )
  place.add_argument(
    "--head",
    choices=("auto", "host", "chip"),
    default="auto",
    help="final norm and output matrix (default: auto)",
  )
  _number(place, "layer_chips", None, "exactly so many chips for each layer")
  _number(place, "head_chips", None, "exactly so many chips for the head")
  place.add_argument("--populations", action="store_true", help="who is there")
  place.add_argument(
    "--schedule", action="store_true", help="which population fires when"
  )
  place.add_argument(
    "--plot",
    metavar="FILE.png",
    help="draw the schedule of both modes (extra plot)",
  )
  place.add_argument(
    "--systems",
    action="store_true",
    help="only compare the named systems with what is published about them",
  )


def _sizes(text: str) -> tuple[int, ...]:
  try:
    found = tuple(int(part) for part in text.split(","))
  except ValueError:
    found = ()
  if len(found) != 4 or min(found) < 1:
    raise argparse.ArgumentTypeError(
      f"found {text!r}, allowed are four positive integers: layers, width, GLU"
      " width, tokens"
    )
  return found


def _sentence(text: str) -> str:
  return text[0].upper() + text[1:] + "."


def _positive(text: str) -> int:
  try:
    value = int(text)
  except ValueError:
    value = 0
  if value < 1:
    raise argparse.ArgumentTypeError(
      f"found {text!r}, allowed is a positive integer"
    )
  return value


def _flag(command, name: str, **options) -> None:
  """Adds `--some_name` and, for those who type it, `--some-name`."""
  names = dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"))
  command.add_argument(*names, **options)


def _number(command, name: str, default: int | None, text: str) -> None:
  shown = "" if default is None else f" (default: {default})"
  _flag(
    command,
    name,
    type=_positive,
    default=default,
    metavar="N",
    help=text + shown,
  )


def _backend(command) -> None:
  command.add_argument(
    "--backend",
    choices=BACKENDS,
    default="float",
    help="how it computes (default: float)",
  )


def _engine(command, default: str | None = None) -> None:
  command.add_argument(
    "--engine",
    choices=ENGINES,
    default=default,
    help="of backend loihi: whole prompts at a time, or the placed network"
    f" step by step (default: {default or ENGINES[0]})",
  )


def _spikes(command) -> None:
  _number(
    command,
    "ticks",
    None,
    "of backend spiking: ticks of every value (default: as many as it needs)",
  )
  command.add_argument(
    "--code",
    choices=CODES,
    help="of backend spiking: bits of the magnitude with its sign, two's"
    " complement, or as many spikes as the number (default: bitwise)",
  )


def _calibrate(command) -> None:
  command.add_argument(
    "--calibrate",
    metavar="FILE",
    help="text to choose number formats on, also in place of a plan that the"
    " model brings (default: its plan, or a few built-in sentences)",
  )
  command.add_argument(
    "--plan",
    metavar="FILE",
    help="number formats that 'jaxnmc plan make' wrote, in place of a plan that"
    " the model brings",
  )


def _sampling(command) -> None:
  _flag(command, "seed", type=int, default=0, help="of sampling (default: 0)")
  _flag(
    command,
    "temperature",
    type=float,
    default=0.0,
    help="0 is greedy (default); integer backends sample in integers",
  )
  _flag(
    command,
    "top_k",
    type=int,
    default=0,
    metavar="N",
    help="sample from the N largest logits only",
  )
  _flag(
    command,
    "top_p",
    type=float,
    default=1.0,
    metavar="P",
    help="sample from the fewest tokens with this share of probability",
  )
  _flag(
    command,
    "float_sampler",
    action="store_true",
    help="sample with a float temperature on the host (not exact)",
  )
