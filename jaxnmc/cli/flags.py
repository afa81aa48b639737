"""Flags that several commands share.  Nothing heavy is imported here."""

import argparse

BACKENDS = ("float", "fake_quant", "fixed", "spiking", "loihi")
# Spike codes: `jaxnmc.spike.interpreter`.
CODES = ("bitwise", "twos", "unary")
ENGINES = ("functional", "stepped")
ZOO_MODEL = "stories-mmf"

MODEL = (
  f"a model of the zoo ({ZOO_MODEL}) or a folder of its form, a Hugging Face"
  " folder, or a folder or npz of a training run"
)


def common(command, model: bool | str = False) -> None:
  """What every command has: `--json`, `--compile-cache`, and MODEL.

  Args:
    command: its parser.
    model: whether it takes a MODEL; "optional" if it may go without.
  """
  if model:
    nargs = "?" if model == "optional" else None
    command.add_argument("model", metavar="MODEL", help=MODEL, nargs=nargs)
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


def positive(text: str) -> int:
  """The positive integer that a text stands for."""
  try:
    value = int(text)
  except ValueError:
    value = 0
  if value < 1:
    raise argparse.ArgumentTypeError(
      f"found {text!r}, allowed is a positive integer"
    )
  return value


def flag(command, name: str, **options) -> None:
  """Adds `--some_name` and, for those who type it, `--some-name`."""
  names = dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"))
  command.add_argument(*names, **options)


def number(command, name: str, default: int | None, text: str) -> None:
  """Adds a flag that takes a positive integer."""
  shown = "" if default is None else f" (default: {default})"
  flag(
    command,
    name,
    type=positive,
    default=default,
    metavar="N",
    help=text + shown,
  )


def backend(command) -> None:
  """Adds `--backend`."""
  command.add_argument(
    "--backend",
    choices=BACKENDS,
    default="float",
    help="how it computes (default: float)",
  )


def engine(command, default: str | None = None) -> None:
  """Adds `--engine`."""
  command.add_argument(
    "--engine",
    choices=ENGINES,
    default=default,
    help="of backend loihi: whole prompts at a time, or the placed network"
    f" step by step (default: {default or ENGINES[0]})",
  )


def spikes(command) -> None:
  """Adds the flags of backend spiking."""
  number(
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


def calibrate(command) -> None:
  """Adds `--calibrate` and `--plan`."""
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


def sampling(command) -> None:
  """Adds the flags of sampling."""
  flag(command, "seed", type=int, default=0, help="of sampling (default: 0)")
  flag(
    command,
    "temperature",
    type=float,
    default=0.0,
    help="0 is greedy (default); integer backends sample in integers",
  )
  flag(
    command,
    "top_k",
    type=int,
    default=0,
    metavar="N",
    help="sample from the N largest logits only",
  )
  flag(
    command,
    "top_p",
    type=float,
    default=1.0,
    metavar="P",
    help="sample from the fewest tokens with this share of probability",
  )
  flag(
    command,
    "float_sampler",
    action="store_true",
    help="sample with a float temperature on the host (not exact)",
  )


def sentence(text: str) -> str:
  """A phrase with a capital and a full stop."""
  return text[0].upper() + text[1:] + "."
