"""Flags of `prune`.  Nothing heavy is imported here."""

RANKS = ("layer", "global")


def pruning(command) -> None:
  """Adds the flags of `prune`.

  Args:
    command: its parser.
  """
  command.add_argument(
    "--heads",
    type=float,
    metavar="SHARE",
    help="share of all attention heads that goes, the weakest of all layers",
  )
  command.add_argument(
    "--units",
    type=float,
    metavar="SHARE",
    help="share of the feed-forward units that goes",
  )
  command.add_argument(
    "--rank",
    choices=RANKS,
    help="of --units: the weakest of each layer, or of all (default: layer)",
  )
  weights = command.add_mutually_exclusive_group()
  weights.add_argument(
    "--mask",
    metavar="N:M",
    help="of every M weights in a row the N largest stay, the others are 0",
  )
  weights.add_argument(
    "--sparsity",
    type=float,
    metavar="SHARE",
    help="share of each matrix that becomes 0, the smallest weights",
  )
  command.add_argument(
    "--out",
    metavar="FOLDER",
    required=True,
    help="the pruned model, for other commands: a new or an empty folder",
  )
