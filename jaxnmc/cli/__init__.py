"""The console script `jaxnmc` (and `python -m jaxnmc`).

Exit status: 0 done, 1 the answer is no (`verify` over tolerance, `demo` not
equal, `doctor` with an inexact kernel, `diverge` with a site that differs), 2
the input cannot be used; then stderr has one line that says why. 130 is an
interrupt, 141 a reader that has gone.
"""

import importlib
import os
import signal
import sys
from collections.abc import Sequence

from jaxnmc.cli import parser
from jaxnmc.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command.

  Args:
    argv: arguments without the program's name; those of the process if None.

  Returns:
    The exit status.
  """
  try:
    args = parser.build().parse_args(argv)
    if args.compile_cache is not None:
      _keep_programs(args.compile_cache)
    # Commands import jax; help and wrong flags need not wait for it.
    module = args.command.replace("-", "_")
    command = importlib.import_module(f"jaxnmc.cli.{module}")
    status = command.main(args)
    sys.stdout.flush()
    return status
  except UserError as error:
    text = " ".join(str(error).split())
    print(f"jaxnmc: error: {text}", file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print("jaxnmc: interrupted", file=sys.stderr)
    return 128 + signal.SIGINT
  except BrokenPipeError:
    # The reader (`| head`) has gone; nothing is left to say, not even at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


def _keep_programs(folder: str) -> None:
  """JAX's persistent compilation cache, for programs that take a while.

  Raises:
    UserError: the folder cannot be written.
  """
  try:
    os.makedirs(folder, exist_ok=True)
  except OSError as error:
    raise UserError(
      f"--compile-cache {folder}: {error.strerror}; give a folder that can be"
      " written"
    ) from error
  if not os.access(folder, os.W_OK):
    raise UserError(
      f"--compile-cache {folder}: not writable; give a folder that is"
    )
  import jax

  jax.config.update("jax_compilation_cache_dir", os.path.abspath(folder))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
