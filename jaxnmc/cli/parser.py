"""Commands and flags.  Nothing heavy is imported here."""

import argparse
from typing import NoReturn

from jaxnmc._version import __version__
from jaxnmc.cli import (
  flags,
  prune_flags,
  spikes_flags,
  stats_flags,
  tune_flags,
)
from jaxnmc.cli import format_flags as formats
from jaxnmc.errors import UserError

INTERPRETERS = ("float", "fake_quant", "fixed", "graph")
# How multiple-choice items are asked: `jaxnmc.evaluate.tasks`.
FORMS = ("plain", "question", "blank", "hellaswag")
DEMO_PROMPT = "Once upon a time, there was a little"


class Parser(argparse.ArgumentParser):
  """Wrong flags are a `UserError`: one line and exit status 2."""

  def error(self, message: str) -> NoReturn:
    """Raises a `UserError` with the message."""
    raise UserError(f"{message}; see '{self.prog} --help'")

  def parse_known_args(self, args=None, namespace=None):
    """As the base class; a command refuses what it does not know itself."""
    found, unknown = super().parse_known_args(args, namespace)
    if unknown:
      self.error(f"unrecognized arguments: {' '.join(unknown)}")
    return found, unknown


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
      name, help=text, description=flags.sentence(text), allow_abbrev=False
    )
    flags.common(command, model)
    return command

  demo = add("demo", "a story from integers on simulated Loihi 2 cores")
  demo.add_argument("--prompt", default=DEMO_PROMPT, help="how it begins")
  flags.number(demo, "tokens", 128, "most tokens to write")
  flags.number(
    demo, "chips", None, "chips to place it on (default: as few as do)"
  )
  # The placed network itself: slower, and shares no interpreter with `fixed`.
  flags.engine(demo, "stepped")
  flags.sampling(demo)

  run = add("run", "generate text and report what it cost", model=True)
  run.add_argument("--prompt", required=True, help="text to continue")
  flags.backend(run)
  flags.engine(run)
  flags.spikes(run)
  flags.number(run, "tokens", 64, "most tokens to write")
  flags.number(
    run, "chips", None, "chips to place it on (default: as few as do)"
  )
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
  flags.number(run, "trace_steps", 256, "time steps in the trace")
  stats_flags.limits(run)
  flags.calibrate(run)
  flags.sampling(run)

  verify = add(
    "verify", "compare a checkpoint with recorded outputs", model=False
  )
  verify.add_argument("model", metavar="DIR", help=flags.MODEL)
  verify.add_argument(
    "reference", metavar="REFERENCE.npz", help="recorded ids and outputs"
  )

  add("info", "parameters, memory and operations of a model", model=True)

  evaluate = add(
    "evaluate", "perplexity of a text, or accuracy on tasks, JSON", model=True
  )
  _evaluating(evaluate)
  flags.backend(evaluate)
  flags.engine(evaluate)
  flags.spikes(evaluate)
  flags.number(evaluate, "chips", None, "chips to place it on (backend loihi)")
  flags.calibrate(evaluate)

  place = add(
    "place", "place a model on chips, or say why not", model="optional"
  )
  _placing(place)
  flags.calibrate(place)

  planning = commands.add_parser(
    "plan",
    help=formats.PLAN,
    description=flags.sentence(formats.PLAN),
    allow_abbrev=False,
  )
  formats.planning(planning, Parser)

  formats.widths(
    add(
      "bits",
      "which site needs its bits; the cheapest plan within a loss",
      model=True,
    )
  )

  prune_flags.pruning(
    add(
      "prune",
      "a transformer without its weakest heads, units and weights",
      model=True,
    )
  )

  spikes_flags.converting(
    add(
      "spikes", "a transformer as a spiking one, without training", model=True
    )
  )

  _cutting(
    add("vocab", "a model of fewer tokens, with all bytes kept", model=True)
  )
  tune_flags.tuning(
    add("tune", "thresholds of a spiking model under a budget", model=True)
  )

  doctor = add(
    "doctor",
    "this installation; with MODEL: dead and saturated sites",
    model="optional",
  )
  doctor.add_argument("--text", metavar="FILE", help="text to run MODEL on")
  flags.calibrate(doctor)

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
  flags.number(diverge, "tokens", 64, "most ids of it")
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
  flags.calibrate(diverge)

  bench = add("bench", "speed against the memory limit of this machine")
  flags.number(bench, "repeats", 5, "measurements of each case, at least 5")
  bench.add_argument("--quick", action="store_true", help="small cases only")
  bench.add_argument(
    "--shape",
    choices=("370M", "tiny"),
    help="also a model of this shape with random weights (370M: minutes)",
  )

  add("build-kernels", "compile the native kernels now, not on first use")
  return parser


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
  number = lambda name, text: flags.number(evaluate, name, None, text)
  number("max_ids", "--text: score only the first ids of a document")
  flags.flag(
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
  flags.number(evaluate, "batch", 16, "texts side by side")


def _cutting(vocab) -> None:
  """Flags of `vocab`."""
  vocab.add_argument(
    "--text", metavar="FILE", required=True, help="text to count tokens in"
  )
  flags.number(vocab, "size", 8192, "tokens that stay")
  vocab.add_argument(
    "--out",
    metavar="FOLDER",
    required=True,
    help="the smaller model, for other commands: a new or an empty folder",
  )
  vocab.add_argument(
    "--score",
    metavar="FILE",
    help="text for bits per byte before and after (default: that of --text)",
  )
  flags.number(vocab, "documents", None, "score only its first documents")
  flags.number(vocab, "batch", 16, "texts side by side")


def _placing(place) -> None:
  """Flags of `place`."""
  flags.number(place, "chips", None, "chips (default: as few as do)")
  flags.number(
    place, "cores", None, "at most so many cores, as few as do; else refused"
  )
  place.add_argument(
    "--compare",
    action="store_true",
    help="also hold it against Loihi 1, TrueNorth and Akida, on paper",
  )
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
  flags.number(
    place, "layer_chips", None, "exactly so many chips for each layer"
  )
  flags.number(place, "head_chips", None, "exactly so many chips for the head")
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
