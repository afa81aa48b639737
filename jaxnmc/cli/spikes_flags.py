"""Flags of `spikes`.  Nothing heavy is imported here."""

import argparse

from jaxnmc.cli import flags

NEURONS = ("lif", "if")
POSITIONS = ("rotary", "learned", "none")
# Of attention, and of feed-forward blocks: no effect where these stay.
ATTENTION = ("neuron", "signed", "windows", "positions", "share")


def converting(command) -> None:
  """Adds the flags of `spikes`.

  Args:
    command: its parser.
  """
  command.add_argument(
    "--text", metavar="FILE", required=True, help="text to choose thresholds on"
  )
  flags.number(command, "ids", 4096, "so many ids of it, from the beginning")
  command.add_argument(
    "--out",
    metavar="FOLDER",
    required=True,
    help="the spiking model, for other commands: a new or an empty folder",
  )
  attention = command.add_mutually_exclusive_group()
  flags.number(attention, "ticks", None, "of attention (default: 4)")
  flags.flag(
    attention,
    "keep_attention",
    action="store_true",
    help="attention stays softmax",
  )
  command.add_argument(
    "--neuron", choices=NEURONS, help="of attention (default: lif)"
  )
  command.add_argument(
    "--signed",
    action="store_true",
    default=None,
    help="of attention: spikes are -1, 0 and 1",
  )
  command.add_argument(
    "--windows",
    type=windows,
    metavar="W,W,...",
    help="how many tokens each head remembers, 'all' for no limit",
  )
  command.add_argument(
    "--positions", choices=POSITIONS, help="default: as the model has them"
  )
  command.add_argument(
    "--share",
    type=float,
    metavar="P",
    help="of attention: percentile of a drive that is two thresholds"
    " (default: 99)",
  )
  blocks = command.add_mutually_exclusive_group()
  flags.number(blocks, "mlp_ticks", None, "of feed-forward blocks (default: 8)")
  flags.flag(
    blocks,
    "keep_mlp",
    action="store_true",
    help="feed-forward blocks stay as they are",
  )
  flags.flag(
    command,
    "mlp_top",
    metavar="HOW",
    help="what the largest count stands for: a percentile of the activation as"
    " p99.9 (default), least_error or maximum",
  )


def windows(text: str) -> tuple[int | None, ...]:
  """Windows of heads, None for all tokens: "4,16,all"."""
  found = []
  for part in text.split(","):
    try:
      value = None if part.strip() == "all" else int(part)
    except ValueError:
      value = 0
    if value is not None and value < 1:
      raise argparse.ArgumentTypeError(
        f"found {text!r}, allowed are positive integers and 'all', one per"
        " head, with commas between"
      )
    found.append(value)
  return tuple(found)
