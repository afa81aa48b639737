"""Flags of `tune`.  Nothing heavy is imported here."""

import argparse
import math

from jaxnmc.cli import flags

_SUFFIXES = {"k": 1e3, "M": 1e6, "G": 1e9}
MULTIPLIERS = (0.5, 0.7, 1.0, 1.4, 2.0)


def tuning(command) -> None:
  """Adds the flags of `tune`.

  Args:
    command: its parser.
  """
  command.add_argument(
    "--text", metavar="FILE", required=True, help="text to count spikes on"
  )
  flags.number(command, "ids", 2048, "so many ids of it, from the beginning")
  command.add_argument(
    "--budget",
    type=amount,
    metavar="N",
    help="most spikes per inference, as 2M or 500k (needed without --grid)",
  )
  command.add_argument(
    "--over",
    choices=("worst", "mean"),
    default="worst",
    help="what the budget bounds: every text, or their mean (default: worst)",
  )
  command.add_argument(
    "--reference",
    metavar="MODEL",
    help="model to stay near (default: MODEL itself, as it is)",
  )
  flags.flag(
    command,
    "ticks",
    type=_numbers(int),
    metavar="T,T,...",
    help="of a MODEL that does not spike: it is converted with so many"
    " (default: 4; several with --grid)",
  )
  command.add_argument(
    "--out",
    metavar="FOLDER",
    help="the tuned model, for other commands: a new or an empty folder",
  )
  command.add_argument(
    "--grid",
    action="store_true",
    help="measure every multiplier with every number of ticks, search nothing",
  )
  command.add_argument(
    "--multipliers",
    type=_numbers(float),
    metavar="M,M,...",
    help="of --grid (default: 0.5,0.7,1,1.4,2)",
  )
  flags.number(command, "passes", 3, "over all sites, one by one")
  command.add_argument(
    "--plots", metavar="DIR", help="histogram of spikes as PNG (extra plot)"
  )


def amount(text: str) -> float:
  """A number with a suffix: 2M, 500k, 81920."""
  factor = _SUFFIXES.get(text[-1:], 1.0)
  try:
    value = float(text[:-1] if text[-1:] in _SUFFIXES else text) * factor
  except ValueError:
    value = math.nan
  if not 0 <= value < math.inf:
    raise argparse.ArgumentTypeError(
      f"found {text!r}, allowed is a number of 0 or more, with k, M or G behind"
    )
  return value


def _numbers(kind):
  """A list of numbers above 0 with commas between."""

  def parse(text: str) -> tuple:
    try:
      found = tuple(kind(part) for part in text.split(","))
    except ValueError:
      found = ()
    if not found or not all(0 < x < math.inf for x in found):
      raise argparse.ArgumentTypeError(
        f"found {text!r}, allowed are"
        f" {'whole ' if kind is int else ''}numbers above 0 with commas between"
      )
    return found

  return parse
