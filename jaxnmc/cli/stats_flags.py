"""Flags of `run` about figures and their limits.  Nothing heavy is imported."""

import argparse
import math

from jaxnmc.cli import flags
from jaxnmc.cli.tune_flags import amount

NAMES = ("w", "ram_bytes", "ms", "uj", "spikes")


def limits(command) -> None:
  """Adds `--stats`, `--tick-hz` and `--limit`.

  Args:
    command: its parser.
  """
  command.add_argument(
    "--stats",
    action="store_true",
    help="spike_count, energy_consumed (uJ), runtime_ms (backend loihi)",
  )
  flags.flag(
    command,
    "tick_hz",
    type=_rate,
    metavar="HZ",
    help="of --stats: time steps per second (default: free-running)",
  )
  command.add_argument(
    "--limit",
    action="append",
    type=_limit,
    metavar="NAME=N",
    help=f"of --stats: a gate, NAME one of {', '.join(NAMES)}; status 1 if one"
    " is not passed",
  )


def _rate(text: str) -> float:
  try:
    value = float(text)
  except ValueError:
    value = 0.0
  if not 0 < value < math.inf:
    raise argparse.ArgumentTypeError(
      f"found {text!r}, allowed is a number above 0"
    )
  return value


def _limit(text: str) -> tuple[str, float]:
  """("ms", 50.0) of "ms=50"."""
  name, _, value = text.partition("=")
  if name not in NAMES or not value:
    raise argparse.ArgumentTypeError(
      f"found {text!r}, allowed is NAME=N with NAME one of {', '.join(NAMES)}"
    )
  found = amount(value)
  if not found:
    raise argparse.ArgumentTypeError(
      f"found {text!r}, allowed is a number above 0"
    )
  return name, found
